#include "host_views.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstring>

#include "fake_device.h"
#include "memory.h"

namespace fake_device {
namespace {

// A tensor of `geometry`'s shape, place and flags over another storage.
at::Tensor over(const c10::Storage& storage, c10::DispatchKey key, const at::Tensor& geometry) {
  at::Tensor tensor =
      at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), c10::DispatchKeySet(key), geometry.dtype());
  c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_offset(geometry.storage_offset());
  impl->set_sizes_and_strides(geometry.sizes(), geometry.strides());
  if (geometry.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
  tensor._set_conj(geometry.is_conj());
  tensor._set_neg(geometry.is_neg());
  return tensor;
}

void set_bytes(c10::StorageImpl* storage, const void* bytes, size_t size, size_t new_size) {
  c10::DataPtr fresh = device_allocator()->allocate(new_size);
  if (bytes && new_size) std::memcpy(block_of(fresh)->bytes, bytes, std::min(size, new_size));
  storage->set_data_ptr_noswap(std::move(fresh));
  storage->set_nbytes(new_size);
}

}  // namespace

const HostViews::Pair& HostViews::pair_of(const c10::Storage& device_storage) {
  auto* impl = device_storage.unsafeGetStorageImpl();
  auto found = pairs_.find(impl);
  if (found != pairs_.end()) return found->second;

  const Block* block = block_of(impl->data_ptr());
  auto* keeps_alive = new c10::Storage(device_storage);
  c10::DataPtr pointer(
      block ? block->bytes : nullptr, keeps_alive, [](void* storage) { delete static_cast<c10::Storage*>(storage); },
      c10::kCPU);
  c10::Storage host(c10::Storage::use_byte_size_t(), impl->nbytes(), std::move(pointer), c10::GetCPUAllocator(),
                    /*resizable=*/true);
  return pairs_.emplace(impl, Pair{device_storage, host}).first->second;
}

at::Tensor HostViews::of(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.device().type() != kType) return tensor;
  return over(pair_of(tensor.storage()).host, c10::DispatchKey::CPU, tensor);
}

at::Tensor HostViews::to_device(const at::Tensor& host, bool* is_new) {
  if (is_new) *is_new = false;
  if (!host.defined()) return host;
  for (const auto& entry : pairs_) {
    if (host.storage().is_alias_of(entry.second.host)) {
      return over(entry.second.device, c10::DispatchKey::PrivateUse1, host);
    }
  }
  if (is_new) *is_new = true;
  const at::Tensor fresh = at::detail::empty_strided_generic(host.sizes(), host.strides(), device_allocator(),
                                                             kDeviceKeys, host.scalar_type());
  if (const Block* block = block_of(fresh)) std::memcpy(block->bytes, host.data_ptr(), fresh.storage().nbytes());
  return fresh;
}

void follow_resize(const at::Tensor& tensor, const at::Tensor& host) {
  const c10::StorageImpl* storage = host.storage().unsafeGetStorageImpl();
  const Block* block = block_of(tensor);
  const void* bytes = storage->data_ptr().get();
  if (bytes != (block ? block->bytes : nullptr)) {
    set_bytes(tensor.storage().unsafeGetStorageImpl(), bytes, storage->nbytes(), storage->nbytes());
  }
  if (tensor.sizes() != host.sizes() || tensor.strides() != host.strides()) {
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides());
  }
}

void grow_storage(const at::Tensor& tensor, size_t size) {
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  const Block* block = block_of(tensor);
  set_bytes(storage, block ? block->bytes : nullptr, storage->nbytes(), size);
}

}  // namespace fake_device
