// Fuzzes the live server with what a client sends: raw bytes to the real sockets, threads and endpoints, over a local
// socket. Nobody without the token gets or changes anything, what is refused changes nothing, settings keep their
// ranges, every connection ends, and memory is used in proportion to what was sent and answered.
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "beholder/callbacks/live_connections.h"
#include "beholder/callbacks/live_endpoints.h"
#include "beholder/callbacks/live_view.h"
#include "beholder/log.h"
#include "beholder/state.h"
#include "fuzz.h"
#include "settings_checks.h"
#include "synthetic_picture.h"

using namespace beholder;

namespace {

constexpr const char* kToken = "fuzztoken";  // the corpus knows it
constexpr const char* kSecret = "nobody's business";

void must(bool holds, const char* what) {
  if (!holds) fuzz::found(std::string(what) + ": " + std::strerror(errno));
}

/// A live server with one picture and one film, listening at a local socket. Lives as long as the process.
class Server {
 public:
  Server() {
    set_log_sink([](LogLevel, const std::string&) {});
    char folder[] = "/tmp/beholder-fuzz-XXXXXX";
    must(::mkdtemp(folder) != nullptr, "no folder");
    static std::string folder_to_remove;
    folder_to_remove = folder_ = folder;
    std::atexit([] { std::filesystem::remove_all(folder_to_remove); });
    std::ofstream(folder_ + "/" + kFilm) << "0123456789";
    std::ofstream(folder_ + "/secret") << kSecret;

    const auto picture = synthetic::network({{"fc.weight", {4, 3}}, {"fc.bias", {4}}}, 96, 64, 1);
    picture->names = std::make_shared<std::vector<std::string>>(std::vector<std::string>{"fc.weight", "fc.bias"});
    Run run;
    run.logdir = run.directory = folder_;
    run.settings = settings;
    run.state = [] { return State(); };
    run.last_picture = [picture] { return picture; };
    run.value_at = [](uint64_t, int x, int y) -> std::optional<ShownValue> {
      return ShownValue{static_cast<size_t>(x) % 3, {x, y}, 1.5, "1.5"};
    };
    view_ = std::make_unique<LiveView>(run, 64.0);
    LiveRun live;
    live.address = "127.0.0.1";
    live.port = 6007;
    live.token = kToken;
    live.nonce = "00112233445566778899aabbccddeeff";
    live.version = "0";
    endpoints_ = std::make_unique<LiveEndpoints>(*view_, live, EndpointOptions{4, 50, {}});

    const int listening = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    must(listening >= 0, "no socket");
    address_.sun_family = AF_UNIX;
    // Without a name the system gives one that is in no folder.
    must(::bind(listening, reinterpret_cast<sockaddr*>(&address_), sizeof address_.sun_family) == 0, "bind");
    address_size_ = sizeof address_;
    must(::getsockname(listening, reinterpret_cast<sockaddr*>(&address_), &address_size_) == 0, "no address");
    must(::listen(listening, 16) == 0, "listen");
    ConnectionLimits limits;
    limits.max_threads = 4;
    limits.max_connections = 16;
    connections_ = std::make_unique<LiveConnections>(
        listening, limits, [this](Exchange& exchange) { endpoints_->serve(exchange); }, [this] { view_->look_up(); },
        [](double) {});
  }

  /// Sends `request`, says that nothing more comes, and returns all that is answered.
  std::string ask(const std::string& request) {
    const int client = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(client >= 0, "no socket");
    timeval patience{10, 0};
    ::setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    must(::connect(client, reinterpret_cast<sockaddr*>(&address_), address_size_) == 0, "connect");
    for (size_t sent = 0; sent < request.size();) {
      const ssize_t n = ::send(client, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) must(errno == EPIPE || errno == ECONNRESET, "the server does not read");
      if (n <= 0) break;  // refused, and closed
      sent += static_cast<size_t>(n);
    }
    ::shutdown(client, SHUT_WR);
    std::string answer;
    std::vector<char> bytes(1 << 16);
    for (;;) {
      const ssize_t n = ::recv(client, bytes.data(), bytes.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) must(errno == ECONNRESET, "the server does not end the connection");
      if (n <= 0) break;
      answer.append(bytes.data(), static_cast<size_t>(n));
    }
    ::close(client);
    const auto latest = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (connections_->open_connections() > 0) {
      fuzz::expect(std::chrono::steady_clock::now() < latest, "a connection stays open");
      std::this_thread::yield();
    }
    return answer;
  }

  /// Files that a request has made, which are removed.
  int new_files() {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      const std::string name = entry.path().filename();
      if (name == kFilm || name == "secret") continue;
      fuzz::expect(name.compare(0, 8, "picture-") == 0, "a file that no snapshot makes");
      std::filesystem::remove(entry.path());
      ++count;
    }
    return count;
  }

  const std::shared_ptr<SharedSettings> settings = std::make_shared<SharedSettings>();

 private:
  static constexpr const char* kFilm = "video-20240101-000000.mp4";

  std::string folder_;
  sockaddr_un address_{};
  socklen_t address_size_ = 0;
  std::unique_ptr<LiveView> view_;
  std::unique_ptr<LiveEndpoints> endpoints_;
  std::unique_ptr<LiveConnections> connections_;
};

/// The status codes in all that was answered to the request: of the first answer in any case, and of what looks like
/// one after it and is no quotation (of an unknown name, say) of the request.
std::set<int> statuses_of(const std::string& answer, const std::string& request) {
  constexpr size_t kLineBegin = 12;  // "HTTP/1.1 200"
  std::set<int> statuses;
  for (size_t at = 0; (at = answer.find("HTTP/1.1 ", at)) != std::string::npos; at += 9) {
    const int status = std::atoi(answer.c_str() + at + 9);
    const bool looks_like_one = status >= 100 && status < 600;
    const bool quoted = request.find(answer.substr(at, kLineBegin)) != std::string::npos;
    if (at == 0 || (looks_like_one && !quoted)) statuses.insert(status);
  }
  return statuses;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static auto* const server = new Server;  // its threads run until the process ends
  const std::string request(reinterpret_cast<const char*>(data), size);
  server->settings->set(Settings());
  const auto [before, revision] = server->settings->snapshot();
  fuzz::start_counting();
  const std::string answer = server->ask(request);
  fuzz::expect_at_most((1 << 20) + 64 * static_cast<int64_t>(size) + 8 * static_cast<int64_t>(answer.size()));

  const std::set<int> statuses = statuses_of(answer, request);
  fuzz::expect(answer.empty() || answer.compare(0, 9, "HTTP/1.1 ") == 0, "an answer that is not HTTP");
  for (const int status : statuses) fuzz::expect(status >= 100 && status < 600, "no status");
  fuzz::expect(answer.compare(0, 12, "HTTP/1.1 500") != 0, "the server takes a bad request for a fault of its own");
  // (What a request names may come back: the host that is not answered to.)
  fuzz::expect(answer.find(kSecret) == std::string::npos || request.find(kSecret) != std::string::npos,
               "a file that is no film was handed out");
  const Settings after = server->settings->get();
  check_ranges(after);
  const int files = server->new_files();
  const bool done = statuses.count(200) > 0;
  fuzz::expect(done || server->settings->revision() == revision, "a refused request changed a setting");
  fuzz::expect(done || files == 0, "a refused request made a file");
  // The token, or what may be an escaped one.
  const bool has_token = request.find(kToken) != std::string::npos || request.find('%') != std::string::npos;
  for (const int status : statuses) {
    fuzz::expect(has_token || status < 200 || status >= 400, "answered without the token");
  }
  return 0;
}
