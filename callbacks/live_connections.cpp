#include "beholder/callbacks/live_connections.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include "beholder/log.h"
#include "beholder/threads.h"

namespace beholder {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kTick = std::chrono::milliseconds(200);         // how often deadlines are looked at
constexpr auto kAcceptPause = std::chrono::milliseconds(200);  // when the process has no descriptors left
constexpr auto kDrainTimeout = std::chrono::milliseconds(2000);
constexpr auto kThreadIdle = std::chrono::seconds(10);  // after which a thread of the pool ends
constexpr size_t kReadBytes = 16 * 1024;
// Less unsent data in the kernel means a newer picture for a slow viewer.
constexpr int kUnsentBytes = 256 * 1024;

/// What the loop must know of a request before it is complete.
struct Framing {
  enum { Incomplete, Complete, Refused } state = Incomplete;
  const char* refusal = "";
  size_t head_bytes = 0, body_bytes = 0;
  bool expects_continue = false;
};

bool is_header(const char* line, size_t length, const char* name) {
  const size_t n = std::strlen(name);
  return length > n && line[n] == ':' && ::strncasecmp(line, name, n) == 0;
}

std::string header_value(const char* line, size_t length, const char* name) {
  const char* begin = line + std::strlen(name) + 1;
  const char* end = line + length;
  while (begin < end && (*begin == ' ' || *begin == '\t')) ++begin;
  while (end > begin && (end[-1] == ' ' || end[-1] == '\t')) --end;
  return std::string(begin, end);
}

Framing refused(const char* status) {
  Framing f;
  f.state = Framing::Refused;
  f.refusal = status;
  return f;
}

/// Looks for the end of the head and of the body. Everything else is cpp-httplib's.
Framing frame(const std::string& bytes, const ConnectionLimits& limits) {
  Framing f;
  const size_t end = bytes.find("\r\n\r\n");
  const size_t known = end == std::string::npos ? bytes.size() : end + 2;
  if (end == std::string::npos ? bytes.size() > limits.max_head_bytes : end + 4 > limits.max_head_bytes) {
    const bool long_line = bytes.find("\r\n") > limits.max_line_bytes;
    return refused(long_line ? "414 URI Too Long" : "431 Request Header Fields Too Large");
  }
  bool first = true, has_length = false;
  int headers = 0;
  for (size_t begin = 0; begin < known;) {
    const size_t line_end = std::min(bytes.find("\r\n", begin), known);
    const char* line = bytes.data() + begin;
    const size_t length = line_end - begin;
    if (length > limits.max_line_bytes) {
      return refused(first ? "414 URI Too Long" : "431 Request Header Fields Too Large");
    }
    // cpp-httplib ends lines at \n as well: what it takes for two headers must not be one for us.
    if (std::memchr(line, '\n', length) || std::memchr(line, '\r', length) || std::memchr(line, '\0', length)) {
      const bool cut = line_end == bytes.size() && line[length - 1] == '\r' && !std::memchr(line, '\n', length) &&
                       !std::memchr(line, '\0', length);  // "\r" of a "\r\n" to come
      if (!cut) return refused("400 Bad Request");
    }
    if (first) {
      // A request in another protocol is not waited for.
      if (length > 0 && (line[0] < 'A' || line[0] > 'Z')) return refused("400 Bad Request");
    } else if (length > 0) {
      if (++headers > limits.max_headers) return refused("431 Request Header Fields Too Large");
      if (end != std::string::npos) {
        if (is_header(line, length, "Content-Length")) {
          const std::string value = header_value(line, length, "Content-Length");
          const bool number = !value.empty() && value.find_first_not_of("0123456789") == std::string::npos;
          if (!number || has_length) return refused("400 Bad Request");
          has_length = true;
          f.body_bytes = value.size() > 9 ? limits.max_body_bytes + 1 : std::strtoul(value.c_str(), nullptr, 10);
        } else if (is_header(line, length, "Transfer-Encoding")) {
          return refused("411 Length Required");
        } else if (is_header(line, length, "Expect")) {
          f.expects_continue = header_value(line, length, "Expect") == "100-continue";
        }
      }
    }
    first = false;
    begin = line_end + 2;
  }
  if (end == std::string::npos) return f;
  f.head_bytes = end + 4;
  if (f.body_bytes > limits.max_body_bytes) return refused("413 Payload Too Large");
  if (bytes.size() >= f.head_bytes + f.body_bytes) f.state = Framing::Complete;
  return f;
}

}  // namespace

struct Connection {
  enum class State {
    Reading,   // waits for a request, or for the rest of one
    Busy,      // in ready_ or with a thread
    Flushing,  // sends what is left of a short answer
    Draining,  // was refused: what the client still sends is read and forgotten, so that it can read why
  };

  Connection(int descriptor_, const ConnectionLimits& limits_, std::atomic<size_t>& waiting_bytes_,
             const std::atomic<bool>& stopping_)
      : descriptor(descriptor_), limits(limits_), waiting_bytes(waiting_bytes_), stopping(stopping_) {}
  ~Connection() {
    waiting_bytes -= out.size();
    ::shutdown(descriptor, SHUT_RDWR);  // the client learns it also where a child of fork() has a copy
    ::close(descriptor);
  }

  const int descriptor;
  const ConnectionLimits& limits;
  std::atomic<size_t>& waiting_bytes;  // of all connections
  const std::atomic<bool>& stopping;
  std::atomic<bool> left{false};  // the client has closed its side

  // Of the loop's thread; of the answering thread while Busy.
  State state = State::Reading;
  std::string in;            // read, the request being answered included
  size_t request_bytes = 0;  // of `in`: the request being answered
  std::string out;           // of a short answer, counted in waiting_bytes
  size_t sent = 0;           // of `out`
  bool close_after = false;
  bool told_continue = false;
  uint32_t watched = 0;                    // events that epoll knows; 0 = none
  Clock::time_point since = Clock::now();  // of the state, of a request's first byte, or of the last progress
};

const char* Exchange::data() const { return connection_.in.data(); }
size_t Exchange::size() const { return connection_.request_bytes; }
int Exchange::descriptor() const { return connection_.descriptor; }
bool Exchange::gone() const {
  return failed_ || connection_.left.load(std::memory_order_relaxed) ||
         connection_.stopping.load(std::memory_order_relaxed);
}

bool Exchange::write(const char* bytes, size_t count) {
  if (failed_) return false;
  if (direct_) {
    const std::string before = std::move(kept_);
    kept_.clear();
    failed_ = !send_all(before.data(), before.size(), bytes, count);
    return !failed_;
  }
  if (connection_.waiting_bytes.load(std::memory_order_relaxed) + kept_.size() + count >
      connection_.limits.max_waiting_bytes) {
    failed_ = true;
    return false;
  }
  kept_.append(bytes, count);
  return true;
}

bool Exchange::send_all(const char* first, size_t first_count, const char* second, size_t second_count) {
  auto progress = Clock::now();
  while (first_count + second_count > 0) {
    iovec parts[2] = {{const_cast<char*>(first), first_count}, {const_cast<char*>(second), second_count}};
    msghdr message{};
    message.msg_iov = first_count > 0 ? parts : parts + 1;
    message.msg_iovlen = first_count > 0 && second_count > 0 ? 2 : 1;
    const ssize_t n = ::sendmsg(connection_.descriptor, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      const size_t of_first = std::min(static_cast<size_t>(n), first_count);
      first += of_first;
      first_count -= of_first;
      second += static_cast<size_t>(n) - of_first;
      second_count -= static_cast<size_t>(n) - of_first;
      progress = Clock::now();
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) return false;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(progress + connection_.limits.send_timeout -
                                                                            Clock::now());
    if (left.count() <= 0) return false;
    pollfd one{connection_.descriptor, POLLOUT, 0};
    // stop() and a client that has gone end this wait: the socket is shut down.
    if (::poll(&one, 1, static_cast<int>(left.count()) + 1) < 0 && errno != EINTR) return false;
  }
  return true;
}

LiveConnections::LiveConnections(int listening, ConnectionLimits limits, Serve serve, Left left, Spent spent)
    : limits_(limits),
      serve_(std::move(serve)),
      left_(std::move(left)),
      spent_(std::move(spent)),
      listening_(listening) {
  epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const auto fail = [this](int error, const char* what) {
    for (int fd : {listening_, epoll_, event_}) {
      if (fd >= 0) ::close(fd);
    }
    throw std::system_error(error, std::generic_category(), what);
  };
  if (epoll_ < 0 || event_ < 0) fail(errno, "live server: no descriptors left");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = event_;
  if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &event) != 0) fail(errno, "live server: epoll");
  event.data.fd = listening_;
  if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, listening_, &event) != 0) fail(errno, "live server: epoll");
  listening_watched_ = true;
  try {
    // Handing a connection back must not fail.
    returned_.reserve(static_cast<size_t>(limits_.max_connections) + 1);
    retired_.reserve(static_cast<size_t>(limits_.max_threads) + 1);
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& e) {
    fail(e.code().value(), "live server: no thread");
  }
}

LiveConnections::~LiveConnections() {
  stop(std::chrono::milliseconds(0));
  for (int fd : {listening_, epoll_, event_}) ::close(fd);
}

void LiveConnections::wake() {
  const uint64_t one = 1;
  const auto written = ::write(event_, &one, sizeof one);
  (void)written;  // full means that it is awake
}

void LiveConnections::stop(std::chrono::milliseconds grace) {
  if (!thread_.joinable()) return;
  stopping_ = true;
  left_();
  wake();
  {
    // Those who waited answer at once; a client that takes nothing is cut off after `grace`.
    MutexLock lock(mutex_);
    finished_.wait_for(lock, grace, [this]() BEHOLDER_REQUIRES(mutex_) { return busy_ == 0; });
    ended_ = true;
  }
  wake();
  work_there_.notify_all();
  thread_.join();  // shuts busy sockets down, so that their threads return
  std::list<std::thread> pool;
  {
    MutexLock lock(mutex_);
    pool.swap(pool_);
  }
  for (auto& thread : pool) thread.join();
  ::shutdown(listening_, SHUT_RDWR);  // frees the port also where a child of fork() has a copy
  connections_.clear();
  open_ = 0;
}

void LiveConnections::run() {
  try {
    loop();
  } catch (const std::exception& e) {  // no memory: the server ends, the training does not
    stopping_ = true;
    left_();
    try {
      log_error(std::string("live server: ended: ") + e.what() + "; the training goes on");
    } catch (const std::bad_alloc&) {  // nor for the line
    }
  }
  // The pool's threads may use these sockets until they have returned: only shut down here.
  for (auto& [descriptor, connection] : connections_) ::shutdown(descriptor, SHUT_RDWR);
}

void LiveConnections::loop() {
  begin_own_thread("bh live");
  double cpu_before = thread_cpu_seconds();
  std::vector<epoll_event> events(64);
  std::vector<Connection*> returned;
  returned.reserve(static_cast<size_t>(limits_.max_connections) + 1);
  for (;;) {
    const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), wait_time_ms());
    // First of all: what is told after this wakes the next round.
    for (uint64_t ignored; ::read(event_, &ignored, sizeof ignored) > 0;) {
    }
    bool ended;
    std::list<std::thread> finished;
    returned.clear();
    {
      MutexLock lock(mutex_);
      ended = ended_;
      returned.swap(returned_);  // both keep their room
      for (const auto id : retired_) {
        const auto found = std::find_if(pool_.begin(), pool_.end(), [id](auto& t) { return t.get_id() == id; });
        if (found != pool_.end()) finished.splice(finished.end(), pool_, found);
      }
      retired_.clear();
    }
    for (auto& thread : finished) thread.join();
    for (auto* connection : returned) take_back(*connection);
    if (ended) return;
    bool somebody_left = false;
    for (int i = 0; i < count; ++i) {
      const int descriptor = events[i].data.fd;
      if (descriptor == event_) continue;
      if (descriptor == listening_) {
        accept_all();
        continue;
      }
      const auto found = connections_.find(descriptor);
      if (found == connections_.end()) continue;  // closed while these events were handled
      Connection& connection = *found->second;
      switch (connection.state) {
        case Connection::State::Reading:
        case Connection::State::Draining: readable(connection); break;
        case Connection::State::Flushing: flush(connection); break;
        case Connection::State::Busy:
          // Taken back in this round: the event is an old one and comes again.
          if (connection.watched == 0 || !(events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) break;
          watch(connection, 0);
          connection.left = true;
          somebody_left = true;
          break;
      }
    }
    if (somebody_left) left_();
    if (Clock::now() - checked_ >= kTick) enforce_deadlines();
    const double cpu = thread_cpu_seconds();
    spent_(cpu - cpu_before);
    cpu_before = cpu;
  }
}

int LiveConnections::wait_time_ms() const {
  if (connections_.empty() && listening_watched_) return -1;
  return static_cast<int>(kTick.count());
}

void LiveConnections::accept_all() {
  for (;;) {
    const int descriptor = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        // Would be reported without end: look away for a while.
        ::epoll_ctl(epoll_, EPOLL_CTL_DEL, listening_, nullptr);
        listening_watched_ = false;
        accept_again_ = Clock::now() + kAcceptPause;
      }
      return;
    }
    if (stopping_) {
      ::close(descriptor);
      continue;
    }
    const int yes = 1;
    ::setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    ::setsockopt(descriptor, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kUnsentBytes, sizeof kUnsentBytes);
    auto connection = std::make_unique<Connection>(descriptor, limits_, waiting_bytes_, stopping_);
    Connection& added = *connection;
    connections_.emplace(descriptor, std::move(connection));
    open_ = static_cast<int>(connections_.size());
    watch(added, EPOLLIN);
    if (open_ > limits_.max_connections) make_room();
  }
}

// One connection too many: the one that has been silent for longest goes, never one that is being answered. Where all
// others are being answered, this is the newest.
void LiveConnections::make_room() {
  Connection* oldest = nullptr;
  for (auto& [descriptor, connection] : connections_) {
    const bool silent = connection->state != Connection::State::Busy;
    if (silent && (!oldest || connection->since < oldest->since)) oldest = connection.get();
  }
  if (!oldest) return;
  static const char text[] =
      "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  // To a connection that has asked for nothing yet, an answer would be a surprise.
  if (!oldest->in.empty()) ::send(oldest->descriptor, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  close_connection(oldest->descriptor);
}

void LiveConnections::watch(Connection& connection, uint32_t events) {
  if (connection.watched == events) return;
  epoll_event event{};
  event.events = events;
  event.data.fd = connection.descriptor;
  // Without events, errors would still be reported, again and again: not watched at all.
  const int operation = events == 0 ? EPOLL_CTL_DEL : connection.watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  ::epoll_ctl(epoll_, operation, connection.descriptor, &event);
  connection.watched = events;
}

void LiveConnections::close_connection(int descriptor) {
  // Closing alone would leave it with epoll where a child of fork() has a copy: reported again and again, for ever.
  const auto found = connections_.find(descriptor);
  if (found != connections_.end()) watch(*found->second, 0);
  connections_.erase(descriptor);
  open_ = static_cast<int>(connections_.size());
}

void LiveConnections::readable(Connection& connection) {
  char bytes[kReadBytes];
  const ssize_t n = ::recv(connection.descriptor, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
  if (n <= 0) {
    close_connection(connection.descriptor);
    return;
  }
  if (connection.state == Connection::State::Draining) return;
  if (connection.in.empty()) connection.since = Clock::now();
  connection.in.append(bytes, static_cast<size_t>(n));
  take_requests(connection);
}

void LiveConnections::take_requests(Connection& connection) {
  // Empty lines between requests are allowed.
  if (connection.in.compare(0, 2, "\r\n") == 0) connection.in.erase(0, 2);
  if (connection.in.empty()) {
    watch(connection, EPOLLIN);
    return;
  }
  const Framing framing = frame(connection.in, limits_);
  if (framing.state == Framing::Refused) {
    refuse(connection, framing.refusal);
    return;
  }
  if (framing.state == Framing::Complete && !stopping_) {
    connection.request_bytes = framing.head_bytes + framing.body_bytes;
    hand_over(connection);
    return;
  }
  if (framing.expects_continue && !connection.told_continue) {
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    ::send(connection.descriptor, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    connection.told_continue = true;
  }
  watch(connection, EPOLLIN);
}

void LiveConnections::refuse(Connection& connection, const char* status) {
  const std::string body = std::string(status) + "\n";
  const std::string answer = "HTTP/1.1 " + std::string(status) +
                             "\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body.size()) +
                             "\r\nConnection: close\r\n\r\n" + body;
  ::send(connection.descriptor, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(connection.descriptor, SHUT_WR);
  connection.state = Connection::State::Draining;
  connection.since = Clock::now();
  connection.in.clear();
  watch(connection, EPOLLIN);
}

void LiveConnections::hand_over(Connection& connection) {
  connection.state = Connection::State::Busy;
  connection.told_continue = false;
  watch(connection, EPOLLRDHUP);
  std::string no_thread;
  {
    MutexLock lock(mutex_);
    ready_.push_back(&connection);
    ++busy_;
    if (static_cast<size_t>(idle_threads_) < ready_.size() && static_cast<int>(pool_.size()) < limits_.max_threads) {
      try {
        pool_.emplace_back([this] { work(); });
        ++threads_now_;
      } catch (const std::system_error& e) {
        if (threads_now_ == 0) {  // otherwise those that are there take it
          no_thread = e.what();
          ready_.pop_back();
          --busy_;
        }
      }
    }
  }
  work_there_.notify_one();
  if (no_thread.empty()) return;
  if (!std::exchange(no_thread_told_, true)) {
    log_error("live server: no thread for a request: " + no_thread + "; viewers are told to come again");
  }
  refuse(connection, "503 Service Unavailable");
}

// On threads of the pool.
void LiveConnections::work() {
  begin_own_thread("bh live answer");
  MutexLock lock(mutex_);
  for (;;) {
    ++idle_threads_;
    const auto called = [this]() BEHOLDER_REQUIRES(mutex_) { return ended_ || !ready_.empty(); };
    const bool woken = work_there_.wait_for(lock, kThreadIdle, called);
    --idle_threads_;
    if (ended_ || !woken) break;
    Connection& connection = *ready_.front();
    ready_.pop_front();
    lock.unlock();
    {
      Exchange exchange(connection);
      bool whole = true;
      try {
        serve_(exchange);
      } catch (...) {  // bad_alloc: half an answer cannot be continued
        whole = false;
      }
      if (exchange.direct_ && whole && !exchange.failed_) whole = exchange.write("", 0);
      connection.close_after = exchange.close_after_ || exchange.failed_ || !whole;
      connection.out = whole && !exchange.failed_ ? std::move(exchange.kept_) : std::string();
      connection.sent = 0;
      waiting_bytes_ += connection.out.size();
    }
    lock.lock();
    returned_.push_back(&connection);
    --busy_;
    finished_.notify_all();
    wake();
  }
  retired_.push_back(std::this_thread::get_id());
  --threads_now_;
  wake();
}

void LiveConnections::take_back(Connection& connection) {
  connection.in.erase(0, connection.request_bytes);
  connection.request_bytes = 0;
  connection.since = Clock::now();
  connection.state = Connection::State::Flushing;
  flush(connection);
}

void LiveConnections::flush(Connection& connection) {
  while (connection.sent < connection.out.size()) {
    const ssize_t n = ::send(connection.descriptor, connection.out.data() + connection.sent,
                             connection.out.size() - connection.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      connection.sent += static_cast<size_t>(n);
      connection.since = Clock::now();
    } else if (n < 0 && errno == EINTR) {
      continue;
    } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      watch(connection, EPOLLOUT);
      return;
    } else {
      close_connection(connection.descriptor);
      return;
    }
  }
  waiting_bytes_ -= connection.out.size();
  std::string().swap(connection.out);
  connection.sent = 0;
  if (connection.close_after) {
    // Closing with unread bytes would make the client lose the end of the answer.
    ::shutdown(connection.descriptor, SHUT_WR);
    connection.state = Connection::State::Draining;
    connection.in.clear();
    watch(connection, EPOLLIN);
    return;
  }
  connection.state = Connection::State::Reading;
  if (connection.in.empty()) std::string().swap(connection.in);
  take_requests(connection);
}

void LiveConnections::enforce_deadlines() {
  checked_ = Clock::now();
  if (!listening_watched_ && checked_ >= accept_again_ && !stopping_) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = listening_;
    listening_watched_ = ::epoll_ctl(epoll_, EPOLL_CTL_ADD, listening_, &event) == 0;
  }
  std::vector<int> over;
  for (auto& [descriptor, connection] : connections_) {
    const auto age = checked_ - connection->since;
    bool late = false;
    switch (connection->state) {
      case Connection::State::Busy: break;
      case Connection::State::Reading:
        late = age > (connection->in.empty() ? limits_.idle_timeout : limits_.request_timeout);
        break;
      case Connection::State::Flushing: late = age > limits_.send_timeout; break;
      case Connection::State::Draining: late = age > kDrainTimeout; break;
    }
    if (late) over.push_back(descriptor);
  }
  for (const int descriptor : over) close_connection(descriptor);
}

}  // namespace beholder
