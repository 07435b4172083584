#include "beholder/background_budget.h"

#include <algorithm>
#include <thread>

namespace beholder {
namespace {

constexpr double kLongestQuiet = 3600;  // seconds, for one bill
constexpr double kShortestLook = 0.2;   // seconds
// With so many cores left all of max_background may be used; with so few, the part for busy ones.
constexpr double kCoresForAll = 0.6, kCoresForNone = 0.25;

}  // namespace

BackgroundBudget::BackgroundBudget(double max_share, double cores)
    : max_share_(max_share),
      cores_(cores > 0 ? cores : std::max(1u, std::thread::hardware_concurrency())),
      share_(max_share) {}

void BackgroundBudget::bill(double cpu_seconds, Clock::time_point begun) {
  if (!(cpu_seconds > 0)) return;
  spent_ns_.fetch_add(static_cast<int64_t>(1e9 * std::min(cpu_seconds, 1e9)));
  const std::chrono::duration<double> quiet(std::min(cpu_seconds / share(), kLongestQuiet));
  const auto ticks = std::chrono::duration_cast<Clock::duration>(quiet).count();
  auto before = paid_until_.load();
  while (!paid_until_.compare_exchange_weak(before, std::max(before, begun.time_since_epoch().count()) + ticks)) {
  }
}

void BackgroundBudget::look_at_process(double process_seconds, Clock::time_point now) {
  const double elapsed = std::chrono::duration<double>(now - looked_).count();
  const bool first = looked_ == Clock::time_point{};
  if (!first && elapsed < kShortestLook) return;
  const double others = (process_seconds - process_before_) - (spent() - spent_before_);
  looked_ = now;
  process_before_ = process_seconds;
  spent_before_ = spent();
  if (first) return;
  const double left = cores_ - others / elapsed;
  const double part = std::clamp((left - kCoresForNone) / (kCoresForAll - kCoresForNone), kBusyPart, 1.0);
  share_.store(max_share_ * part, std::memory_order_relaxed);
}

}  // namespace beholder
