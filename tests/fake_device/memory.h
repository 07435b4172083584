// Device memory and pinned memory, both on the heap. A device pointer is the heap pointer with one bit flipped that no
// mapped address has: host code that dereferences it dies with SIGSEGV, as it would with a real accelerator.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>

#include <cstddef>
#include <mutex>
#include <set>

#include "clocks.h"

namespace fake_device {

/// One allocation on a device; owned by its storage's DataPtr.
struct Block {
  void* bytes;  // the heap address
  size_t size;
  Timeline owner;  // the current stream at the time of allocation
  std::mutex mutex;
  AccessLog accesses;            // guarded by mutex
  std::set<Timeline> announced;  // by record_stream; guarded by mutex
};

/// Allocates on the calling thread's current device and stream.
c10::Allocator* device_allocator();
c10::Allocator* pinned_allocator();

/// The block behind a pointer or a tensor; null when it is not device memory, or empty.
Block* block_of(const c10::DataPtr& pointer);
Block* block_of(const at::Tensor& tensor);

/// Whether `pointer` lies in pinned memory.
bool is_pinned(const void* pointer);

}  // namespace fake_device
