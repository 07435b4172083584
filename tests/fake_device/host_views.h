// How operators run here at all: CPU tensors over the bytes of device tensors. Made for the length of one operator.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <map>

namespace fake_device {

constexpr c10::DispatchKeySet kDeviceKeys(c10::DispatchKey::PrivateUse1);

class HostViews {
 public:
  /// A CPU tensor over the bytes of a device tensor; other tensors (CPU, undefined) come back as they are. Tensors that
  /// share a storage get views that share one, so that operators see what overlaps.
  at::Tensor of(const at::Tensor& tensor);

  /// The way back for results: the device tensor over the same bytes where `host` lies in one of these views (what
  /// view operators return), else a new tensor, with a copy of the bytes, on the current device.
  at::Tensor to_device(const at::Tensor& host, bool* is_new = nullptr);

 private:
  struct Pair {
    c10::Storage device;
    c10::Storage host;
  };
  const Pair& pair_of(const c10::Storage& device_storage);

  std::map<const c10::StorageImpl*, Pair> pairs_;  // by the device's storage
};

/// Gives `tensor` the size, strides and bytes of `host`, the view of it that an out-variant operator has resized.
void follow_resize(const at::Tensor& tensor, const at::Tensor& host);

/// Gives a device tensor's storage a new block of `size` bytes on the current device. The old bytes are kept.
void grow_storage(const at::Tensor& tensor, size_t size);

}  // namespace fake_device
