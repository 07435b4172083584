// The device that gpu_check looks at, and what the program must know of it beyond c10: CUDA, the CPU, or the test-only
// device of tests/fake_device.
#pragma once

#include <c10/core/Device.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

/// What host threads asked of the device.
struct Asked {
  int64_t waits = 0;  ///< whatever makes a host thread wait for the device, or may do so
  int64_t copies_to_host = 0;
  int64_t copies_to_device = 0;
  int64_t allocations = 0;

  friend Asked operator-(Asked a, const Asked& b) {
    return {a.waits - b.waits, a.copies_to_host - b.copies_to_host, a.copies_to_device - b.copies_to_device,
            a.allocations - b.allocations};
  }
  Asked& operator+=(const Asked& other) {
    waits += other.waits;
    copies_to_host += other.copies_to_host;
    copies_to_device += other.copies_to_device;
    allocations += other.allocations;
    return *this;
  }
};

class Target {
 public:
  virtual ~Target() = default;

  virtual c10::Device device() const = 0;
  /// As a person would name it: "NVIDIA H100 80GB HBM3".
  virtual std::string name() const = 0;
  virtual void move(torch::nn::Module& module, c10::Device to) const { module.to(to); }

  /// How Asked is counted; empty where it is not.
  virtual std::string how_counted() const { return ""; }
  virtual Asked asked_by_this_thread() const { return {}; }
  virtual Asked asked_by_all_threads() const { return {}; }

  /// Whether autograd runs a backward pass on the stream of its forward pass.
  virtual bool autograd_follows_streams() const { return false; }

  /// Calls `work` while the device has other work for seconds; `still_busy()` tells whether it still has. False, and
  /// nothing is called, where a device is never behind its host.
  using StillBusy = std::function<bool()>;
  virtual bool while_busy(const std::function<void(const StillBusy& still_busy)>& work) const {
    (void)work;
    return false;
  }

  virtual bool records_graphs() const { return false; }
  /// Records what `work` puts on the current stream into a graph, in the strictest mode, and runs it once. Returns what
  /// went wrong, or nothing.
  virtual std::string record_graph(const std::function<void()>& work) const {
    (void)work;
    return "this device has no graphs";
  }

  /// The calling thread waits for everything on its current stream.
  void synchronize() const;

  /// Seconds that the device works on what `work` enqueues, without the time that the host takes to enqueue it where
  /// events can tell (CUDA, LibTorch 2.4 or newer); elsewhere the host's clock.
  double seconds(const std::function<void()>& work) const;
};

/// The device of this name ("cuda", "cuda:1", "cpu", "test"), or nullptr where this machine or this program has none.
/// Throws std::invalid_argument for what is no name of one.
std::unique_ptr<Target> find_target(const std::string& name);

/// The test-only device; nullptr in a program without it.
std::unique_ptr<Target> make_test_device();
