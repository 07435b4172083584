#include "beholder/callbacks/display.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace beholder {
namespace {

constexpr int kConnectMs = 2000;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// A file descriptor that is closed.
struct Socket {
  int fd;
  explicit Socket(int f) : fd(f) {}
  ~Socket() {
    if (fd >= 0) ::close(fd);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
};

bool connects(const sockaddr* address, socklen_t length, int family) {
  const Socket socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.fd < 0) return false;
  if (::connect(socket.fd, address, length) == 0) return true;
  if (errno != EINPROGRESS && errno != EAGAIN) return false;
  pollfd ready{socket.fd, POLLOUT, 0};
  if (::poll(&ready, 1, kConnectMs) != 1) return false;
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(socket.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

/// `abstract`: Linux's names outside of the file system.
bool unix_socket_answers(const std::string& path, bool abstract) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t offset = abstract ? 1 : 0;
  if (path.size() + offset >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path + offset, path.data(), path.size());
  const auto length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + offset + path.size() + (abstract ? 0 : 1));
  return connects(reinterpret_cast<const sockaddr*>(&address), length, AF_UNIX);
}

bool tcp_answers(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return false;
  bool answers = false;
  for (const addrinfo* one = found; one && !answers; one = one->ai_next) {
    answers = connects(one->ai_addr, one->ai_addrlen, one->ai_family);
  }
  ::freeaddrinfo(found);
  return answers;
}

/// "host:number.screen"; no host, or "unix", is a socket of this machine. Some systems have a path before the colon.
bool x_server_answers(const std::string& display) {
  const auto colon = display.rfind(':');
  if (colon == std::string::npos) return false;
  const std::string host = display.substr(0, colon);
  const std::string number = display.substr(colon + 1, display.find('.', colon) - colon - 1);
  if (number.empty() || number.size() > 5 || number.find_first_not_of("0123456789") != std::string::npos) return false;
  if (!host.empty() && host[0] == '/') return unix_socket_answers(display, false) || unix_socket_answers(host, false);
  if (!host.empty() && host != "unix") return tcp_answers(host, 6000 + std::atoi(number.c_str()));
  const std::string path = "/tmp/.X11-unix/X" + number;
  return unix_socket_answers(path, true) || unix_socket_answers(path, false);
}

bool wayland_answers(const std::string& display) {
  const std::string path = display[0] == '/' ? display : variable("XDG_RUNTIME_DIR") + "/" + display;
  return unix_socket_answers(path, false);
}

}  // namespace

bool names_a_display() { return !variable("DISPLAY").empty() || !variable("WAYLAND_DISPLAY").empty(); }

std::string display_problem() {
  const std::string x = variable("DISPLAY"), wayland = variable("WAYLAND_DISPLAY");
  if (x.empty() && wayland.empty()) return "no display: neither DISPLAY nor WAYLAND_DISPLAY is set";
  if (!x.empty() && x_server_answers(x)) return "";
  if (!wayland.empty() && wayland_answers(wayland)) return "";
  return "no display: nothing answers at " + (x.empty() ? "WAYLAND_DISPLAY=" + wayland : "DISPLAY=" + x);
}

}  // namespace beholder
