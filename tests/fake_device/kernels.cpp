// The operators that make, copy and read device memory: those where a real device differs most from the CPU.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>

#include <cstring>
#include <vector>

#include "driver.h"
#include "host_views.h"
#include "memory.h"
#include "operation.h"

namespace fake_device {
namespace {

bool on_device(const at::Tensor& tensor) { return tensor.device().type() == kType; }

// ---- creation

at::Tensor empty(at::IntArrayRef sizes, c10::optional<at::ScalarType> dtype, c10::optional<at::Layout>,
                 c10::optional<at::Device> device, c10::optional<bool>, c10::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(sizes, device_allocator(), kDeviceKeys, c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, c10::optional<at::ScalarType> dtype,
                         c10::optional<at::Layout>, c10::optional<at::Device> device, c10::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(sizes, strides, device_allocator(), kDeviceKeys,
                                           c10::dtype_or_default(dtype));
}

const at::Tensor& resize_(const at::Tensor& self, at::IntArrayRef sizes, c10::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(self.device());
  const auto wanted = at::detail::computeStorageNbytesContiguous(sizes, self.dtype().itemsize(),
                                                                 static_cast<size_t>(self.storage_offset()));
  if (wanted > self.storage().nbytes()) grow_storage(self, wanted);
  self.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  if (format && *format != at::MemoryFormat::Preserve) {
    self.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  }
  return self;
}

at::Tensor& set_storage_with_strides(at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef sizes,
                                     at::IntArrayRef strides) {
  c10::TensorImpl* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_storage_offset(offset);
  if (strides.data()) {
    impl->set_sizes_and_strides(sizes, strides);
  } else {
    impl->set_sizes_contiguous(sizes);
  }
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source) {
  const auto numel = static_cast<int64_t>(source.nbytes() / self.dtype().itemsize());
  return set_storage_with_strides(self, std::move(source), 0, {numel}, {});
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  return set_storage_with_strides(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

void record_stream(at::Tensor& self, at::Stream stream) {
  c10::impl::VirtualGuardImpl(kType).recordDataPtrOnStream(self.storage().data_ptr(), stream);
}

// ---- copies

// CUDA's rules. One transfer between host and device moves contiguous elements of one type. Whatever else is asked for
// needs temporaries: types are converted on the device when the copy is non-blocking, else on the host. Only a
// non-blocking copy to or from pinned memory lets the host go on.

char* address(const at::Tensor& tensor) { return static_cast<char*>(HostViews().of(tensor).data_ptr()); }

void transfer_to_host(const at::Tensor& host, const at::Tensor& source, bool non_blocking) {
  Operation operation("copy_ to the host", source.device());
  operation.reads(source);
  const char* bytes = address(source);
  if (!non_blocking || !is_pinned(host.data_ptr())) {
    operation.synchronize(&Counts::blocking_copies_to_host);
    std::memcpy(host.data_ptr(), bytes, host.nbytes());
    return;
  }
  // Who reads the picture before a query or a wait told this thread that it is there shall see that it is not.
  Driver::instance().count(&Counts::async_copies_to_host);
  constexpr int kNotYetThere = 0xCD;
  std::vector<char> arriving(bytes, bytes + host.nbytes());
  std::memset(host.data_ptr(), kNotYetThere, host.nbytes());
  Driver::instance().land_later(operation.place(), [host, arriving = std::move(arriving)] {
    std::memcpy(host.data_ptr(), arriving.data(), arriving.size());
  });
}

void transfer_to_device(const at::Tensor& destination, const at::Tensor& host, bool non_blocking) {
  Operation operation("copy_ from the host", destination.device());
  operation.writes(destination);
  if (non_blocking && is_pinned(host.data_ptr())) {
    Driver::instance().count(&Counts::async_copies_to_device);
  } else {
    operation.synchronize(&Counts::blocking_copies_to_device);
  }
  std::memcpy(address(destination), host.data_ptr(), host.nbytes());
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.is_conj() == b.is_conj() && a.is_neg() == b.is_neg();
}

void copy_between_host_and_device(const at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  const bool converts_source = non_blocking == on_device(source);
  at::Tensor from = source;
  if (converts_source) from = from.to(self.scalar_type());
  from = from.expand_as(self).contiguous();
  if (!same_bits(self, from)) from = from.resolve_conj().resolve_neg();

  const bool direct = self.is_contiguous() && same_bits(self, from);
  const at::Tensor to =
      direct ? self : at::empty(self.sizes(), self.options().dtype(from.scalar_type()).memory_format(c10::nullopt));
  if (on_device(source)) {
    transfer_to_host(to, from, non_blocking);
  } else {
    transfer_to_device(to, from, non_blocking);
  }
  if (!direct) self.copy_(to);
}

void copy_on_device(const at::Tensor& self, const at::Tensor& source) {
  // Between devices the source's stream copies, and the streams of both ends wait for each other.
  const Timeline from = current_timeline(source.device());
  const Timeline to = current_timeline(self.device());
  Driver::instance().order_after(from, to);
  Operation operation("aten::copy_", source.device());
  operation.reads(source);
  operation.writes(self);
  HostViews views;
  views.of(self).copy_(views.of(source));
  Driver::instance().order_after(to, from);
}

at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  if (self.numel() == 0 || self.is_same(source)) return self;
  if (on_device(self) && on_device(source)) {
    copy_on_device(self, source);
  } else {
    copy_between_host_and_device(self, source, non_blocking);
  }
  return self;
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& destination, bool non_blocking) {
  at::Tensor to = destination;
  return copy_(to, self, non_blocking);
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& destination) {
  destination.resize_(self.sizes());
  return copy_from(self, destination, false);
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  Operation operation("item()", self.device());
  operation.reads(self);
  operation.synchronize(&Counts::items);
  return at::_local_scalar_dense(HostViews().of(self));
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("resize_", TORCH_FN(resize_));
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage_with_strides));
  library.impl("set_.source_Storage", TORCH_FN(set_storage));
  library.impl("set_.source_Tensor", TORCH_FN(set_tensor));
  library.impl("record_stream", TORCH_FN(record_stream));
  library.impl("copy_", TORCH_FN(copy_));
  library.impl("_copy_from", TORCH_FN(copy_from));
  library.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  library.impl("_local_scalar_dense", TORCH_FN(local_scalar_dense));
}

}  // namespace
}  // namespace fake_device
