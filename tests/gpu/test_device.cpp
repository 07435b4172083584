// The target that tries gpu_check itself where there is no GPU: tests/fake_device.
#include <torch/version.h>

#include <chrono>

#include "fake_device/fake_device.h"
#include "target.h"

namespace {

class TestDevice final : public Target {
 public:
  c10::Device device() const override { return fake_device::device(); }
  std::string name() const override { return "the test-only device (its times mean nothing)"; }
  void move(torch::nn::Module& module, c10::Device to) const override { fake_device::move_module(module, to); }

  std::string how_counted() const override { return "by the device itself, all of them"; }
  Asked asked_by_this_thread() const override { return asked(fake_device::counts()); }
  Asked asked_by_all_threads() const override { return asked(fake_device::total_counts()); }
  bool autograd_follows_streams() const override { return TORCH_VERSION_MAJOR >= 2; }

  bool while_busy(const std::function<void(const StillBusy&)>& work) const override {
    const struct Frozen {
      Frozen() { fake_device::freeze(std::chrono::seconds(60)); }
      ~Frozen() { fake_device::thaw(); }
    } frozen;
    work([] { return true; });
    return true;
  }

 private:
  static Asked asked(const fake_device::Counts& counts) {
    return {counts.synchronizations(), counts.async_copies_to_host, counts.async_copies_to_device,
            counts.device_allocations + counts.pinned_allocations};
  }
};

}  // namespace

std::unique_ptr<Target> make_test_device() { return std::make_unique<TestDevice>(); }
