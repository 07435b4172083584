// How much CPU time the live server's threads use, and when they have used enough. Owned by the live server; internal.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <utility>

#include "beholder/thread_safety.h"

namespace beholder {

/// Bounds the CPU time of the server's threads: a share of one core. Viewers wait for their pictures while it is
/// overdrawn (a second at most), so that many of them get fewer pictures, instead of the training fewer cycles.
/// Multithreading: any thread.
class CpuShare {
 public:
  using Clock = std::chrono::steady_clock;
  /// The share is a tenth of what is idle, and max_share at most: viewers on this machine cost it more than the server,
  /// and what runs beside a training takes its caches. But 3 % of a core, enough for a viewer or two, also where the
  /// training uses them all.
  /// `bill`, where there is one, is told of all that is paid.
  explicit CpuShare(double max_share, std::function<void(double seconds)> bill = {})
      : max_share_(max_share), bill_(std::move(bill)), share_(max_share) {}

  /// Looks how idle the machine was since the last call. For one thread, about twice a second.
  void look_at_machine();
  /// `seconds` of CPU time have been used.
  void pay(double seconds);
  /// From when on the next picture may be given.
  Clock::time_point free_from() const;
  double max_share() const { return max_share_; }
  /// Moving average of what was used, as a share of one core.
  double used() const;

 private:
  const double max_share_;
  const std::function<void(double)> bill_;
  double idle_before_ = 0, machine_before_ = 0;  // of the thread that looks: in ticks of the system
  mutable Mutex mutex_;
  double share_ BEHOLDER_GUARDED_BY(mutex_);
  double debt_seconds_ BEHOLDER_GUARDED_BY(mutex_) = 0;    // CPU time not yet earned at paid_
  double recent_seconds_ BEHOLDER_GUARDED_BY(mutex_) = 0;  // CPU time of the last seconds, fading
  Clock::time_point paid_ BEHOLDER_GUARDED_BY(mutex_) = Clock::now();
};

/// How many of `cores` had nothing to do since the last call, whose ticks are in the last two arguments. `line`: the
/// first of /proc/stat. Negative where nothing can be said.
double idle_cores(const std::string& line, int cores, double& idle_before, double& machine_before);

}  // namespace beholder
