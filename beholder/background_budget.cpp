#include "beholder/background_budget.h"

#include <algorithm>

namespace beholder {
namespace {

constexpr double kLongestQuiet = 3600;  // seconds, for one bill

}  // namespace

void BackgroundBudget::bill(double cpu_seconds, Clock::time_point begun) {
  if (!(cpu_seconds > 0)) return;
  spent_ns_.fetch_add(static_cast<int64_t>(1e9 * std::min(cpu_seconds, 1e9)));
  const std::chrono::duration<double> quiet(std::min(cpu_seconds / max_share_, kLongestQuiet));
  const auto ticks = std::chrono::duration_cast<Clock::duration>(quiet).count();
  auto before = paid_until_.load();
  while (!paid_until_.compare_exchange_weak(before, std::max(before, begun.time_since_epoch().count()) + ticks)) {
  }
}

}  // namespace beholder
