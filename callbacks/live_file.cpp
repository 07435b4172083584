#include "beholder/callbacks/live_file.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <system_error>
#include <thread>
#include <vector>

namespace beholder {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr size_t kMaxFileBytes = 64 * 1024;
constexpr size_t kMaxAnswerBytes = 64 << 20;
constexpr int64_t kMaxPid = std::numeric_limits<pid_t>::max();
constexpr int kMaxDepth = 6;
constexpr size_t kMaxFolders = 20000;

struct Descriptor {
  int fd = -1;
  explicit Descriptor(int fd_) : fd(fd_) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

std::string path_in(const std::string& directory) { return directory + "/live.json"; }

/// Waits until `events` are there; false at the deadline.
bool wait_for(int fd, short events, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd one{fd, events, 0};
    const int n = ::poll(&one, 1, static_cast<int>(left));
    if (n > 0) return true;
    if (n < 0 && errno != EINTR) return false;
  }
}

/// The body of GET `path`, or nothing. Plain sockets: an HTTP library's client would raise SIGPIPE in the user's
/// process.
std::optional<std::string> get(const LiveRun& run, const std::string& path, Clock::time_point deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string address = run.address == "0.0.0.0" ? "127.0.0.1" : run.address == "::" ? "::1" : run.address;
  if (::getaddrinfo(address.c_str(), std::to_string(run.port).c_str(), &hints, &found) != 0) return std::nullopt;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  const Descriptor socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.fd < 0) return std::nullopt;
  if (::connect(socket.fd, found->ai_addr, found->ai_addrlen) != 0) {
    int error = errno;
    if (error != EINPROGRESS || !wait_for(socket.fd, POLLOUT, deadline)) return std::nullopt;
    socklen_t size = sizeof error;
    if (::getsockopt(socket.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return std::nullopt;
  }
  const std::string request = "GET " + path + " HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer " + run.token +
                              "\r\nConnection: close\r\n\r\n";
  // A new connection takes these few bytes at once.
  if (::send(socket.fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
    return std::nullopt;
  }
  std::string answer;
  while (answer.size() < kMaxAnswerBytes && wait_for(socket.fd, POLLIN, deadline)) {
    char bytes[16384];
    const ssize_t n = ::recv(socket.fd, bytes, sizeof bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n < 0) return std::nullopt;
    if (n == 0) {
      const size_t body = answer.find("\r\n\r\n");
      const bool good =
          body != std::string::npos && answer.compare(0, 7, "HTTP/1.") == 0 && answer.compare(8, 4, " 200") == 0;
      if (!good) return std::nullopt;
      return answer.substr(body + 4);
    }
    answer.append(bytes, static_cast<size_t>(n));
  }
  return std::nullopt;
}

/// The first `most` bytes of a small file of the system; empty where it cannot be read.
std::string system_text(const std::string& path, size_t most = 4096) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(file.fd < 0 ? 0 : most, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = ::read(file.fd, &text[size], text.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    size += static_cast<size_t>(n);
  }
  text.resize(size);
  return text;
}

/// Empty where the system does not say.
std::string boot_id() {
  std::string id = system_text("/proc/sys/kernel/random/boot_id", 64);
  return id.substr(0, id.find_first_of("\r\n"));
}

struct ProcessEntry {
  uint64_t started = 0;  // in clock ticks since boot; 0: unknown
  bool ended = false;    // and not reaped yet, which may take for ever where nobody does it
};

/// What the system says of a process; the defaults where it says nothing.
ProcessEntry process_entry(int64_t pid) {
  const std::string text = system_text("/proc/" + std::to_string(pid) + "/stat");
  // The second field is the program's name in brackets, with anything in it.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream rest(text.substr(name_end + 1));
  std::vector<std::string> fields(3);  // those of proc(5) by their numbers
  for (std::string field; fields.size() <= 22 && rest >> field;) fields.push_back(field);
  if (fields.size() <= 22) return {};
  ProcessEntry entry;
  entry.started = std::strtoull(fields[22].c_str(), nullptr, 10);
  // A process whose first thread alone has ended is called a zombie too, but has others.
  entry.ended = fields[3] == "X" || (fields[3] == "Z" && std::strtoull(fields[20].c_str(), nullptr, 10) <= 1);
  return entry;
}

/// The file says enough to tell its process from others of the same number.
bool is_certain(const LiveRun& run) { return run.pid_started != 0 && !run.boot_id.empty(); }

void write_all(int fd, const std::string& text) {
  for (size_t written = 0; written < text.size();) {
    const ssize_t n = ::write(fd, text.data() + written, text.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw std::system_error(n < 0 ? errno : ENOSPC, std::generic_category());
    written += static_cast<size_t>(n);
  }
}

}  // namespace

std::optional<LiveRun> read_live_file(const std::string& directory) {
  const Descriptor file(::open(path_in(directory).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (file.fd < 0 || ::fstat(file.fd, &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  // Another user's file could send a viewer to a server of that user.
  if (status.st_uid != ::geteuid() || static_cast<size_t>(status.st_size) > kMaxFileBytes) return std::nullopt;
  std::string text(kMaxFileBytes, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = ::read(file.fd, &text[size], text.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return std::nullopt;
    if (n == 0) break;
    size += static_cast<size_t>(n);
  }
  text.resize(size);
  try {
    const Json json = Json::parse(text);
    LiveRun run;
    run.address = json.at("address").get<std::string>();
    run.port = json.at("port").get<int>();
    run.token = json.at("token").get<std::string>();
    run.pid = json.at("pid").get<int64_t>();
    run.nonce = json.at("nonce").get<std::string>();
    run.pid_started = json.value("pid_started", uint64_t{0});
    run.boot_id = json.value("boot_id", std::string());
    run.started = json.value("started", 0.0);
    run.version = json.value("version", std::string());
    run.directory = directory;
    const bool good = run.port > 0 && run.port < 65536 && run.pid > 0 && run.pid <= kMaxPid && !run.token.empty() &&
                      !run.nonce.empty() && run.token.find_first_of("\r\n") == std::string::npos;
    if (good) return run;
  } catch (const Json::exception&) {
  }
  return std::nullopt;
}

void note_this_process(LiveRun& run) {
  run.pid = ::getpid();
  run.pid_started = process_entry(run.pid).started;
  run.boot_id = boot_id();
}

bool process_exists(const LiveRun& run) {
  if (run.pid <= 0 || (::kill(static_cast<pid_t>(run.pid), 0) != 0 && errno != EPERM)) return false;
  // What one side does not know decides nothing.
  const std::string boot = run.boot_id.empty() ? "" : boot_id();
  if (!boot.empty() && boot != run.boot_id) return false;
  const ProcessEntry entry = process_entry(run.pid);
  if (entry.ended) return false;
  return entry.started == 0 || run.pid_started == 0 || entry.started == run.pid_started;
}

bool is_of_this_process(const LiveRun& run) { return run.pid == ::getpid() && process_exists(run); }

bool answers(const LiveRun& run, std::chrono::milliseconds timeout) {
  if (!process_exists(run)) return false;
  const auto body = get(run, "/state", Clock::now() + timeout);
  if (!body) return false;
  const Json json = Json::parse(*body, nullptr, false);
  if (!json.is_object() || !json.contains("run") || !json["run"].is_object()) return false;
  const auto nonce = json["run"].find("nonce");
  return nonce != json["run"].end() && nonce->is_string() && nonce->get<std::string>() == run.nonce;
}

std::optional<LiveRun> newest_live_run(const std::string& folder, bool check) {
  namespace fs = std::filesystem;
  std::vector<LiveRun> runs;
  const auto look_in = [&](const fs::path& logdir) {
    auto run = read_live_file((logdir / "plugins" / "beholder").string());
    if (run && process_exists(*run)) runs.push_back(std::move(*run));
  };
  std::error_code error;
  look_in(folder);
  size_t folders = 0;
  fs::recursive_directory_iterator at(folder, fs::directory_options::skip_permission_denied, error), end;
  for (; !error && at != end && folders < kMaxFolders; at.increment(error)) {
    std::error_code unknown;
    if (!at->is_directory(unknown) || at->is_symlink(unknown)) continue;
    ++folders;
    if (at.depth() + 1 >= kMaxDepth || at->path().filename() == "plugins") at.disable_recursion_pending();
    look_in(at->path());
  }
  std::stable_sort(runs.begin(), runs.end(), [](const auto& a, const auto& b) { return a.started > b.started; });
  for (auto& run : runs) {
    if ((!check && is_certain(run)) || answers(run)) return run;
  }
  if (check || runs.empty()) return std::nullopt;
  return runs.front();
}

LiveFileResult write_live_file(const std::string& directory, const LiveRun& run) {
  const auto fail = [&](int error) {
    throw std::system_error(error, std::generic_category(), "cannot write " + path_in(directory));
  };
  // One server at a time looks and writes. (Where the file system knows no locks, the renaming alone must do.)
  const Descriptor folder(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.fd < 0) fail(errno);
  for (int tries = 0; tries < 20 && ::flock(folder.fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (const auto before = read_live_file(directory); before && before->nonce != run.nonce && answers(*before)) {
    return LiveFileResult::Taken;
  }
  Json json;
  json["address"] = run.address;
  json["port"] = run.port;
  json["token"] = run.token;
  json["pid"] = run.pid;
  if (run.pid_started != 0) json["pid_started"] = run.pid_started;
  if (!run.boot_id.empty()) json["boot_id"] = run.boot_id;
  json["nonce"] = run.nonce;
  json["started"] = run.started;
  json["version"] = run.version;
  const std::string aside = path_in(directory) + "." + run.nonce.substr(0, 16);
  {
    const Descriptor file(::open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (file.fd < 0) fail(errno);
    try {
      write_all(file.fd, json.dump(1) + "\n");
    } catch (const std::system_error& e) {
      ::unlink(aside.c_str());
      fail(e.code().value());
    }
  }
  if (::rename(aside.c_str(), path_in(directory).c_str()) != 0) {
    const int error = errno;
    ::unlink(aside.c_str());
    fail(error);
  }
  return LiveFileResult::Written;
}

void remove_live_file(const std::string& directory, const std::string& nonce) noexcept {
  try {
    const auto there = read_live_file(directory);
    if (there && there->nonce == nonce) ::unlink(path_in(directory).c_str());
  } catch (...) {  // no memory: what stays is stale, which is recognised
  }
}

std::string url_of(const LiveRun& run) {
  // An address for all interfaces is none to go to.
  std::string host = run.address == "0.0.0.0" ? "127.0.0.1" : run.address == "::" ? "::1" : run.address;
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  return "http://" + host + ":" + std::to_string(run.port) + "/?token=" + run.token;
}

}  // namespace beholder
