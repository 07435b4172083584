#include "beholder/callbacks/cpu_share.h"

#include <algorithm>
#include <cmath>
#include <ctime>

namespace beholder {
namespace {

// How much may be saved up while nobody watches: a burst of about ten pictures.
constexpr double kMostCreditSeconds = 0.1;
constexpr double kAverageSeconds = 2;

}  // namespace

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void CpuShare::pay(double seconds) {
  const auto now = Clock::now();
  std::lock_guard<std::mutex> lock(mutex_);
  const double elapsed = std::chrono::duration<double>(now - paid_).count();
  paid_ = now;
  debt_seconds_ = std::max(-kMostCreditSeconds, debt_seconds_ - elapsed * share_) + seconds;
  recent_seconds_ = recent_seconds_ * std::exp(-elapsed / kAverageSeconds) + seconds;
}

CpuShare::Clock::time_point CpuShare::free_from() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return paid_ + std::chrono::duration_cast<Clock::duration>(
                     std::chrono::duration<double>(std::max(0.0, debt_seconds_) / share_));
}

double CpuShare::used() const {
  std::lock_guard<std::mutex> lock(mutex_);
  const double elapsed = std::chrono::duration<double>(Clock::now() - paid_).count();
  return recent_seconds_ * std::exp(-elapsed / kAverageSeconds) / kAverageSeconds;
}

}  // namespace beholder
