// The Window callback: how it starts, watches and ends its viewer. The viewers here are small shell scripts, and the
// display is a socket that only takes connections, so nothing is ever drawn. (window_test.py has the real window.)
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "beholder/callbacks/display.h"
#include "beholder/callbacks/live_file.h"
#include "beholder/callbacks/window.h"
#include "beholder/log.h"
#include "catch.h"

using namespace beholder;
namespace fs = std::filesystem;

namespace {

/// Takes connections as an X server does, on a free display number, and sets DISPLAY.
class FakeDisplay {
 public:
  FakeDisplay() {
    for (int number = 900; number < 1000; ++number) {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      const std::string path = "/tmp/.X11-unix/X" + std::to_string(number);
      std::memcpy(address.sun_path + 1, path.data(), path.size());  // abstract: no file is left behind
      fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + path.size());
      if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), length) == 0 && ::listen(fd_, 64) == 0) {
        ::setenv("DISPLAY", (":" + std::to_string(number)).c_str(), 1);
        ::unsetenv("WAYLAND_DISPLAY");
        return;
      }
      ::close(fd_);
    }
    FAIL("no free display number");
  }
  ~FakeDisplay() {
    ::close(fd_);
    ::unsetenv("DISPLAY");
  }

 private:
  int fd_ = -1;
};

/// A logdir with a live.json of this process, and the lines of the log.
class World {
 public:
  World() {
    std::string name = (fs::temp_directory_path() / "beholder-window-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()));
    folder = name;
    run.logdir = folder + "/run";
    run.directory = run.logdir + "/plugins/beholder";
    fs::create_directories(run.directory);
    ::unsetenv("BEHOLDER_VIEWER");
    set_log_sink([this](LogLevel, const std::string& line) {
      std::lock_guard<std::mutex> lock(mutex_);
      lines_.push_back(line);
    });
  }
  ~World() {
    set_log_sink({});
    fs::remove_all(folder);
  }

  /// `pid_started`: 0 = the file does not say when its process started.
  void serve(int64_t pid = ::getpid(), uint64_t pid_started = 0) {
    LiveRun live;
    live.pid_started = pid_started;
    live.address = "127.0.0.1";
    live.port = 1;  // nobody is there: only the file counts
    live.token = "secret-token-of-this-run";
    live.pid = pid;
    live.nonce = "00";
    live.started = 1;
    live.version = "0.1.0";
    write_live_file(run.directory, live);
  }
  std::string script(const std::string& name, const std::string& body) const {
    const std::string path = folder + "/" + name;
    std::ofstream(path) << "#!/bin/sh\n" << body;
    ::chmod(path.c_str(), 0755);
    return path;
  }
  std::vector<std::string> lines() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return lines_;
  }
  std::string log() const {
    std::string all;
    for (const auto& line : lines()) all += line + "\n";
    return all;
  }

  std::string folder;
  Run run;

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

bool soon(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

WindowOptions with(const std::string& viewer) {
  WindowOptions options;
  options.viewer = viewer;
  return options;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("the viewer runs in a session of its own, with the logdir and nothing secret, and holds nothing of ours") {
  World world;
  FakeDisplay display;
  world.serve();
  const std::string out = world.folder + "/out";
  // A descriptor that a careless library left open for children.
  const int opened = ::open("/dev/null", O_RDONLY), leaked = ::fcntl(opened, F_DUPFD, 77);
  ::close(opened);
  const std::string viewer = world.script(
      "viewer", "tr '\\0' ' ' < /proc/$$/cmdline > " + out + "\necho >> " + out + "\ncat /proc/$$/stat >> " + out +
                    "\nreadlink /proc/$$/fd/0 >> " + out + "\nls /proc/$$/fd | sed 's/^/descriptor /' >> " + out +
                    "\ngrep SigIgn /proc/$$/status >> " + out + "\necho end >> " + out + "\nexec sleep 1000\n");
  Window window(with(viewer));
  const auto ignored_before = ::signal(SIGINT, SIG_IGN);
  window.open(world.run);
  REQUIRE(soon([&] { return has(text_of(out), "end\n"); }));
  ::signal(SIGINT, ignored_before);
  ::close(leaked);
  const int pid = window.viewer_pid();
  REQUIRE(pid > 0);
  const std::string text = text_of(out);
  CAPTURE(text);
  CHECK(has(text, "view --pid " + std::to_string(::getpid()) + " -- " + world.run.logdir));
  CHECK_FALSE(has(text, "secret"));
  CHECK(::getsid(pid) == pid);
  CHECK(::getsid(pid) != ::getsid(0));
  CHECK(has(text, "/dev/null\n"));
  CHECK(has(text, "descriptor 0\n"));
  CHECK_FALSE(has(text, "descriptor " + std::to_string(leaked) + "\n"));
  const size_t mask = text.find("SigIgn:");
  REQUIRE(mask != std::string::npos);
  CHECK((std::stoull(text.substr(mask + 7), nullptr, 16) & (1u << (SIGINT - 1))) == 0);
  window.close();
  CHECK(::kill(pid, 0) == -1);  // ended and reaped
  CHECK(window.viewer_pid() == 0);
  CHECK(world.lines().empty());
}

TEST_CASE("a viewer that does not end when told is killed") {
  World world;
  FakeDisplay display;
  world.serve();
  Window window(
      with(world.script("deaf", "trap '' TERM\ntouch " + world.folder + "/up\nwhile :; do sleep 0.1; done\n")));
  window.open(world.run);
  REQUIRE(soon([&] { return fs::exists(world.folder + "/up"); }));
  const int pid = window.viewer_pid();
  const auto begin = std::chrono::steady_clock::now();
  window.close();
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(8));
  CHECK(::kill(pid, 0) == -1);
  CHECK(world.lines().empty());
}

TEST_CASE("a window that its user closes is reaped, and nothing is said") {
  World world;
  FakeDisplay display;
  world.serve();
  const std::string up = world.folder + "/up";
  Window window(with(world.script("polite", "touch " + up + "\nexit 0\n")));
  window.open(world.run);
  REQUIRE(soon([&] { return fs::exists(up); }));
  CHECK(soon([&] { return window.viewer_pid() == 0; }));
  int status = 0;
  CHECK(soon([&] { return ::waitpid(-1, &status, WNOHANG) == -1; }));  // no child is left, dead or alive
  window.close();
  CHECK(world.lines().empty());
}

TEST_CASE("a viewer that fails is one line, with its last words") {
  World world;
  FakeDisplay display;
  world.serve();
  Window window(with(world.script("broken", "echo first >&2\necho 'the display is on fire' >&2\nexit 3\n")));
  window.open(world.run);
  REQUIRE(soon([&] { return !world.lines().empty(); }));
  window.close();
  CHECK(world.lines().size() == 1);
  CHECK(has(world.log(), "exit status 3"));
  CHECK(has(world.log(), "the display is on fire"));
}

TEST_CASE("a viewer that is killed is one line") {
  World world;
  FakeDisplay display;
  world.serve();
  Window window(with(world.script("sleeper", "exec sleep 1000\n")));
  window.open(world.run);
  REQUIRE(soon([&] { return window.viewer_pid() > 0; }));
  ::kill(window.viewer_pid(), SIGKILL);
  REQUIRE(soon([&] { return !world.lines().empty(); }));
  window.close();
  CHECK(world.lines().size() == 1);
  CHECK(has(world.log(), "signal 9"));
}

TEST_CASE("no viewer at BEHOLDER_VIEWER is one line that names it") {
  World world;
  FakeDisplay display;
  world.serve();
  ::setenv("BEHOLDER_VIEWER", "/nowhere/beholder", 1);
  Window window;
  window.open(world.run);
  REQUIRE(soon([&] { return !world.lines().empty(); }));
  window.close();
  CHECK(world.lines().size() == 1);
  CHECK(has(world.log(), "/nowhere/beholder"));
  CHECK(has(world.log(), "BEHOLDER_VIEWER"));
  ::unsetenv("BEHOLDER_VIEWER");
}

TEST_CASE("BEHOLDER_VIEWER names the program that is started") {
  World world;
  FakeDisplay display;
  world.serve();
  const std::string up = world.folder + "/chosen";
  ::setenv("BEHOLDER_VIEWER", world.script("mine", "touch " + up + "\nexec sleep 1000\n").c_str(), 1);
  Window window;
  window.open(world.run);
  CHECK(soon([&] { return fs::exists(up); }));
  window.close();
  ::unsetenv("BEHOLDER_VIEWER");
}

TEST_CASE("no display is one line, and nothing is started") {
  World world;
  world.serve();
  const std::string up = world.folder + "/up";
  const std::string viewer = world.script("viewer", "touch " + up + "\n");
  ::unsetenv("WAYLAND_DISPLAY");
  SECTION("none is named") { ::unsetenv("DISPLAY"); }
  SECTION("the one that is named does not answer") { ::setenv("DISPLAY", ":899", 1); }
  SECTION("what is named is no display") { ::setenv("DISPLAY", "nonsense", 1); }
  CHECK_FALSE(display_problem().empty());
  Window window(with(viewer));
  window.open(world.run);
  REQUIRE(soon([&] { return !world.lines().empty(); }));
  window.close();
  CHECK(world.lines().size() == 1);
  CHECK(has(world.log(), "no display"));
  CHECK_FALSE(fs::exists(up));
  ::unsetenv("DISPLAY");
}

TEST_CASE("without a live server of this process nothing is started, and one line says so") {
  World world;
  FakeDisplay display;
  const std::string up = world.folder + "/up";
  WindowOptions options = with(world.script("viewer", "touch " + up + "\n"));
  options.patience_seconds = 0.2;
  std::string expected = "LiveServer";
  SECTION("none") {}
  SECTION("another process's") {
    world.serve(1);
    expected = "another process";
  }
  SECTION("that of an older process with the number of this one") { world.serve(::getpid(), 1); }
  Window window(options);
  window.open(world.run);
  REQUIRE(soon([&] { return !world.lines().empty(); }));
  window.close();
  CHECK(world.lines().size() == 1);
  CHECK(has(world.log(), expected));
  CHECK_FALSE(fs::exists(up));
}

TEST_CASE("the viewer waits for the live server") {
  World world;
  FakeDisplay display;
  const std::string up = world.folder + "/up";
  Window window(with(world.script("viewer", "touch " + up + "\nexec sleep 1000\n")));
  window.open(world.run);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK_FALSE(fs::exists(up));
  world.serve();
  CHECK(soon([&] { return fs::exists(up); }));
}

TEST_CASE("closing at once, before anything was started, does not wait for the live server") {
  World world;
  FakeDisplay display;
  const auto begin = std::chrono::steady_clock::now();
  {
    Window window(with(world.script("viewer", "exit 0\n")));
    window.open(world.run);
  }
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
  CHECK(world.lines().empty());
}

TEST_CASE("a window opens again after it was closed, however it ended before") {
  World world;
  FakeDisplay display;
  world.serve();
  const std::string up = world.folder + "/up";
  Window window(with(world.script("viewer", "echo up >> " + up + "\nexec sleep 1000\n")));
  std::string expected;
  for (int time = 1; time <= 3; ++time) {
    INFO("the " << time << ". time");
    window.open(world.run);
    expected += "up\n";
    REQUIRE(soon([&] { return text_of(up) == expected; }));
    const int viewer = window.viewer_pid();
    CHECK(viewer > 0);
    if (time == 2) {  // the user closes it
      ::kill(viewer, SIGKILL);
      CHECK(soon([&] { return window.viewer_pid() == 0; }));
    }
    window.close();
    CHECK(window.viewer_pid() == 0);
    CHECK(::kill(viewer, 0) == -1);
    window.close();  // does nothing the second time
  }
  // Opened once more without a close() in between: the viewer of before ends.
  window.open(world.run);
  REQUIRE(soon([&] { return window.viewer_pid() > 0; }));
  const int before = window.viewer_pid();
  window.open(world.run);
  CHECK(::kill(before, 0) == -1);
  CHECK(soon([&] { return window.viewer_pid() > 0; }));
}

TEST_CASE("a window that was closed in one run opens in another, and shows that one") {
  World first, second;
  FakeDisplay display;
  first.serve();
  second.serve();
  const std::string out = first.folder + "/out";
  Window window(with(first.script("viewer", "echo \"$*\" >> " + out + "\nexec sleep 1000\n")));
  window.open(first.run);
  REQUIRE(soon([&] { return has(text_of(out), first.run.logdir + "\n"); }));
  window.close();
  window.open(second.run);
  CHECK(soon([&] { return has(text_of(out), second.run.logdir + "\n"); }));
  const int pid = window.viewer_pid();
  REQUIRE(pid > 0);
  window.close();
  CHECK(::kill(pid, 0) == -1);
}

TEST_CASE("several windows of one process have a viewer each") {
  World world, other;
  FakeDisplay display;
  world.serve();
  other.serve();
  const std::string viewer = world.script("viewer", "exec sleep 1000\n");
  Window first(with(viewer)), second(with(viewer));
  first.open(world.run);
  second.open(other.run);
  REQUIRE(soon([&] { return first.viewer_pid() > 0 && second.viewer_pid() > 0; }));
  CHECK(first.viewer_pid() != second.viewer_pid());
  const int left = second.viewer_pid();
  first.close();
  CHECK(::kill(left, 0) == 0);
  second.close();
  CHECK(::kill(left, 0) == -1);
}

TEST_CASE("a window asks for no pictures of the film and no statistics") {
  const Window window;
  CHECK_FALSE(window.needs().film);
  CHECK_FALSE(window.needs().statistics);
}
