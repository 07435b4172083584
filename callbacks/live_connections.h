// The sockets of the live server: one thread accepts, reads whole requests and sends what is left of short answers; a
// bounded pool of threads answers. A thread is held by a request that is being answered, never by an idle, slow or
// silent connection, which is why cpp-httplib's own loop is not used. Owned by the live server; internal.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/thread_safety.h"

namespace beholder {

/// What a client may cost.
struct ConnectionLimits {
  int max_threads = 0;                  ///< that answer requests, made when they are needed
  int max_connections = 0;              ///< open at once, idle ones included; beyond it the longest idle one goes
  size_t max_head_bytes = 16 * 1024;    ///< request line and headers: 431
  size_t max_line_bytes = 4096;         ///< of the request line: 414, of a header: 431
  int max_headers = 64;                 ///< 431
  size_t max_body_bytes = 64 * 1024;    ///< 413
  size_t max_waiting_bytes = 64 << 20;  ///< of short answers that clients have not taken yet, all together
  std::chrono::milliseconds request_timeout{5000};  ///< from a request's first byte to its last
  std::chrono::milliseconds idle_timeout{30000};    ///< between two requests
  std::chrono::milliseconds send_timeout{10000};    ///< without any progress
};

/// An open socket and what is known about it. The loop's thread reads and closes it; a thread of the pool owns it while
/// it answers.
struct Connection;

/// One complete request and its way back. Of the thread that answers it.
class Exchange {
 public:
  explicit Exchange(Connection& connection) : connection_(connection) {}
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  /// Request line, headers and body: complete.
  const char* data() const;
  size_t size() const;
  /// The client has closed, or the server stops: nobody waits for the answer.
  bool gone() const;
  int descriptor() const;

  /// Appends to the answer. Short answers are kept and sent without a thread; false where that would be too much.
  bool write(const char* bytes, size_t count);
  /// From now on write() sends at once and waits for the client; false when it has gone or does not take anything for
  /// send_timeout. For long answers, of which the callers are counted.
  void send_directly() { direct_ = true; }
  /// The connection ends after this answer.
  void close_after() { close_after_ = true; }

 private:
  friend class LiveConnections;
  bool send_all(const char* first, size_t first_count, const char* second, size_t second_count);

  Connection& connection_;
  bool direct_ = false, close_after_ = false, failed_ = false;
  std::string kept_;  // written, not sent
};

/// # Multithreading
/// All public members from any thread; `serve` runs on threads of the pool, several at once.
///
/// # Shutdown
/// stop() and the destructor end all connections and threads. REQUIRES that serve() returns soon after
/// Exchange::gone() is true.
class LiveConnections {
 public:
  /// Answers one request.
  using Serve = std::function<void(Exchange&)>;
  /// Told with the CPU time, in seconds, that the loop's own thread has used since the last call.
  using Spent = std::function<void(double)>;
  /// Called, without a lock, when a client that was being answered has closed: those who wait look at gone().
  using Left = std::function<void()>;

  /// `listening`: a listening socket, owned from here on. Throws std::system_error where the system lacks descriptors
  /// or threads.
  LiveConnections(int listening, ConnectionLimits limits, Serve serve, Left left, Spent spent);
  ~LiveConnections();
  LiveConnections(const LiveConnections&) = delete;
  LiveConnections& operator=(const LiveConnections&) = delete;

  /// No new connections or requests; answers that are not finished after `grace` are cut off.
  void stop(std::chrono::milliseconds grace);

  int open_connections() const { return open_.load(std::memory_order_relaxed); }
  int threads() const { return threads_now_.load(std::memory_order_relaxed); }

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  void loop();
  int wait_time_ms() const;
  void accept_all();
  void make_room();
  void readable(Connection& connection);
  void take_requests(Connection& connection);
  void refuse(Connection& connection, const char* status);
  void flush(Connection& connection);
  void take_back(Connection& connection);
  void enforce_deadlines();
  void watch(Connection& connection, uint32_t events);
  void close_connection(int descriptor);
  void hand_over(Connection& connection);
  void work();
  void wake();

  const ConnectionLimits limits_;
  const Serve serve_;
  const Left left_;
  const Spent spent_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> open_{0}, threads_now_{0};
  std::atomic<size_t> waiting_bytes_{0};

  // Of the loop's thread alone.
  int listening_ = -1, epoll_ = -1, event_ = -1;
  bool listening_watched_ = false;
  bool no_thread_told_ = false;
  Clock::time_point accept_again_{};
  Clock::time_point checked_{};
  std::map<int, std::unique_ptr<Connection>> connections_;

  Mutex mutex_;
  Condition work_there_, finished_;
  std::deque<Connection*> ready_ BEHOLDER_GUARDED_BY(mutex_);      // requests that wait for a thread
  std::vector<Connection*> returned_ BEHOLDER_GUARDED_BY(mutex_);  // answered
  std::list<std::thread> pool_ BEHOLDER_GUARDED_BY(mutex_);
  std::vector<std::thread::id> retired_ BEHOLDER_GUARDED_BY(mutex_);  // threads of pool_ that have ended
  int idle_threads_ BEHOLDER_GUARDED_BY(mutex_) = 0;
  int busy_ BEHOLDER_GUARDED_BY(mutex_) = 0;        // connections in ready_ or with a thread
  bool ended_ BEHOLDER_GUARDED_BY(mutex_) = false;  // the pool's threads end

  std::thread thread_;  // used by the thread that starts and stops the server
};

}  // namespace beholder
