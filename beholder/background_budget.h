// What Beholder's own threads have used, and when that has been paid for. Internal.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace beholder {

/// Keeps Options::max_background: whatever a thread of ours uses is paid for by quiet, in which no picture is captured.
///
/// Where the training's own threads take every core, a core that one of ours takes for a moment is waited for by all of
/// them, at their next barrier: there only kBusyPart of max_background may be used.
///
/// Multithreading: any thread; takes no lock.
class BackgroundBudget {
 public:
  using Clock = std::chrono::steady_clock;

  /// `max_share`: of one core. `cores`: that this process may use; 0: as many as the system says.
  explicit BackgroundBudget(double max_share, double cores = 0);

  /// A thread has used `cpu_seconds` of CPU time since `begun`: they are the share() of the time from then, or from
  /// where the bill before this one is paid, to where this one is. Negative ones are none.
  void bill(double cpu_seconds, Clock::time_point begun);
  /// When all is paid that was billed.
  Clock::time_point paid_until() const { return Clock::time_point(Clock::duration(paid_until_.load())); }
  /// All that was billed, in seconds.
  double spent() const { return 1e-9 * static_cast<double>(spent_ns_.load()); }

  /// Looks how many cores the process's other threads leave. `process_seconds`: CPU time of all threads of the process
  /// up to `now`. For one thread, at any intervals; those of less than a fifth of a second wait for the next.
  void look_at_process(double process_seconds, Clock::time_point now);
  /// What may be used now, as a share of one core.
  double share() const { return share_.load(std::memory_order_relaxed); }

 private:
  /// Measured with two OpenMP threads on two cores: a millisecond of ours takes 1.1 to 1.3 of the training.
  static constexpr double kBusyPart = 1.0 / 8;

  const double max_share_, cores_;
  std::atomic<double> share_;
  std::atomic<Clock::duration::rep> paid_until_{Clock::time_point{}.time_since_epoch().count()};
  std::atomic<int64_t> spent_ns_{0};
  // Of the thread that looks.
  Clock::time_point looked_{};
  double process_before_ = 0, spent_before_ = 0;
};

}  // namespace beholder
