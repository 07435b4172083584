// What goes wrong around a training, to a whole process: faults_run is started, something breaks, and the training must
// finish with exit status 0, one clear line, right counters, and nothing lost that was written before. Faults of single
// parts are their own tests' (recorder_test, dispatcher_test, live_server_test, window_process_test).
//
//   test_faults            everything once
//   test_faults [.long]    killed at 50 moments, forked 200 times, and so on
//   test_faults [.soak]    BEHOLDER_SOAK_SECONDS (600) whose memory stays flat
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "catch.h"
#include "http_client.h"

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;
using nlohmann::json;

// A machine that others use as well must not make these fail.
constexpr auto kDeadline = 120s;
// "Within a second", on such a machine.
constexpr double kSoonSeconds = 5;

struct TemporaryFolder {
  fs::path path;
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "beholder-faults-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  std::string logdir() const { return (path / "run").string(); }
};

/// Reads what is there; false when the other side has closed.
bool read_some(int descriptor, std::string& text) {
  char bytes[4096];
  const ssize_t n = ::read(descriptor, bytes, sizeof bytes);
  if (n > 0) text.append(bytes, static_cast<size_t>(n));
  return n > 0 || (n < 0 && errno == EINTR);
}

Words operator+(Words all, const Words& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
  }
  return lines;
}

/// A faults_run.
class Training {
 public:
  enum class Log { Read, NobodyReads };

  explicit Training(const std::string& logdir, const Words& words = {}, Log log = Log::Read) {
    int in[2], out[2], error[2];
    for (int* pipe : {in, out, error}) {
      if (::pipe2(pipe, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    }
    Words arguments{BEHOLDER_FAULTS_RUN, logdir};
    arguments.insert(arguments.end(), words.begin(), words.end());
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, error[1], STDERR_FILENO);
    // As a shell starts it, whatever the one who runs these tests ignores.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    const int failed = ::posix_spawn(&pid_, argv[0], &files, &attributes, argv.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    for (int fd : {in[0], out[1], error[1]}) ::close(fd);
    in_ = in[1];
    out_ = out[0];
    error_ = error[0];
    if (log == Log::NobodyReads) ::close(std::exchange(error_, -1));
    if (failed != 0) throw std::runtime_error(std::string("cannot start faults_run: ") + std::strerror(failed));
  }
  ~Training() {
    if (!ended_) {
      ::kill(pid_, SIGKILL);
      wait();
    }
    for (int fd : {in_, out_, error_}) {
      if (fd >= 0) ::close(fd);
    }
  }
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  pid_t pid() const { return pid_; }
  void kill(int signal) const { ::kill(pid_, signal); }

  /// Waits until the films have so many frames together; false when it ended before.
  bool frames(int64_t count) {
    return until([&] { return frames_ >= count; });
  }
  /// So many frames more than now.
  bool more_frames(int64_t count = 10) { return frames(frames_ + count); }

  struct Server {
    int port;
    std::string token;
    /// The head of a request, without the empty line that ends it.
    std::string get(const std::string& path) const {
      return "GET " + path + "?token=" + token + " HTTP/1.1\r\nHost: localhost\r\n";
    }
  };
  /// The live server.
  Server server() {
    const std::string answer = tell("port");
    return {std::stoi(answer), answer.substr(answer.find(' ') + 1)};
  }

  /// Has a word acted on; returns the answer.
  std::string tell(const std::string& word) {
    const std::string line = word + "\n";
    if (::write(in_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) return "";
    const std::string answer = "did " + word;
    std::string said;
    until([&] {
      if (answers_.empty()) return false;
      said = answers_.front();
      answers_.erase(answers_.begin());
      return true;
    });
    if (said.compare(0, answer.size(), answer) != 0) return "no answer to " + word;
    return said.size() > answer.size() ? said.substr(answer.size() + 1) : "";
  }

  bool wait_for_line(const std::string& part) {
    return until([&] { return log_text_.find(part) != std::string::npos; });
  }

  /// Closes its standard input, which ends it, and waits.
  Training& end() {
    ::close(std::exchange(in_, -1));
    return wait();
  }
  /// Waits until it has ended.
  Training& wait() {
    const auto begun = Clock::now();
    while (pump(begun + kDeadline)) {
    }
    int status = 0;
    for (; ::waitpid(pid_, &status, WNOHANG) == 0; std::this_thread::sleep_for(1ms)) {
      if (Clock::now() > begun + kDeadline) ::kill(pid_, SIGKILL);
    }
    ended_ = true;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    seconds_ = std::chrono::duration<double>(Clock::now() - begun).count();
    return *this;
  }

  // Once it has ended.
  int status() const { return status_; }          ///< exit status, or -signal
  double seconds() const { return seconds_; }     ///< that end() or wait() waited
  const json& result() const { return result_; }  ///< its counters; null where it printed none
  int64_t number(const char* name) const { return result_.value(name, int64_t{-1}); }
  json callback(const char* name) const {
    return result_.is_null() ? json() : result_.value("callbacks", json::object()).value(name, json());
  }
  /// Log lines but those that say where it records and serves.
  std::vector<std::string> complaints() const {
    std::vector<std::string> found;
    for (const auto& line : lines_of(log_text_)) {
      if (line.find("[beholder] live: ") == 0 || line.find("[beholder] recording to ") == 0) continue;
      found.push_back(line);
    }
    return found;
  }

 private:
  bool until(const std::function<bool()>& condition) {
    const auto deadline = Clock::now() + kDeadline;
    while (!condition()) {
      if (!pump(deadline)) return condition();
    }
    return true;
  }

  /// Reads what it prints; false when it has closed its output, or at the deadline.
  bool pump(Clock::time_point deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd both[2] = {{out_, POLLIN, 0}, {error_, POLLIN, 0}};
    if (::poll(both, 2, static_cast<int>(left)) <= 0) return false;
    if (both[1].revents != 0 && !read_some(error_, log_text_)) ::close(std::exchange(error_, -1));
    if (both[0].revents != 0 && !read_some(out_, printed_)) {
      while (error_ >= 0 && read_some(error_, log_text_)) {
      }
      return false;
    }
    for (size_t end; (end = printed_.find('\n')) != std::string::npos;) {
      const std::string line = printed_.substr(0, end);
      printed_.erase(0, end + 1);
      if (line.compare(0, 7, "frames ") == 0) frames_ = std::stoll(line.substr(7));
      if (line.compare(0, 4, "did ") == 0) answers_.push_back(line);
      if (line.compare(0, 7, "result ") == 0) result_ = json::parse(line.substr(7));
    }
    return true;
  }

  pid_t pid_ = 0;
  int in_ = -1, out_ = -1, error_ = -1;
  std::string printed_, log_text_;
  std::vector<std::string> answers_;
  int64_t frames_ = 0;
  json result_;
  bool ended_ = false;
  int status_ = -1;
  double seconds_ = 0;
};

// ---- what is left on the disk

std::vector<std::string> files(const std::string& logdir, const std::string& extension) {
  std::vector<std::string> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(fs::path(logdir) / "plugins" / "beholder", ignored)) {
    if (entry.path().extension() == extension) found.push_back(entry.path().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// Frames of a film, all of which ffprobe decodes without a complaint; otherwise -1.
int64_t film_frames(const std::string& path) {
  const std::string command =
      "ffprobe -v warning -count_frames -show_entries stream=nb_read_frames -of csv=p=0 '" + path + "' 2>&1";
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string text;
  char part[4096];
  while (const size_t n = std::fread(part, 1, sizeof part, pipe)) text.append(part, n);
  ::pclose(pipe);
  while (!text.empty() && (text.back() == '\n' || text.back() == ',')) text.pop_back();
  if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) {
    UNSCOPED_INFO("ffprobe says of " << path << ": " << text);
    return -1;
  }
  return std::stoll(text);
}

/// Lines of a film's index, without one that was torn off; -1 where one is not what it should be.
int64_t index_lines(const std::string& film) {
  std::ifstream file(fs::path(film).replace_extension(".jsonl"));
  int64_t count = 0;
  for (std::string line; std::getline(file, line) && !file.eof(); ++count) {
    const auto parsed = json::parse(line, nullptr, false);
    if (parsed.is_discarded() || parsed.value("frame", int64_t{-1}) != count) return -1;
  }
  return count;
}

/// Every film is whole and has one index line a frame; returns the frames of all together.
int64_t check_films(const std::string& logdir) {
  int64_t all = 0;
  for (const auto& film : files(logdir, ".mp4")) {
    const int64_t frames = film_frames(film);
    CHECK(frames > 0);
    CHECK(index_lines(film) == frames);
    all += frames;
  }
  return all;
}

/// Every update was counted, and every picture has become of something in each callback.
void check_counters(const Training& training) {
  REQUIRE_FALSE(training.result().is_null());
  CHECK(training.number("updates") == training.number("steps"));
  CHECK(training.number("captured") == training.number("rendered") + training.number("errors"));
  for (const auto& [name, state] : training.result()["callbacks"].items()) {
    CAPTURE(name);
    const int64_t told = state.value("shown", int64_t{0}) + state.value("dropped", int64_t{0}) +
                         state.value("errors", int64_t{0}) + (state.value("queued_bytes", int64_t{0}) > 0 ? 1 : 0);
    if (name != "hangs" && name != "slow") CHECK(told == training.number("rendered"));
  }
}

/// What holds of a training that nothing disturbed, or so that nobody noticed.
void check_whole(const std::string& logdir, const Training& training) {
  CHECK(training.status() == 0);
  CHECK(training.complaints() == Words{});
  check_counters(training);
  CHECK(training.number("frames") == training.number("rendered"));
  CHECK(check_films(logdir) == training.number("frames"));
}

void check_one_line(const Training& training, const std::string& part) {
  const auto complaints = training.complaints();
  CAPTURE(complaints);
  REQUIRE(complaints.size() == 1);
  CHECK(complaints[0].find(part) != std::string::npos);
}

/// A small disk, in a mount namespace of its own where root's may not be changed. Seen through /proc, gone with it.
class SmallDisk {
 public:
  explicit SmallDisk(const char* size) {
    int told[2], orders[2];
    if (::pipe2(told, O_CLOEXEC) != 0 || ::pipe2(orders, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    holder_ = ::fork();
    if (holder_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const bool own = ::unshare(CLONE_NEWNS) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
      const bool mounted = own && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                           ::mount("tmpfs", folder_.path.c_str(), "tmpfs", 0, size) == 0;
      char answer = mounted ? 'y' : 'n', order = 'r';
      while (::write(told[1], &answer, 1) == 1 && mounted && ::read(orders[0], &order, 1) == 1) {
        const unsigned long flags = MS_REMOUNT | (order == 'r' ? MS_RDONLY : 0);
        answer = ::mount(nullptr, folder_.path.c_str(), nullptr, flags, size) == 0 ? 'y' : 'n';
      }
      ::_exit(1);
    }
    ::close(told[1]);
    ::close(orders[0]);
    answers_ = told[0];
    orders_ = orders[1];
    there_ = answered();
  }
  ~SmallDisk() {
    ::kill(holder_, SIGKILL);
    ::waitpid(holder_, nullptr, 0);
    ::close(answers_);
    ::close(orders_);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  /// False where this user may not mount anything.
  bool there() const { return there_; }
  std::string logdir() const { return "/proc/" + std::to_string(holder_) + "/root" + folder_.logdir(); }
  /// Waits until no file on it is open for writing; false where that takes longer than a test waits.
  bool set_writable(bool writable) {
    for (const auto begun = Clock::now(); Clock::now() - begun < kDeadline; std::this_thread::sleep_for(10ms)) {
      if (::write(orders_, writable ? "w" : "r", 1) == 1 && answered()) return true;
    }
    return false;
  }

 private:
  bool answered() {
    char answer = 'n';
    return ::read(answers_, &answer, 1) == 1 && answer == 'y';
  }

  TemporaryFolder folder_;
  pid_t holder_ = 0;
  int answers_ = -1, orders_ = -1;
  bool there_ = false;
};

}  // namespace

TEST_CASE("a training that nothing disturbs has a whole film, right counters and nothing to complain of") {
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(20));
  check_whole(folder.logdir(), training.end());
  CHECK(training.number("frames") >= 20);
}

// ---- the disk

TEST_CASE("a disk that becomes full ends the film with one line, the training goes on") {
  SmallDisk disk("size=400k");
  if (!disk.there()) {
    WARN("skipped, this user may mount no tmpfs; the next test makes the same error without a disk");
    return;
  }
  Training training(disk.logdir());
  REQUIRE(training.wait_for_line("recording stopped"));
  std::this_thread::sleep_for(500ms);
  CHECK(training.end().status() == 0);
  check_one_line(training, "No space left on device. Films kept: 1. Free some space");
  check_counters(training);
  CHECK_FALSE(training.result()["recording"]);
  CHECK(check_films(disk.logdir()) > 0);
}

TEST_CASE("an error of the disk in the middle of a film ends it with one line, all before it is kept") {
  const auto [number, text] =
      GENERATE(table<int, const char*>({{ENOSPC, "No space left on device"}, {EROFS, "Read-only file system"}}));
  CAPTURE(text);
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(40));
  training.tell("disk-error=" + std::to_string(number));
  REQUIRE(training.wait_for_line("recording stopped"));
  training.tell("disk-error=0");
  CHECK(check_films(folder.logdir()) > 40 - 16);  // complete, although the training goes on
  training.tell("record=on");
  REQUIRE(training.more_frames());
  CHECK(training.end().status() == 0);
  check_one_line(training, text);
  check_counters(training);
  CHECK(training.number("films") == 2);
  CHECK(files(folder.logdir(), ".mp4").size() == 2);
  CHECK(check_films(folder.logdir()) >= training.number("frames") - 16);
}

TEST_CASE("a logdir that is removed while running is one line, and comes back with the next film") {
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(20));
  fs::remove_all(folder.logdir());
  REQUIRE(training.wait_for_line("Restore the folder"));
  training.tell("record=on");
  REQUIRE(training.more_frames());
  CHECK(training.end().status() == 0);
  check_one_line(training, "was removed");
  check_counters(training);
  CHECK(files(folder.logdir(), ".mp4").size() == 1);
  CHECK(check_films(folder.logdir()) >= 10);
}

// Between two films: no disk can be made read-only while a file on it is open for writing. One that breaks then answers
// as in the test above of errors in the middle.
TEST_CASE("a disk that is made read-only while running is one line, and is recorded on again when it is not") {
  SmallDisk disk("size=50m");
  if (!disk.there()) {
    WARN("skipped, this user may mount no tmpfs; the test above makes the same error without a disk");
    return;
  }
  Training training(disk.logdir());
  REQUIRE(training.frames(20));
  training.tell("record=off");
  REQUIRE(disk.set_writable(false));
  training.tell("record=on");
  REQUIRE(training.wait_for_line("recording stopped"));
  REQUIRE(disk.set_writable(true));
  training.tell("record=on");
  REQUIRE(training.more_frames());
  CHECK(training.end().status() == 0);
  check_one_line(training, "Read-only file system");
  check_counters(training);
  CHECK(files(disk.logdir(), ".mp4").size() == 2);
  CHECK(check_films(disk.logdir()) == training.number("frames"));
}

TEST_CASE("a logdir that is read-only from the start is one line for each who writes, the training goes on") {
  TemporaryFolder folder;
  Training training(folder.logdir(), {"disk-error=" + std::to_string(EROFS)});
  REQUIRE(training.wait_for_line("recording stopped"));
  CHECK(training.end().status() == 0);
  const auto complaints = training.complaints();
  CHECK(complaints.size() == 2);
  for (const auto& line : complaints) CHECK(line.find("Read-only file system") != std::string::npos);
  check_counters(training);
  CHECK(files(folder.logdir(), ".mp4").empty());
  CHECK(files(folder.logdir(), ".jsonl").empty());
}

TEST_CASE("an encoder that fails in the middle of a film: PNGs from there on, one line") {
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(40));
  training.tell("encoder-fails");
  REQUIRE(training.wait_for_line("PNG"));
  REQUIRE(training.more_frames());
  CHECK(training.end().status() == 0);
  check_one_line(training, "recording PNG frames from here on, the film so far is kept");
  check_counters(training);
  const int64_t in_film = check_films(folder.logdir());
  CHECK(in_film > 40 - 16);
  const std::string pngs = training.result()["path"];
  const auto count = std::distance(fs::directory_iterator(pngs), fs::directory_iterator());
  CHECK(count >= 10);
  CHECK(in_film + count > training.number("frames") - 16);
  CHECK(training.number("frames") == training.number("rendered"));
}

// ---- signals

void killed_at_random_moments(int times) {
  std::mt19937 random(20240607);
  for (int n = 0; n < times; ++n) {
    TemporaryFolder folder;
    Training training(folder.logdir());
    REQUIRE(training.frames(1 + static_cast<int64_t>(random() % 60)));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20000));
    training.kill(SIGKILL);
    CHECK(training.wait().status() == -SIGKILL);
    const auto films = files(folder.logdir(), ".mp4");
    REQUIRE(films.size() == 1);
    const int64_t frames = film_frames(films[0]), lines = index_lines(films[0]);
    CAPTURE(n, frames, lines);
    CHECK(frames > 0);
    CHECK(lines >= frames);
    CHECK(lines < frames + 16);
  }
}

TEST_CASE("a killed training leaves a film that lacks no more than its last fragment") { killed_at_random_moments(8); }
TEST_CASE("a training killed at 50 moments", "[.long]") { killed_at_random_moments(50); }

TEST_CASE("SIGINT and SIGTERM: a program whose handler lets it unwind has a finished film") {
  const int signal = GENERATE(SIGINT, SIGTERM);
  TemporaryFolder folder;
  Training training(folder.logdir(), {"handle-signals"});
  REQUIRE(training.frames(20));
  training.kill(signal);
  check_whole(folder.logdir(), training.wait());
}

TEST_CASE("SIGINT and SIGTERM without a handler: the film lacks no more than its last fragment") {
  const int signal = GENERATE(SIGINT, SIGTERM);
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(20));
  training.kill(signal);
  CHECK(training.wait().status() == -signal);
  const auto films = files(folder.logdir(), ".mp4");
  REQUIRE(films.size() == 1);
  CHECK(film_frames(films[0]) > index_lines(films[0]) - 16);
}

TEST_CASE("SIGPIPE: viewers that vanish, and a log that nobody reads, end nothing") {
  TemporaryFolder folder;
  Training training(folder.logdir(), {}, Training::Log::NobodyReads);
  REQUIRE(training.frames(5));
  const auto server = training.server();
  for (int n = 0; n < 20; ++n) {
    http::Client viewer(server.port);
    viewer.send(server.get("/stream.mjpg") + "\r\n");
    viewer.read_bytes(static_cast<size_t>(n) * 2000, 2s);
  }
  REQUIRE(training.more_frames());
  check_whole(folder.logdir(), training.end());
}

// ---- what the system has none of

// The undefined-behaviour sanitizer itself needs descriptors, to find out whether memory can be read.
TEST_CASE("no file descriptors: one line for each who needs one; with some again, recording goes on", "[unsanitized]") {
  TemporaryFolder folder;
  Training training(folder.logdir(), {"no-descriptors"});
  REQUIRE(training.wait_for_line("Raise the limit of open files"));
  training.tell("no-descriptors=off");
  training.tell("record=on");
  REQUIRE(training.more_frames());
  CHECK(training.end().status() == 0);
  const auto complaints = training.complaints();
  CAPTURE(complaints);
  CHECK(complaints.size() == 2);
  for (const auto& line : complaints) CHECK(line.find("Too many open files") != std::string::npos);
  CHECK(training.callback("live server")["shown"] == 0);
  CHECK(check_films(folder.logdir()) == training.number("frames"));
}

TEST_CASE("file descriptors that run out while running: what is open goes on, viewers come in when there are some") {
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(5));
  const auto server = training.server();
  training.tell("no-descriptors");
  http::Client viewer(server.port);
  viewer.send(server.get("/state") + "\r\n");
  CHECK(viewer.read_head(500ms).status == 0);
  std::this_thread::sleep_for(1s);
  CHECK(std::stod(training.tell("server-cpu")) < 0.1);  // it does not ask for the viewer again and again
  REQUIRE(training.more_frames());
  training.tell("no-descriptors=off");
  CHECK(viewer.read().status == 200);
  check_whole(folder.logdir(), training.end());
}

TEST_CASE("no thread at all: one line, and the training runs as without a Beholder") {
  TemporaryFolder folder;
  Training training(folder.logdir(), {"no-threads", "updates=200"});
  CHECK(training.wait().status() == 0);
  check_one_line(training, "starting the render thread failed: Resource temporarily unavailable; nothing is shown");
  CHECK(training.number("steps") == 200);
  CHECK(training.number("rendered") == 0);
  CHECK(training.result()["end_seconds"] < kSoonSeconds);
}

TEST_CASE("threads that run out after the first: one line for each callback that gets none") {
  TemporaryFolder folder;
  Training training(folder.logdir(), {"no-threads=2"});  // rendering, and the last words
  training.tell("state");
  std::this_thread::sleep_for(500ms);
  CHECK(training.end().status() == 0);
  const auto complaints = training.complaints();
  CAPTURE(complaints);
  REQUIRE(complaints.size() == 2);
  CHECK(complaints[0].find("a callback was not added: no thread for recorder") != std::string::npos);
  CHECK(complaints[1].find("a callback was not added: no thread for live server") != std::string::npos);
  check_counters(training);
  CHECK(training.number("rendered") > 0);
}

TEST_CASE("no thread for a viewer's request: it is told to come again, in one line of the log") {
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(5));
  const auto server = training.server();
  const std::string request = server.get("/state") + "\r\n";
  training.tell("no-threads");
  for (int n = 0; n < 3; ++n) {
    http::Client viewer(server.port);
    viewer.send(request);
    CHECK(viewer.read().status == 503);
  }
  training.tell("no-threads=off");
  http::Client viewer(server.port);
  viewer.send(request);
  CHECK(viewer.read().status == 200);
  CHECK(training.end().status() == 0);
  check_one_line(training, "live server: no thread for a request: Resource temporarily unavailable");
  CHECK(check_films(folder.logdir()) == training.number("rendered"));
}

TEST_CASE("no memory on the render thread: pictures are left out, counted, one line, and they come again") {
  const int every = GENERATE(1, 7, 30);  // each so-manieth allocation fails, so in other places
  CAPTURE(every);
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(20));
  training.tell("refused-every=" + std::to_string(every));
  training.tell("no-memory=bh render");
  REQUIRE(training.wait_for_line("the training goes on"));
  std::this_thread::sleep_for(200ms);
  training.tell("no-memory=");
  REQUIRE(training.more_frames());
  CHECK(training.end().status() == 0);
  const auto complaints = training.complaints();
  CAPTURE(complaints);
  CHECK(complaints.size() <= 2);  // "no memory", and what memory was left to say
  CHECK(training.number("refused") > 0);
  CHECK(training.number("errors") > 0);
  check_counters(training);
  CHECK(check_films(folder.logdir()) == training.number("frames"));
}

TEST_CASE("no memory on the threads of the callbacks: the training finishes") {
  for (const char* thread : {"bh recorder", "bh live"}) {
    CAPTURE(thread);
    TemporaryFolder folder;
    Training training(folder.logdir());
    REQUIRE(training.frames(20));
    training.tell("refused-every=5");
    training.tell(std::string("no-memory=") + thread);
    const auto server = training.server();
    for (int n = 0; n < 2; ++n) {
      http::Client viewer(server.port);
      viewer.send("GET /frame?format=png HTTP/1.1\r\nHost: localhost\r\n\r\n");
      viewer.read_head(100ms);
    }
    std::this_thread::sleep_for(300ms);
    training.tell("no-memory=");
    CHECK(training.end().status() == 0);
    CHECK(training.complaints().size() <= 2);
    CHECK(training.number("refused") > 0);
    check_counters(training);
    CHECK(check_films(folder.logdir()) >= 20 - 16);
  }
}

// ---- the user's code

TEST_CASE("callbacks that throw, are slow and hang for ever: one line each, the others see everything") {
  TemporaryFolder folder;
  Training training(folder.logdir(), {"throws", "slow", "hangs"});
  REQUIRE(training.frames(30));
  CHECK(training.end().status() == 0);
  const auto complaints = training.complaints();
  CAPTURE(complaints);
  REQUIRE(complaints.size() == 2);
  CHECK(complaints[0].find("throws: showing a picture failed: as always; the training goes on") != std::string::npos);
  CHECK(complaints[1].find("hangs did not finish within 10 s and is left behind") != std::string::npos);
  check_counters(training);
  CHECK(training.callback("throws")["errors"] == training.number("rendered"));
  CHECK(training.callback("hangs")["shown"] == 0);
  CHECK(training.callback("slow")["shown"] > 5);
  CHECK(training.callback("recorder")["shown"] == training.number("rendered"));
  CHECK(check_films(folder.logdir()) == training.number("rendered"));
}

TEST_CASE("exceptions in the middle of forward, while its activations are captured") {
  TemporaryFolder folder;
  Training training(folder.logdir(), {"activations", "forward-throws-every=3"});
  REQUIRE(training.frames(30));
  check_whole(folder.logdir(), training.end());
  CHECK(training.number("exceptions") > 10);
}

TEST_CASE("a clock that is set back an hour changes nothing but the time that is written") {
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(20));
  training.tell("clock-back=3600");
  REQUIRE(training.more_frames(40));
  check_whole(folder.logdir(), training.end());
}

void settings_change_at_each_of_10000_updates(const Words& words) {
  TemporaryFolder folder;
  Training training(folder.logdir(), words + Words{"churn", "updates=10000", "step-us=0"});
  CHECK(training.wait().status() == 0);
  for (const auto& line : training.complaints()) CHECK(line.find("no activations seen") != std::string::npos);
  REQUIRE_FALSE(training.result().is_null());
  CHECK(training.number("updates") == 10000);
  CHECK(training.number("errors") == 0);
  // What is recoloured, or of the live view alone, is no frame.
  const int64_t frames = training.number("frames");
  CHECK(frames > 10);
  CHECK(frames <= training.number("captured"));
  CHECK(training.number("rendered") >= training.number("captured"));
  const int64_t shown = frames + training.number("left_out");
  CHECK(training.callback("recorder")["shown"] == shown);
  // A film that is slower than the pictures lacks some of them, and says how many.
  const int64_t dropped = training.callback("recorder")["dropped"];
  CHECK(training.callback("last words")["shown"] == shown + dropped);
  CHECK(check_films(folder.logdir()) == frames);
}

TEST_CASE("10,000 updates, each with a change of the settings") {
  settings_change_at_each_of_10000_updates({"train-every=3"});
}
TEST_CASE("10,000 updates, each with a change of the settings, and 60 pictures a second", "[.long]") {
  settings_change_at_each_of_10000_updates({});
}

// ---- fork()

void forked(const std::string& how, int times) {
  CAPTURE(how);
  TemporaryFolder folder;
  Training training(folder.logdir(), {"activations", "end-armed", "end-in-static-destructor"});
  REQUIRE(training.frames(10));
  for (int n = 0; n < times; ++n) {
    const std::string ended = training.tell("fork=" + how);  // "exit 0 SECONDS"
    CAPTURE(ended);
    REQUIRE(ended.compare(0, 7, "exit 0 ") == 0);
    if (how != "own") CHECK(std::stod(ended.substr(7)) < kSoonSeconds);
  }
  REQUIRE(training.more_frames());
  CHECK(training.end().status() == 0);
  const auto complaints = training.complaints();
  CAPTURE(complaints);
  const bool adds = how == "use" || how == "own";
  CHECK(static_cast<int>(complaints.size()) == (adds ? times : 0));
  for (const auto& line : complaints) CHECK(line.find("is a copy that fork() made") != std::string::npos);
  CHECK(check_films(folder.logdir()) >= 20);
}

TEST_CASE("a child of fork() may end, use its copy, or show a run of its own: the film stays whole") {
  forked("_exit", 2);
  forked("exit", 2);
  forked("use", 3);
  forked("own", 1);
}
TEST_CASE("forked 200 times", "[.long]") {
  for (const char* how : {"_exit", "exit", "use", "own"}) forked(how, 50);
}

TEST_CASE("a child of fork() that stays holds no viewer's connection, and costs the server nothing") {
  TemporaryFolder folder;
  Training training(folder.logdir());
  REQUIRE(training.frames(5));
  const auto server = training.server();
  const std::string request = server.get("/state");
  {
    http::Client leaves(server.port), is_closed(server.port);
    leaves.send(request + "\r\n");
    CHECK(leaves.read().status == 200);
    is_closed.send(request);
    std::this_thread::sleep_for(50ms);
    training.tell("fork=stays");
    is_closed.send("Connection: close\r\n\r\n");
    CHECK(is_closed.read().status == 200);
    CHECK(is_closed.closed_within(10s));
  }
  std::this_thread::sleep_for(1500ms);
  CHECK(std::stod(training.tell("server-cpu")) < 0.3);  // a loop without end takes all of a core
  check_whole(folder.logdir(), training.end());
}

// ---- the end

TEST_CASE("a Beholder ends soon: in a static destructor, and on another thread while pictures are in flight") {
  SECTION("in a static destructor") {
    TemporaryFolder folder;
    const Words words = GENERATE(Words{}, Words{"activations", "end-armed"});
    Training training(folder.logdir(), words + Words{"end-in-static-destructor"});
    REQUIRE(training.frames(20));
    CHECK(training.end().status() == 0);
    CHECK(training.seconds() < 2 * kSoonSeconds);
    CHECK(training.complaints() == Words{});
    CHECK(check_films(folder.logdir()) >= 20);
  }
  SECTION("on another thread") {
    TemporaryFolder folder;
    const Words words = GENERATE(Words{}, Words{"activations", "end-armed"});
    Training training(folder.logdir(), words + Words{"end-on-another-thread", "step-us=0"});
    REQUIRE(training.frames(20));
    const auto server = training.server();
    http::Client waits(server.port);  // a viewer that waits for the next picture
    waits.send(server.get("/stream.mjpg") + "\r\n");
    CHECK(waits.read_head().status == 200);
    check_whole(folder.logdir(), training.end());
    CHECK(training.result()["end_seconds"] < kSoonSeconds);
  }
}

/// `of` the first fifth, which warms up, is not looked at.
void check_no_growth(const json& samples, int64_t bytes_allowed) {
  REQUIRE(samples.size() >= 5);
  const auto& early = samples[samples.size() / 5];
  const auto& late = samples.back();
  CAPTURE(samples);
  CHECK(late["threads"] <= early["threads"]);
  CHECK(late["descriptors"] <= early["descriptors"]);
#ifdef __SANITIZE_ADDRESS__  // which keeps freed memory for a while
  bytes_allowed += int64_t{1} << 30;
#endif
  CHECK(late["bytes"].get<int64_t>() - early["bytes"].get<int64_t>() < bytes_allowed);
}

void come_and_go(int times) {
  TemporaryFolder folder;
  Training training(folder.logdir(), {"rounds=" + std::to_string(times)});
  CHECK(training.wait().status() == 0);
  REQUIRE_FALSE(training.result().is_null());
  check_no_growth(training.result()["samples"], 16 << 20);
}

TEST_CASE("200 Beholders come and go: no growth of memory, threads or descriptors") { come_and_go(200); }
TEST_CASE("1,000 Beholders come and go", "[.long]") { come_and_go(1000); }

TEST_CASE("a long training's memory stays flat", "[.soak]") {
  const char* wish = std::getenv("BEHOLDER_SOAK_SECONDS");
  const double seconds = wish ? std::stod(wish) : 600;
  TemporaryFolder folder;
  Training training(folder.logdir(), {"sample-every=" + std::to_string(seconds / 50)});
  const auto begun = Clock::now();
  while (Clock::now() - begun < std::chrono::duration<double>(seconds)) {
    REQUIRE(training.more_frames(50));
  }
  check_whole(folder.logdir(), training.end());
  const auto& samples = training.result()["samples"];
  std::printf("resident MiB:");
  for (const auto& sample : samples) std::printf(" %lld", static_cast<long long>(sample["bytes"].get<int64_t>() >> 20));
  std::printf("\n");
  check_no_growth(samples, 8 << 20);
}
