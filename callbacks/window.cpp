#include "beholder/callbacks/window.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/callbacks/display.h"
#include "beholder/callbacks/live_file.h"
#include "beholder/log.h"
#include "beholder/thread_safety.h"

extern char** environ;

namespace beholder {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kServerPoll(50);
constexpr milliseconds kTimeToEnd(2000);  // between SIGTERM and SIGKILL
constexpr size_t kKeptOutput = 2000;      // bytes of what the viewer says last

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

bool is_program(const std::string& path) {
  return ::access(path.c_str(), X_OK) == 0 && ::access((path + "/.").c_str(), F_OK) != 0;
}

std::string this_program() {
  char path[4096];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
  return length > 0 ? std::string(path, static_cast<size_t>(length)) : "";
}

/// The shared library that this code is in; the program where it is linked statically.
std::string this_library() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&this_program), &info) == 0 || !info.dli_fname) return "";
  char path[PATH_MAX];
  return ::realpath(info.dli_fname, path) ? path : "";
}

/// Empty where there is none.
std::string find_viewer() {
  for (const auto& start : {this_library(), this_program()}) {
    if (start.empty()) continue;
    std::string folder = folder_of(start);
    if (is_program(folder + "/beholder")) return folder + "/beholder";
    // <prefix>/lib/<triplet>/libbeholder.so and <prefix>/bin/beholder; build/examples/demo and build/tools/beholder.
    for (int up = 0; up < 3 && folder != "/"; ++up) {
      folder = folder_of(folder);
      for (const char* place : {"/tools/beholder", "/bin/beholder"}) {
        if (is_program(folder + place)) return folder + place;
      }
    }
  }
  const char* path = std::getenv("PATH");
  for (std::string rest = path ? path : ""; !rest.empty();) {
    const auto colon = rest.find(':');
    const std::string folder = rest.substr(0, colon);
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
    if (!folder.empty() && is_program(folder + "/beholder")) return folder + "/beholder";
  }
  return "";
}

/// The last line that has something to say.
std::string last_line(const std::string& output) {
  size_t end = output.find_last_not_of(" \t\r\n");
  if (end == std::string::npos) return "";
  const size_t begin = output.rfind('\n', end);
  std::string line =
      output.substr(begin == std::string::npos ? 0 : begin + 1, end - (begin == std::string::npos ? -1 : begin));
  for (auto& c : line) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return line.substr(0, 300);
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status));
  return "exit status " + std::to_string(WEXITSTATUS(status));
}

/// Starts the program in a session of its own. Its standard error goes to `error_pipe`. Returns its process id, or
/// -errno.
int start(const std::string& program, const std::vector<std::string>& arguments, int error_pipe) {
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&files, error_pipe, STDERR_FILENO);
#ifdef __GLIBC_PREREQ
#if __GLIBC_PREREQ(2, 34)
  // The window may outlive the training: it shall hold none of its sockets, devices and files.
  posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
#endif
#endif
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, program.c_str(), &files, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error == 0 ? pid : -error;
}

}  // namespace

/// The viewer of one open() and the thread that waits for it. Shared, so that a close() that gave up waiting leaves
/// nothing dangling.
struct Window::Child {
  // Set before the thread begins.
  WindowOptions options;
  std::string logdir, directory;

  mutable Mutex mutex;
  Condition changed;
  bool closing BEHOLDER_GUARDED_BY(mutex) = false;
  pid_t pid BEHOLDER_GUARDED_BY(mutex) = 0;      // not reaped yet, so that a signal reaches no other process
  bool done BEHOLDER_GUARDED_BY(mutex) = false;  // the thread has nothing left to do
  std::thread thread;                            // used by the thread that opens and closes the window

  void run();
  bool wait_for_server();
  std::string read_to_end(int pipe) const;
  void send(int signal) const BEHOLDER_REQUIRES(mutex) {
    if (pid > 0) ::kill(pid, signal);
  }
};

/// False when it is time to close, or there is no server.
bool Window::Child::wait_for_server() {
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                           std::chrono::duration<double>(options.patience_seconds));
  MutexLock lock(mutex);
  while (!closing) {
    lock.unlock();
    const auto run = read_live_file(directory);
    if (run && is_of_this_process(*run)) return true;
    if (Clock::now() > deadline) {
      log_warning(run && process_exists(*run) ? "window: another process shows its run in " + logdir +
                                                    " already, so none was opened for this one"
                                              : "window: none was opened, because " + directory +
                                                    " has no live.json; add a beholder::LiveServer to this run");
      return false;
    }
    lock.lock();
    changed.wait_for(lock, kServerPoll, [this]() BEHOLDER_REQUIRES(mutex) { return closing; });
  }
  return false;
}

std::string Window::Child::read_to_end(int pipe) const {
  std::string kept;
  char bytes[512];
  for (;;) {
    const ssize_t count = ::read(pipe, bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return kept;
    kept.append(bytes, static_cast<size_t>(count));
    if (kept.size() > kKeptOutput) kept.erase(0, kept.size() - kKeptOutput);
  }
}

void Window::Child::run() {
  const char* chosen = std::getenv("BEHOLDER_VIEWER");
  const std::string wish = !options.viewer.empty() ? options.viewer : chosen ? chosen : "";
  const std::string program = wish.empty() ? find_viewer() : wish;
  if (program.empty()) {
    log_warning(
        "window: the beholder program was not found beside this one or in PATH; set BEHOLDER_VIEWER to its path");
    return;
  }
  const std::string problem = display_problem();
  if (!problem.empty()) {
    log_info("window: " + problem);
    return;
  }
  if (!wait_for_server()) return;

  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) {
    log_warning(std::string("window: the viewer cannot be started: ") + std::strerror(errno));
    return;
  }
  const auto began = Clock::now();
  {
    MutexLock lock(mutex);
    const int started =
        closing ? 0 : start(program, {"view", "--pid", std::to_string(::getpid()), "--", logdir}, pipe[1]);
    pid = std::max(0, started);
    if (started < 0) {
      log_warning("window: " + program + " cannot be started: " + std::strerror(-started) +
                  (wish.empty() ? "" : " (BEHOLDER_VIEWER names it)"));
    }
  }
  ::close(pipe[1]);
  pid_t child;
  {
    MutexLock lock(mutex);
    child = pid;
  }
  if (child == 0) {
    ::close(pipe[0]);
    return;
  }
  const std::string output = read_to_end(pipe[0]);  // until it has ended
  ::close(pipe[0]);
  siginfo_t ended{};
  // First only looked at: until it is reaped below, its number belongs to nobody else.
  while (::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  int status = 0;
  bool told, reaped;
  {
    MutexLock lock(mutex);
    reaped = ::waitpid(child, &status, 0) == child;  // not where the program ignores SIGCHLD: then it is gone already
    pid = 0;
    told = closing;
  }
  if (told || !reaped || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) return;
  const bool at_once = Clock::now() - began < std::chrono::seconds(3);
  const std::string said = last_line(output);
  log_warning(std::string("window: the viewer ended") + (at_once ? " at once" : "") + " with " + how_it_ended(status) +
              (said.empty() ? "" : ": " + said) + "; the training goes on");
}

Window::Window(WindowOptions options) : options_(std::move(options)) {}

Window::~Window() { close(); }

Needs Window::needs() const {
  Needs needs;
  needs.film = false;
  needs.statistics = false;
  return needs;
}

std::shared_ptr<Window::Child> Window::now_open() const {
  MutexLock lock(mutex_);
  return child_;
}

void Window::open(const Run& run) {
  close();
  const auto opened = std::make_shared<Child>();
  opened->options = options_;
  opened->logdir = run.logdir;
  opened->directory = run.directory;
  opened->thread = std::thread([child = opened] {
    try {
      child->run();
    } catch (const std::exception& error) {
      log_warning(std::string("window: ") + error.what());
    }
    MutexLock lock(child->mutex);
    child->done = true;
    child->changed.notify_all();
  });
  MutexLock lock(mutex_);
  child_ = opened;
}

void Window::close() {
  std::shared_ptr<Child> child;
  {
    MutexLock lock(mutex_);
    child.swap(child_);
  }
  if (!child) return;
  {
    MutexLock lock(child->mutex);
    child->closing = true;
    child->changed.notify_all();
    child->send(SIGTERM);
    const auto done = [&]() BEHOLDER_REQUIRES(child->mutex) { return child->done; };
    if (!child->changed.wait_for(lock, kTimeToEnd, done)) child->send(SIGKILL);
    if (!child->changed.wait_for(lock, kTimeToEnd, done)) {
      lock.unlock();
      child->thread.detach();  // something else holds its pipe; it owns what it uses
      return;
    }
  }
  child->thread.join();
}

int Window::viewer_pid() const {
  const auto child = now_open();
  if (!child) return 0;
  MutexLock lock(child->mutex);
  return child->pid;
}

bool has_display() { return names_a_display(); }

}  // namespace beholder
