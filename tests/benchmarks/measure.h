// What all benchmark programs here share: clocks, medians, and how a figure is told. Each prints lines "name value" to
// standard output, from which compare_table.py makes the table.
#pragma once

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace beholder::benchmarks {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point begun) {
  return std::chrono::duration<double>(Clock::now() - begun).count();
}

inline double cpu_seconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}
/// Of the calling thread. On a machine that others use as well, wall time measures them; this does not.
inline double thread_cpu() { return cpu_seconds(CLOCK_THREAD_CPUTIME_ID); }
/// Of all threads of this process, ended ones included.
inline double process_cpu() { return cpu_seconds(CLOCK_PROCESS_CPUTIME_ID); }

/// CPU and wall time of a call, in seconds.
struct Times {
  double cpu = 0, wall = 0;
};
template <typename Call>
Times timed(const Call& call) {
  const auto begun = Clock::now();
  const double before = thread_cpu();
  call();
  const double after = thread_cpu();
  return {after - before, seconds_since(begun)};
}

inline double median(std::vector<double> values) {
  if (values.empty()) throw std::runtime_error("nothing was measured");
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

inline void tell(const std::string& name, double value) {
  std::printf("%s %.9g\n", name.c_str(), value);
  std::fflush(stdout);
}

/// A folder for logs that is removed in the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "beholder-benchmark-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("cannot create " + name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace beholder::benchmarks
