// What Beholder's own threads have used, and when that has been paid for. Internal.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace beholder {

/// Keeps Options::max_background: whatever a thread of ours uses is paid for by quiet, in which no picture is captured.
/// Multithreading: any thread; takes no lock.
class BackgroundBudget {
 public:
  using Clock = std::chrono::steady_clock;

  /// `max_share`: of one core.
  explicit BackgroundBudget(double max_share) : max_share_(max_share) {}

  /// A thread has used `cpu_seconds` of CPU time since `begun`: they are max_share of the time from then, or from where
  /// the bill before this one is paid, to where this one is. Negative ones are none.
  void bill(double cpu_seconds, Clock::time_point begun);
  /// When all is paid that was billed.
  Clock::time_point paid_until() const { return Clock::time_point(Clock::duration(paid_until_.load())); }
  /// All that was billed, in seconds.
  double spent() const { return 1e-9 * static_cast<double>(spent_ns_.load()); }

 private:
  const double max_share_;
  std::atomic<Clock::duration::rep> paid_until_{Clock::time_point{}.time_since_epoch().count()};
  std::atomic<int64_t> spent_ns_{0};
};

}  // namespace beholder
