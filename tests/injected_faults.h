// Faults of the system, made to order: a program that links injected_faults.cpp calls the functions defined there
// instead of libc's, libstdc++'s and libavcodec's, also from within their libraries. Any thread may switch them.
#pragma once

#include <atomic>
#include <climits>
#include <cstdint>

namespace faults {

/// What goes wrong from now on. Each is switched alone; at first nothing is.
struct Injected {
  std::atomic<int> threads_left{INT_MAX};       ///< then pthread_create() says EAGAIN
  std::atomic<int> disk_error{0};               ///< errno of every write() to an ordinary file; 0 = none
  std::atomic<bool> encoder_fails{false};       ///< avcodec_send_frame() says EINVAL
  std::atomic<int64_t> clock_back_seconds{0};   ///< the wall clock is so much behind; the steady clock is not touched
  std::atomic<const char*> no_memory{nullptr};  ///< operator new throws on threads of a name that begins so
  std::atomic<int> refused_every{1};            ///< each so-manieth allocation of those threads
  std::atomic<int64_t> refused{0};              ///< allocations that threw
};

Injected& injected();

}  // namespace faults
