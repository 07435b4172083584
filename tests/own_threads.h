// How the system schedules the threads that Beholder has started in this process.
#pragma once

#include <sched.h>
#include <sys/resource.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

struct OwnThread {
  std::string name;
  int policy;    // SCHED_...
  int niceness;  // -20 to 19
  double cpu_seconds;
};

/// What a thread of this process has used. Its clock's number is made as the kernel makes it (CPUCLOCK_PERTHREAD_MASK |
/// CPUCLOCK_SCHED).
inline double cpu_of(int thread_id) {
  timespec used{};
  ::clock_gettime(static_cast<clockid_t>(~static_cast<unsigned>(thread_id) << 3 | 6u), &used);
  return static_cast<double>(used.tv_sec) + 1e-9 * static_cast<double>(used.tv_nsec);
}

/// Those whose name begins with "bh ".
inline std::vector<OwnThread> own_threads() {
  std::vector<OwnThread> found;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string name;
    std::getline(file, name);
    const int id = std::stoi(task.path().filename());
    if (name.rfind("bh ", 0) == 0)
      found.push_back({name, ::sched_getscheduler(id), ::getpriority(PRIO_PROCESS, static_cast<id_t>(id)), cpu_of(id)});
  }
  return found;
}
