#include "beholder/threads.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>

namespace beholder {
namespace {

// Each step takes a fifth of the share of a core that is fought for: ten of them leave a tenth.
constexpr int kNicerToServe = 10;

}  // namespace

void begin_own_thread(const char* name) {
  char kept[16];  // the most that Linux takes
  std::snprintf(kept, sizeof kept, "%s", name);
  pthread_setname_np(pthread_self(), kept);
  // A class that the user chose stays. What the system refuses costs cycles, nothing else.
  const sched_param none{};
  if (::sched_getscheduler(0) == SCHED_OTHER) pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
}

void begin_serving_thread(const char* name) {
  begin_own_thread(name);
  const auto id = static_cast<id_t>(::syscall(SYS_gettid));
  ::setpriority(PRIO_PROCESS, id, ::getpriority(PRIO_PROCESS, id) + kNicerToServe);
}

double thread_cpu_seconds() {
  timespec now{};
  if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return -1;
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace beholder
