// A test-only accelerator for proving, without a GPU, what Beholder does on one. Two devices of type PrivateUse1 keep
// their tensors in host memory and run every operator at once, on the thread that calls it; what is simulated is the
// *order*: streams and events are vector clocks, so an access whose order the program did not establish is reported as
// a race in every run, not once in a thousand. Whatever makes a thread wait for the device is counted.
//
// Multithreading: everything here may be called from any thread. Static registrations: link the object files.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/core/Stream.h>
#include <c10/util/ArrayRef.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace torch {
namespace nn {
class Module;
}
}  // namespace torch

namespace fake_device {

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex kDeviceCount = 2;

inline c10::Device device(c10::DeviceIndex index = 0) { return {kType, index}; }

/// What host threads asked of the devices. The first seven are the ways in which a thread waits for a device.
struct Counts {
  int64_t stream_synchronizations = 0;
  int64_t event_synchronizations = 0;
  int64_t device_synchronizations = 0;
  int64_t operator_synchronizations = 0;  ///< operators that read a size or a value back, such as nonzero
  int64_t items = 0;                      ///< Tensor::item()
  int64_t blocking_copies_to_host = 0;    ///< without non_blocking, or to memory that is not pinned
  int64_t blocking_copies_to_device = 0;  ///< without non_blocking, or from memory that is not pinned

  int64_t async_copies_to_host = 0;
  int64_t async_copies_to_device = 0;
  int64_t device_allocations = 0;
  int64_t device_bytes = 0;  ///< of those allocations
  int64_t pinned_allocations = 0;
  int64_t operators = 0;  ///< all that was put on a stream, copies included
  int64_t events_recorded = 0;
  int64_t events_blocked_on = 0;
  int64_t successful_queries = 0;
  int64_t failed_queries = 0;

  /// How often a host thread waited for a device.
  int64_t synchronizations() const;
  int64_t copies_to_host() const { return blocking_copies_to_host + async_copies_to_host; }
  int64_t copies_to_device() const { return blocking_copies_to_device + async_copies_to_device; }

  Counts& operator+=(const Counts& other);
  Counts& operator-=(const Counts& other);
  friend Counts operator-(Counts a, const Counts& b) { return a -= b; }
};

/// Of the calling thread, since the last reset(). (Autograd runs backward passes on threads of its own.)
Counts counts();

/// Of all threads together, those that ended included, since the last reset().
Counts total_counts();

/// Forgets all counts and races. The order that was established stays.
void reset();

/// One line for each pair of accesses whose order no stream, event or wait establishes.
std::vector<std::string> races();

/// Bytes allocated now, of one device or (-1) of both.
int64_t live_bytes(c10::DeviceIndex index = -1);

/// While one lives, its thread's first synchronisation throws c10::Error instead of waiting. May be nested.
class NoSync {
 public:
  NoSync();
  ~NoSync();
  NoSync(const NoSync&) = delete;
  NoSync& operator=(const NoSync&) = delete;
};

/// From here on nothing that is put on a stream completes: queries answer false, waits block, and throw c10::Error
/// after `patience`. A thread that does nothing but query, thousands of times, gets an error as well: it spins.
void freeze(std::chrono::milliseconds patience = std::chrono::seconds(5));
void thaw();

/// Tell the race detector of a hand-over from thread to thread that it cannot see (a mutex, a flag, a queue): what
/// the releasing thread knew to be complete, the acquiring thread knows too. `key` is any address both agree on.
void host_release(const void* key);
void host_acquire(const void* key);

/// The device's own streams, as c10::impl::VirtualGuardImpl gives them.
c10::Stream default_stream(c10::DeviceIndex index = 0);
c10::Stream current_stream(c10::DeviceIndex index = 0);
/// Another one than the default stream. There are 15 a device, dealt out in turn.
c10::Stream new_stream(c10::DeviceIndex index = 0);

/// A CPU tensor in pinned memory. A non-blocking copy into it shows garbage until a host thread saw it complete.
at::Tensor pinned_empty(c10::IntArrayRef sizes, c10::ScalarType dtype);

/// What Module::to(device) would do, which LibTorch refuses for PrivateUse1 ("incompatible tensor type"): moves
/// parameters, gradients and buffers in place, so that optimizers and holders of the tensors follow.
void move_module(torch::nn::Module& module, c10::Device device);

}  // namespace fake_device
