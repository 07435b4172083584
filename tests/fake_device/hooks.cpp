// Where LibTorch looks for what a device type has beside kernels and a guard: above all its pinned memory. LibTorch 2
// asks the PrivateUse1 hooks; 1.13.1 knows CUDA's only, so there we stand in for them.
#include <torch/version.h>

#include "fake_device.h"
#include "memory.h"

#if TORCH_VERSION_MAJOR >= 2

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>

#include "driver.h"

namespace fake_device {
namespace {

struct Hooks final : at::PrivateUse1HooksInterface {
  // Unknown to the earlier versions 2: hence without `override`.
  bool isBuilt() const { return true; }
  bool isAvailable() const { return true; }
  at::Generator getNewGenerator(c10::DeviceIndex) const { return at::detail::createCPUGenerator(); }

  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }

  c10::DeviceIndex deviceCount() const override { return kDeviceCount; }
  c10::DeviceIndex getCurrentDevice() const override { return this_thread().device; }
  void setCurrentDevice(c10::DeviceIndex index) const override { this_thread().device = index; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    const c10::DeviceIndex before = getCurrentDevice();
    setCurrentDevice(index);
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return index < 0 ? getCurrentDevice() : exchangeDevice(index);
  }

  bool isPinnedPtr(const void* pointer) const override { return is_pinned(pointer); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }

  // Random operators run on the CPU's generator.
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
};

// The name makes PrivateUse1 the process's accelerator; without it a CUDA build asks CUDA, which throws where there
// is no GPU, in the first backward().
const bool registered = [] {
  c10::register_privateuse1_backend("fake");
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

}  // namespace
}  // namespace fake_device

#else

#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/library.h>

namespace at {  // the registry's macro works in this namespace alone

struct FakePinnedMemoryHooks final : CUDAHooksInterface {
  explicit FakePinnedMemoryHooks(CUDAHooksArgs) {}
  bool isPinnedPtr(void* pointer) const override { return fake_device::is_pinned(pointer); }
  Allocator* getPinnedMemoryAllocator() const override { return fake_device::pinned_allocator(); }
};

C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", FakePinnedMemoryHooks)

}  // namespace at

namespace fake_device {
namespace {

bool tensor_is_pinned(const at::Tensor& self, c10::optional<at::Device>) { return is_pinned(self.data_ptr()); }

at::Tensor pin_memory(const at::Tensor& self, c10::optional<at::Device>) {
  at::Tensor pinned = pinned_empty(self.sizes(), self.scalar_type());
  return pinned.copy_(self);
}

// Without a device argument these two go to CUDA, with one to its key.
TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("is_pinned", TORCH_FN(tensor_is_pinned));
  library.impl("_pin_memory", TORCH_FN(pin_memory));
}
TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("is_pinned", TORCH_FN(tensor_is_pinned));
  library.impl("_pin_memory", TORCH_FN(pin_memory));
}

}  // namespace
}  // namespace fake_device

#endif
