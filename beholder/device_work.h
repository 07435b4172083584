// Streams, events and pinned memory of any device that c10 knows, through c10's device-generic interface: no header of
// a vendor. The CPU is the plain case, in which everything is done when the call returns.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "beholder/graph_capture.h"

namespace beholder {

/// A point in a device's work. Made on any thread, recorded and waited for by one thread each.
class DeviceEvent {
 public:
  explicit DeviceEvent(c10::Device device) : device_(device) {}

  c10::Device device() const { return device_; }
  /// Marks what was enqueued on `device`'s current stream by this thread. Does not wait.
  void record();
  /// As record(), and what was marked before stays part of the mark, even on another stream: that one is waited for on
  /// the device.
  void extend();
  /// True when everything before the mark is done (or nothing was recorded). Does not wait.
  bool query() const;
  /// Makes this thread's current stream of `device` wait on the device for the mark; the host does not wait.
  void block_current_stream(c10::Device device);

 private:
  c10::Device device_;
  std::optional<c10::Event> event_;    // absent on the CPU, and until the first record()
  std::optional<c10::Stream> stream_;  // of the last record()
};

/// While it lives, this thread's work on `device` goes to a stream of Beholder's own (none on the CPU), and spoils no
/// graph that the training records meanwhile.
class SideStream {
 public:
  explicit SideStream(c10::Device device);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  /// The host waits for everything on this stream, asleep: a vendor's own wait may spin for as long as the training's
  /// queue is. For the render thread only.
  void synchronize();

 private:
  const BesideGraphs beside_graphs_;
  std::optional<c10::Stream> stream_;
  std::optional<c10::Stream> previous_;
};

/// One for each of several devices.
class SideStreams {
 public:
  explicit SideStreams(const std::vector<c10::Device>& devices);

  void synchronize();

 private:
  std::vector<std::unique_ptr<SideStream>> streams_;
};

/// Uninitialised host memory of `bytes` bytes, uint8, that `device` can copy into without the host waiting; ordinary
/// memory for the CPU. Allocating may wait for the device: not for the training thread.
at::Tensor host_buffer(int64_t bytes, c10::Device device);

/// LibTorch's operators on this thread use one CPU thread from now on; other threads keep theirs.
void use_one_cpu_thread();

}  // namespace beholder
