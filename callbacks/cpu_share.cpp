#include "beholder/callbacks/cpu_share.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <locale>
#include <sstream>
#include <thread>
#include <utility>

namespace beholder {
namespace {

// How much may be saved up while nobody watches: a burst of about ten pictures.
constexpr double kMostCreditSeconds = 0.1;
constexpr double kAverageSeconds = 2;
// What the server may use where no core is idle, and of what is idle where some are.
constexpr double kLeastShare = 0.03, kShareOfIdle = 0.1;

}  // namespace

double idle_cores(const std::string& line, int cores, double& idle_before, double& machine_before) {
  std::istringstream text(line);
  text.imbue(std::locale::classic());
  std::string name;
  text >> name;
  int64_t ticks = 0;
  double idle = 0, machine = 0;
  // user nice system idle iowait irq softirq steal; what follows is counted in user already.
  for (int column = 0; column < 8 && text >> ticks; ++column) {
    machine += static_cast<double>(ticks);
    if (column == 3 || column == 4) idle += static_cast<double>(ticks);
  }
  const double idle_ticks = idle - std::exchange(idle_before, idle);
  const double all_ticks = machine - std::exchange(machine_before, machine);
  if (name != "cpu" || !(all_ticks > 0) || idle_ticks < 0) return -1;
  return idle_ticks / all_ticks * cores;
}

void CpuShare::look_at_machine() {
  std::ifstream file("/proc/stat");
  std::string line;
  std::getline(file, line);
  const bool first = machine_before_ == 0;
  const double idle =
      idle_cores(line, static_cast<int>(std::thread::hardware_concurrency()), idle_before_, machine_before_);
  if (first || idle < 0) return;
  const double free = idle + used();  // what the server uses itself is not lost to it
  MutexLock lock(mutex_);
  share_ = std::min(max_share_, std::max(kLeastShare, kShareOfIdle * free));
}

void CpuShare::pay(double seconds) {
  if (bill_) bill_(seconds);
  const auto now = Clock::now();
  MutexLock lock(mutex_);
  const double elapsed = std::chrono::duration<double>(now - paid_).count();
  paid_ = now;
  debt_seconds_ = std::max(-kMostCreditSeconds, debt_seconds_ - elapsed * share_) + seconds;
  recent_seconds_ = recent_seconds_ * std::exp(-elapsed / kAverageSeconds) + seconds;
}

CpuShare::Clock::time_point CpuShare::free_from() const {
  MutexLock lock(mutex_);
  return paid_ + std::chrono::duration_cast<Clock::duration>(
                     std::chrono::duration<double>(std::max(0.0, debt_seconds_) / share_));
}

double CpuShare::used() const {
  MutexLock lock(mutex_);
  const double elapsed = std::chrono::duration<double>(Clock::now() - paid_).count();
  return recent_seconds_ * std::exp(-elapsed / kAverageSeconds) / kAverageSeconds;
}

}  // namespace beholder
