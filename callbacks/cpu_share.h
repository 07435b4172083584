// How much CPU time the live server's threads use, and when they have used enough. Owned by the live server; internal.
#pragma once

#include <chrono>
#include <mutex>

namespace beholder {

/// Bounds the CPU time of the server's threads: a share of one core. Viewers wait for their pictures while it is
/// overdrawn (a second at most), so that many of them get fewer pictures, instead of the training fewer cycles.
/// Multithreading: any thread.
class CpuShare {
 public:
  using Clock = std::chrono::steady_clock;
  explicit CpuShare(double share) : share_(share) {}

  /// `seconds` of CPU time have been used.
  void pay(double seconds);
  /// From when on the next picture may be given.
  Clock::time_point free_from() const;
  /// Moving average of what was used, as a share of one core.
  double used() const;

 private:
  const double share_;
  mutable std::mutex mutex_;
  double debt_seconds_ = 0;                // guarded by mutex_: CPU time not yet earned at paid_
  double recent_seconds_ = 0;              // guarded by mutex_: CPU time of the last seconds, fading
  Clock::time_point paid_ = Clock::now();  // guarded by mutex_
};

/// CPU time of the calling thread, in seconds.
double thread_seconds();

}  // namespace beholder
