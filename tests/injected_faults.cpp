#include "injected_faults.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

namespace faults {

Injected& injected() {
  static Injected instance;
  return instance;
}

namespace {

/// The function that would have been called.
template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

bool refuses_memory() {
  Injected& now = injected();
  const char* prefix = now.no_memory.load(std::memory_order_relaxed);
  if (prefix == nullptr) return false;
  char name[17] = {};
  ::prctl(PR_GET_NAME, name);
  if (std::strncmp(name, prefix, std::strlen(prefix)) != 0) return false;
  thread_local int count = 0;
  if (++count % now.refused_every.load(std::memory_order_relaxed) != 0) return false;
  ++now.refused;
  return true;
}

}  // namespace
}  // namespace faults

void* operator new(std::size_t size) {
  if (faults::refuses_memory()) throw std::bad_alloc();
  if (void* memory = std::malloc(size > 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

extern "C" {

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) noexcept {
  static const auto real = faults::next<decltype(pthread_create)>("pthread_create");
  return faults::injected().threads_left-- > 0 ? real(thread, attributes, run, argument) : EAGAIN;
}

ssize_t write(int descriptor, const void* bytes, size_t count) {
  if (const int error = faults::injected().disk_error) {
    struct stat status {};
    if (::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) {
      errno = error;
      return -1;
    }
  }
  return ::syscall(SYS_write, descriptor, bytes, count);
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = static_cast<int>(::syscall(SYS_clock_gettime, clock, time));
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec -= faults::injected().clock_back_seconds;
  return result;
}

// libav's headers are not needed to pass its pointers on.
int avcodec_send_frame(void* codec, const void* frame) {
  static const auto real = faults::next<decltype(avcodec_send_frame)>("avcodec_send_frame");
  return faults::injected().encoder_fails ? -EINVAL : real(codec, frame);
}

}  // extern "C"
