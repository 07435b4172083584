// Hands pictures to callbacks: one worker thread and one bounded queue for each, so that a slow, throwing or hanging
// callback is nobody else's problem.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/background_budget.h"
#include "beholder/callback.h"
#include "beholder/error_log.h"
#include "beholder/state.h"
#include "beholder/thread_safety.h"

namespace beholder {

/// One callback, its thread and its queue. The thread owns a share of this object, so that a callback that hangs for
/// ever can be left behind.
class Worker : public std::enable_shared_from_this<Worker> {
 public:
  Worker(std::shared_ptr<Callback> callback, Run run, int64_t max_queue_bytes,
         std::shared_ptr<BackgroundBudget> budget);

  void start();
  /// Queues a picture by the callback's overflow policy; where there is no memory for that, it is dropped. Any thread;
  /// never waits for the callback.
  void push(std::shared_ptr<const Picture> picture) noexcept;
  /// Asks the thread to show what is queued, close and end.
  void request_close();
  /// Waits until the thread has ended; false after `timeout`.
  bool wait_ended(std::chrono::milliseconds timeout);
  /// The same; the thread is then joined, or left behind.
  bool wait_closed(std::chrono::milliseconds timeout);

  CallbackState state() const;
  const Needs& needs() const { return needs_; }
  const std::string& name() const { return name_; }
  const Callback* callback() const { return callback_.get(); }
  bool usable() const { return usable_.load(std::memory_order_relaxed); }

 private:
  void run();

  const std::shared_ptr<Callback> callback_;
  const Run run_;
  const int64_t max_queue_bytes_;
  const std::shared_ptr<BackgroundBudget> budget_;
  const std::string name_;
  ErrorLog errors_;
  Needs needs_;                               // set once in the constructor
  Overflow overflow_ = Overflow::DropOldest;  // likewise
  std::thread thread_;                        // used by the thread that starts and ends the worker
  std::atomic<bool> usable_{true};            // false: open() threw

  mutable Mutex mutex_;
  Condition changed_;
  std::deque<std::shared_ptr<const Picture>> queue_ BEHOLDER_GUARDED_BY(mutex_);
  int64_t queued_bytes_ BEHOLDER_GUARDED_BY(mutex_) = 0;
  bool closing_ BEHOLDER_GUARDED_BY(mutex_) = false;
  bool ended_ BEHOLDER_GUARDED_BY(mutex_) = false;
  CallbackState state_ BEHOLDER_GUARDED_BY(mutex_);  // but for its errors and queued bytes
};

/// All callbacks of a Beholder.
/// Multithreading: any thread.
class Dispatcher {
 public:
  /// How long callbacks may take to close, all together.
  static constexpr std::chrono::milliseconds kPatience{10000};

  /// `max_queue_bytes`: of the pictures that wait for one callback. `budget` is billed for what the callbacks' threads
  /// use.
  explicit Dispatcher(int64_t max_queue_bytes, std::shared_ptr<BackgroundBudget> budget)
      : max_queue_bytes_(max_queue_bytes), budget_(std::move(budget)) {}
  /// close(kPatience), where it was not closed before.
  ~Dispatcher();

  /// A callback that was added before is ignored: it has one thread. Throws what its name(), needs() and overflow() do,
  /// and where the system has no thread for it.
  void add(std::shared_ptr<Callback> callback, Run run);
  /// To every callback that wants it.
  void dispatch(const std::shared_ptr<const Picture>& picture);
  /// Shows what is queued and closes, one after the other in the reverse order of their adding; callbacks that do not
  /// end within `timeout` are left behind, with one line. One that hangs leaves the others their share of that time.
  /// Nothing is added or dispatched afterwards; states() stays.
  void close(std::chrono::milliseconds timeout);

  /// What all callbacks need together; those that could not be opened need nothing.
  Needs needs() const;
  bool empty() const;
  std::vector<CallbackState> states() const;

 private:
  using Workers = std::vector<std::shared_ptr<Worker>>;

  const int64_t max_queue_bytes_;
  const std::shared_ptr<BackgroundBudget> budget_;  // shared with workers that are left behind
  mutable Mutex mutex_;
  // Never changed, but replaced: who reads it needs no lock and no copy.
  std::shared_ptr<const Workers> workers_ BEHOLDER_GUARDED_BY(mutex_) = std::make_shared<Workers>();
  bool closed_ BEHOLDER_GUARDED_BY(mutex_) = false;
};

}  // namespace beholder
