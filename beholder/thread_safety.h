// Locks that clang's thread-safety analysis understands (tests/thread_safety.sh runs it), and the words by which fields
// and functions name their lock. Inside are the standard library's own, at no cost; for other compilers the words are
// empty.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#if defined(__clang__)
#define BEHOLDER_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define BEHOLDER_THREAD_ATTRIBUTE(x)
#endif

/// A field that is read and written only while its lock is held ...
#define BEHOLDER_GUARDED_BY(...) BEHOLDER_THREAD_ATTRIBUTE(guarded_by(__VA_ARGS__))
/// ... and a pointer to such an object.
#define BEHOLDER_PT_GUARDED_BY(...) BEHOLDER_THREAD_ATTRIBUTE(pt_guarded_by(__VA_ARGS__))
/// A function whose caller holds the lock. Also for the lambdas that a Condition is waited for with.
#define BEHOLDER_REQUIRES(...) BEHOLDER_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
/// A function that returns a lock.
#define BEHOLDER_RETURN_CAPABILITY(x) BEHOLDER_THREAD_ATTRIBUTE(lock_returned(x))
/// Of the classes below.
#define BEHOLDER_CAPABILITY(x) BEHOLDER_THREAD_ATTRIBUTE(capability(x))
#define BEHOLDER_SCOPED_CAPABILITY BEHOLDER_THREAD_ATTRIBUTE(scoped_lockable)
#define BEHOLDER_ACQUIRE(...) BEHOLDER_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define BEHOLDER_TRY_ACQUIRE(...) BEHOLDER_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define BEHOLDER_RELEASE(...) BEHOLDER_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
/// A function that is right without its lock; a comment says why.
#define BEHOLDER_NO_THREAD_SAFETY_ANALYSIS BEHOLDER_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace beholder {

template <typename Native>
class BasicLock;

/// A mutex of the standard library that fields can name as their guard. Locked by a MutexLock or RecursiveLock.
template <typename Native>
class BEHOLDER_CAPABILITY("mutex") BasicMutex {
 public:
  BasicMutex() = default;
  BasicMutex(const BasicMutex&) = delete;
  BasicMutex& operator=(const BasicMutex&) = delete;

  /// For what is held from one function to another; elsewhere a MutexLock.
  void lock() BEHOLDER_ACQUIRE() { native_.lock(); }
  bool try_lock() BEHOLDER_TRY_ACQUIRE(true) { return native_.try_lock(); }
  void unlock() BEHOLDER_RELEASE() { native_.unlock(); }

 private:
  friend class BasicLock<Native>;
  Native native_;
};

/// Holds a mutex until it ends; may let go of it in between.
template <typename Native>
class BEHOLDER_SCOPED_CAPABILITY BasicLock {
 public:
  explicit BasicLock(BasicMutex<Native>& mutex) BEHOLDER_ACQUIRE(mutex) : lock_(mutex.native_) {}
  ~BasicLock() BEHOLDER_RELEASE() {}
  BasicLock(const BasicLock&) = delete;
  BasicLock& operator=(const BasicLock&) = delete;

  void lock() BEHOLDER_ACQUIRE() { lock_.lock(); }
  void unlock() BEHOLDER_RELEASE() { lock_.unlock(); }

 private:
  friend class Condition;
  std::unique_lock<Native> lock_;
};

using Mutex = BasicMutex<std::mutex>;
using MutexLock = BasicLock<std::mutex>;
/// May be locked again by the thread that holds it.
using RecursiveMutex = BasicMutex<std::recursive_mutex>;
using RecursiveLock = BasicLock<std::recursive_mutex>;

/// std::condition_variable for a Mutex. A predicate says which lock it is called under:
/// `changed_.wait(lock, [this]() BEHOLDER_REQUIRES(mutex_) { return ready_; });`
class Condition {
 public:
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

  template <typename Predicate>
  void wait(MutexLock& lock, Predicate there) {
    condition_.wait(lock.lock_, std::move(there));
  }
  /// What `there` says at the end.
  template <typename Rep, typename Period, typename Predicate>
  bool wait_for(MutexLock& lock, const std::chrono::duration<Rep, Period>& time, Predicate there) {
    return condition_.wait_for(lock.lock_, time, std::move(there));
  }
  /// May return early.
  template <typename Clock, typename Duration>
  void wait_until(MutexLock& lock, const std::chrono::time_point<Clock, Duration>& time) {
    condition_.wait_until(lock.lock_, time);
  }

 private:
  std::condition_variable condition_;
};

}  // namespace beholder
