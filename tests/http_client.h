// A small HTTP client for tests of the live server: plain sockets, so that it can also do what no client should.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <map>
#include <stdexcept>
#include <string>

namespace http {

using Clock = std::chrono::steady_clock;

struct Reply {
  int status = 0;                              ///< 0: none came
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;

  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
  }
  int64_t number(const std::string& name) const { return header(name).empty() ? -1 : std::stoll(header(name)); }
};

/// One connection. Not copied; of one thread.
class Client {
 public:
  /// receive_bytes > 0: of the socket's buffer, for clients that stall soon.
  explicit Client(int port, int receive_bytes = 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_bytes > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd_ < 0 || ::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
      if (fd_ >= 0) ::close(fd_);
      throw std::runtime_error("cannot connect to port " + std::to_string(port));
    }
  }
  ~Client() { ::close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  int descriptor() const { return fd_; }

  /// False where the server has closed.
  bool send(const std::string& bytes) {
    for (size_t sent = 0; sent < bytes.size();) {
      const ssize_t n = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<size_t>(n);
    }
    return true;
  }

  /// Status line and headers; status 0 where the connection ends or nothing comes for `timeout`.
  Reply read_head(std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
    const auto deadline = Clock::now() + timeout;
    size_t end;
    while ((end = in_.find("\r\n\r\n")) == std::string::npos) {
      if (!read_more(deadline)) return {};
    }
    Reply reply;
    const std::string head = in_.substr(0, end + 2);
    in_.erase(0, end + 4);
    if (head.size() < 12 || head.compare(0, 7, "HTTP/1.") != 0) return {};
    reply.status = std::stoi(head.substr(9, 3));
    for (size_t begin = head.find("\r\n") + 2; begin < head.size();) {
      const size_t line_end = head.find("\r\n", begin);
      const size_t colon = head.find(':', begin);
      if (colon < line_end) {
        std::string name = head.substr(begin, colon - begin);
        std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
        const size_t value = std::min(head.find_first_not_of(' ', colon + 1), line_end);
        reply.headers[name] = head.substr(value, line_end - value);
      }
      begin = line_end + 2;
    }
    return reply;
  }

  /// A whole reply, by its Content-Length or until the connection ends.
  Reply read(std::chrono::milliseconds timeout = std::chrono::seconds(60), bool has_body = true) {
    const auto deadline = Clock::now() + timeout;
    Reply reply = read_head(timeout);
    if (reply.status == 0 || !has_body || reply.status == 204) return reply;
    const int64_t length = reply.number("content-length");
    while (length < 0 || in_.size() < static_cast<size_t>(length)) {
      if (!read_more(deadline)) break;
    }
    const size_t count = length < 0 ? in_.size() : std::min(in_.size(), static_cast<size_t>(length));
    reply.body = in_.substr(0, count);
    in_.erase(0, count);
    if (length >= 0 && count < static_cast<size_t>(length)) reply.status = 0;  // cut off
    return reply;
  }

  /// The next `count` bytes, or fewer where the connection ends.
  std::string read_bytes(size_t count, std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
    const auto deadline = Clock::now() + timeout;
    while (in_.size() < count && read_more(deadline)) {
    }
    std::string bytes = in_.substr(0, count);
    in_.erase(0, bytes.size());
    return bytes;
  }

  /// True when the server has closed the connection; false at the deadline. What comes is forgotten.
  bool closed_within(std::chrono::milliseconds timeout) {
    const auto deadline = Clock::now() + timeout;
    while (read_more(deadline)) in_.clear();
    return ended_;
  }

 private:
  bool read_more(Clock::time_point deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd one{fd_, POLLIN, 0};
    if (ended_ || left <= 0 || ::poll(&one, 1, static_cast<int>(left)) <= 0) return false;
    char bytes[65536];
    const ssize_t n = ::recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0) {
      ended_ = true;
      return false;
    }
    in_.append(bytes, static_cast<size_t>(n));
    return true;
  }

  int fd_ = -1;
  std::string in_;
  bool ended_ = false;
};

}  // namespace http
