#include "beholder/callbacks/live_server.h"

#include <netdb.h>
#include <pwd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/callbacks/display.h"
#include "beholder/callbacks/live_access.h"
#include "beholder/callbacks/live_connections.h"
#include "beholder/callbacks/live_endpoints.h"
#include "beholder/callbacks/live_file.h"
#include "beholder/callbacks/live_view.h"
#include "beholder/log.h"
#include "beholder/numbers.h"
#include "beholder/options.h"

namespace beholder {
namespace {

constexpr int kFirstPort = 6007, kPortsTried = 100;
constexpr int kBacklog = 128;
// The pool has a thread for each viewer, who may wait or stall, and these for all other requests, which do neither.
constexpr int kReservedThreads = 4;
constexpr auto kCloseGrace = std::chrono::milliseconds(300);
// A viewer that has just received the last picture asks once more, and then learns that the run has ended.
constexpr auto kFarewell = std::chrono::milliseconds(300);

void check(const LiveServerOptions& o) {
  if (o.address.empty() || o.address.size() > 255) {
    throw std::invalid_argument(
        "LiveServerOptions::address: expected an address of this machine, as 127.0.0.1; found '" +
        o.address.substr(0, 60) + "'");
  }
  if (o.port < 0 || o.port > 65535) {
    throw std::invalid_argument("LiveServerOptions::port: expected 1 to 65535, or 0 for the next free one; found " +
                                std::to_string(o.port));
  }
  for (const auto& name : o.allowed_hosts) {
    if (!is_host_name(name)) {
      throw std::invalid_argument(
          "LiveServerOptions::allowed_hosts: expected host names without scheme and port, as gpu.example.org; found " +
          quoted(name));
    }
  }
  const bool plain = o.token.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") ==
                     std::string::npos;
  if (!o.token.empty() && (o.token.size() < 8 || o.token.size() > 256 || !plain)) {
    throw std::invalid_argument(
        "LiveServerOptions::token: expected 8 to 256 letters, digits, - or _, or nothing for a random one; found " +
        std::to_string(o.token.size()) + " characters" + (plain ? "" : ", others among them"));
  }
  if (o.max_viewers < 1 || o.max_viewers > 1000) {
    throw std::invalid_argument("LiveServerOptions::max_viewers: expected 1 to 1000; found " +
                                std::to_string(o.max_viewers));
  }
  if (o.jpeg_quality < 1 || o.jpeg_quality > 100) {
    throw std::invalid_argument("LiveServerOptions::jpeg_quality: expected 1 to 100; found " +
                                std::to_string(o.jpeg_quality));
  }
  if (!(o.max_cpu > 0) || o.max_cpu > 64) {
    throw std::invalid_argument("LiveServerOptions::max_cpu: expected above 0 to 64; found " + number_text(o.max_cpu));
  }
}

/// A listening socket, or -1 with errno.
int listen_at(const addrinfo& address, int port) {
  sockaddr_storage at{};
  std::memcpy(&at, address.ai_addr, address.ai_addrlen);
  if (at.ss_family == AF_INET) {
    reinterpret_cast<sockaddr_in&>(at).sin_port = htons(static_cast<uint16_t>(port));
  } else {
    reinterpret_cast<sockaddr_in6&>(at).sin6_port = htons(static_cast<uint16_t>(port));
  }
  const int descriptor = ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return -1;
  const int yes = 1;
  // A port of which only old connections are left is free. (Two servers cannot share one: that is SO_REUSEPORT.)
  ::setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(descriptor, reinterpret_cast<const sockaddr*>(&at), address.ai_addrlen) == 0 &&
      ::listen(descriptor, kBacklog) == 0) {
    return descriptor;
  }
  const int error = errno;
  ::close(descriptor);
  errno = error;
  return -1;
}

struct Listening {
  int descriptor = -1, port = 0;
  Listening(int descriptor_, int port_) : descriptor(descriptor_), port(port_) {}
  ~Listening() {
    if (descriptor >= 0) ::close(descriptor);
  }
  Listening(const Listening&) = delete;
  Listening& operator=(const Listening&) = delete;
};

/// Throws std::runtime_error.
Listening listen_at(const std::string& name, int wanted) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int unknown = ::getaddrinfo(name.c_str(), nullptr, &hints, &found);
  if (unknown != 0) {
    throw std::runtime_error("cannot listen at " + name + ": " + ::gai_strerror(unknown) +
                             "; set LiveServerOptions::address to an address of this machine");
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  // "localhost" is first of all 127.0.0.1, which is what tunnels and viewers try.
  const addrinfo* address = found;
  for (const addrinfo* one = found; one; one = one->ai_next) {
    if (one->ai_family == AF_INET) {
      address = one;
      break;
    }
  }
  const int first = wanted ? wanted : kFirstPort, last = wanted ? wanted : kFirstPort + kPortsTried - 1;
  for (int port = first; port <= last; ++port) {
    const int descriptor = listen_at(*address, port);
    if (descriptor >= 0) return Listening(descriptor, port);
    if (errno != EADDRINUSE && !(errno == EACCES && !wanted)) break;
  }
  const int error = errno;
  if (error == EADDRINUSE) {
    const std::string ports = wanted
                                  ? "port " + std::to_string(wanted) + " is taken"
                                  : "ports " + std::to_string(first) + " to " + std::to_string(last) + " are all taken";
    throw std::runtime_error("cannot listen at " + name + ": " + ports + "; set LiveServerOptions::port to a free one" +
                             (wanted ? ", or to 0" : ""));
  }
  throw std::runtime_error("cannot listen at " + name + ", port " + std::to_string(first) + ": " +
                           std::generic_category().message(error) +
                           "; set LiveServerOptions::address and port to what this user may open");
}

std::string user_at_host() {
  std::vector<char> buffer(16384);
  passwd entry{};
  passwd* found = nullptr;
  std::string user = "USER";
  if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found) user = found->pw_name;
  char host[256] = "";
  if (::gethostname(host, sizeof host - 1) != 0 || !*host) std::strcpy(host, "HOST");
  return user + "@" + host;
}

/// The option's, or those of the environment.
std::vector<std::string> allowed_hosts(const LiveServerOptions& options) {
  const char* listed = std::getenv("BEHOLDER_ALLOWED_HOSTS");
  if (!options.allowed_hosts.empty() || !listed) return options.allowed_hosts;
  std::vector<std::string> names;
  std::istringstream list(listed);
  for (std::string name; std::getline(list, name, ',');) {
    const size_t begin = name.find_first_not_of(" \t");
    if (begin == std::string::npos) continue;
    name = name.substr(begin, name.find_last_not_of(" \t") - begin + 1);
    if (is_host_name(name)) {
      names.push_back(name);
    } else {
      log_warning("BEHOLDER_ALLOWED_HOSTS: expected host names without scheme and port, separated by commas; found " +
                  quoted(name) + ", which is left out");
    }
  }
  return names;
}

}  // namespace

// In the order in which they are made; they go the other way round.
struct LiveServer::Open {
  std::string directory;
  LiveRun run;
  std::unique_ptr<LiveView> view;
  std::unique_ptr<LiveEndpoints> endpoints;
  std::unique_ptr<LiveConnections> connections;
  bool has_file = false;

  ~Open() { end(); }
  void end() {
    if (std::exchange(has_file, false)) remove_live_file(directory, run.nonce);
    if (view) view->end();
    if (connections && connections->open_connections() > 0) std::this_thread::sleep_for(kFarewell);
    if (connections) connections->stop(kCloseGrace);
  }
};

LiveServer::LiveServer(LiveServerOptions options) : options_((check(options), std::move(options))) {}

LiveServer::~LiveServer() { close(); }

Needs LiveServer::needs() const {
  Needs needs;
  needs.host_bytes_per_pixel = HostBytesPerPixel::kViewers;
  return needs;
}

void LiveServer::open(const Run& run) {
  auto open = std::make_shared<Open>();
  open->directory = run.directory;
  open->run.address = options_.address;
  open->run.token = options_.token.empty() ? random_hex(32) : options_.token;
  note_this_process(open->run);
  open->run.nonce = random_hex(16);
  open->run.started = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  open->run.version = BEHOLDER_VERSION;
  open->run.directory = run.directory;
  open->view = std::make_unique<LiveView>(run, options_.max_cpu);
  Listening listening = listen_at(options_.address, options_.port);
  open->run.port = listening.port;
  EndpointOptions endpoint_options;
  endpoint_options.max_viewers = options_.max_viewers;
  endpoint_options.jpeg_quality = options_.jpeg_quality;
  endpoint_options.names = own_names(options_.address, allowed_hosts(options_));
  open->endpoints = std::make_unique<LiveEndpoints>(*open->view, open->run, endpoint_options);
  ConnectionLimits limits;
  limits.max_threads = options_.max_viewers + kReservedThreads;
  limits.max_connections = 2 * options_.max_viewers + 64;
  open->connections = std::make_unique<LiveConnections>(
      std::exchange(listening.descriptor, -1), limits,
      [endpoints = open->endpoints.get()](Exchange& exchange) { endpoints->serve(exchange); },
      [view = open->view.get()] { view->look_up(); },
      [view = open->view.get()](double seconds) { view->cpu().pay(seconds); });

  std::string line = "live: " + url_of(open->run);
  if (!names_a_display()) {
    const std::string number = std::to_string(listening.port);
    line += " (from another machine first: ssh -L " + number + ":localhost:" + number + " " + user_at_host() + ")";
  }
  log_info(line);
  if (!is_loopback_name(open->run.address)) {
    log_warning("the live server listens at " + open->run.address +
                ", where others of the network can listen too: what it sends, the token included, is not encrypted");
  }
  try {
    open->has_file = write_live_file(run.directory, open->run) == LiveFileResult::Written;
    if (!open->has_file) {
      log_warning("another live server serves " + run.logdir +
                  " already: `beholder view` finds that one, this one only by its URL");
    }
  } catch (const std::exception& e) {
    log_warning(std::string("live server: ") + e.what() + "; `beholder view` finds it by its URL only");
  }
  close();
  MutexLock lock(mutex_);
  open_ = std::move(open);
}

std::shared_ptr<LiveServer::Open> LiveServer::now_open() const {
  MutexLock lock(mutex_);
  return open_;
}

void LiveServer::show(std::shared_ptr<const Picture> picture) {
  if (const auto open = now_open()) open->view->show(std::move(picture));
}

void LiveServer::close() {
  std::shared_ptr<Open> open;
  {
    MutexLock lock(mutex_);
    open.swap(open_);
  }
  if (open) open->end();  // also where state() still looks at it
}

LiveServerState LiveServer::state() const {
  LiveServerState state;
  const auto open = now_open();
  if (!open) return state;
  state.url = url_of(open->run);
  state.address = open->run.address;
  state.port = open->run.port;
  state.token = open->run.token;
  state.viewers = open->endpoints->viewers();
  state.connections = open->connections->open_connections();
  state.threads = open->connections->threads();
  state.cpu = open->view->cpu().used();
  return state;
}

}  // namespace beholder
