#include "memory.h"

#include <ATen/EmptyTensor.h>
#include <torch/version.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>

#include "driver.h"

#if TORCH_VERSION_MAJOR < 2
#define ALLOCATE_QUALIFIER const
#else
#define ALLOCATE_QUALIFIER
#endif

namespace fake_device {
namespace {

// Outside the 47 bits of user space on x86-64 and, unlike the uppermost byte, not ignored on ARM.
constexpr uintptr_t kDeviceBit = uintptr_t{1} << 54;

// What fresh memory holds: large negative floats, and not zero, which would look like a result.
constexpr int kGarbage = 0xFA;

std::atomic<int64_t> live[kDeviceCount];

void* aligned_bytes(size_t size) {
  constexpr size_t kAlignment = 64;
  void* bytes = std::aligned_alloc(kAlignment, (size + kAlignment - 1) / kAlignment * kAlignment);
  if (!bytes) throw std::bad_alloc();
  std::memset(bytes, kGarbage, size);
  return bytes;
}

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  if (!block) return;
  Driver& driver = Driver::instance();
  // The last owner frees: nobody else holds the block's mutex any more.
  driver.report(block->accesses.free(block->owner, driver.known_at_free(block->owner), block->announced));
  live[block->owner / kStreamsPerDevice] -= static_cast<int64_t>(block->size);
  std::free(block->bytes);
  delete block;
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) ALLOCATE_QUALIFIER override {
    const c10::Device current = device(this_thread().device);
    if (size == 0) return {nullptr, nullptr, &free_block, current};
    auto* block = new Block{aligned_bytes(size), size, current_timeline(current), {}, {}, {}};
    Driver& driver = Driver::instance();
    driver.count(&Counts::device_allocations);
    driver.count(&Counts::device_bytes, static_cast<int64_t>(size));
    live[current.index()] += static_cast<int64_t>(size);
    auto* pointer = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(block->bytes) ^ kDeviceBit);
    return {pointer, block, &free_block, current};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }  // a pointer does not lead to its block
#if TORCH_VERSION_MAJOR >= 2
  void copy_data(void*, const void*, size_t) const override {
    TORCH_CHECK(false, "fake device: copy_data is not implemented");  // used by copy-on-write storages alone
  }
#endif
};

// The pinned allocations that live, by address.
class PinnedRegions {
 public:
  static PinnedRegions& instance() {
    static auto* regions = new PinnedRegions;  // never destroyed: it outlives static tensors
    return *regions;
  }
  void add(const void* pointer, size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    sizes_[static_cast<const char*>(pointer)] = size;
  }
  void remove(const void* pointer) {
    std::lock_guard<std::mutex> lock(mutex_);
    sizes_.erase(static_cast<const char*>(pointer));
  }
  bool contain(const void* pointer) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto* address = static_cast<const char*>(pointer);
    auto next = sizes_.upper_bound(address);
    if (next == sizes_.begin()) return false;
    const auto& [begin, size] = *std::prev(next);
    return address < begin + size;
  }

 private:
  std::mutex mutex_;
  std::map<const char*, size_t> sizes_;  // guarded by mutex_
};

void free_pinned(void* pointer) {
  if (!pointer) return;
  PinnedRegions::instance().remove(pointer);
  std::free(pointer);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) ALLOCATE_QUALIFIER override {
    if (size == 0) return {nullptr, nullptr, &free_pinned, c10::kCPU};
    void* bytes = aligned_bytes(size);
    PinnedRegions::instance().add(bytes, size);
    Driver::instance().count(&Counts::pinned_allocations);
    return {bytes, bytes, &free_pinned, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
#if TORCH_VERSION_MAJOR >= 2
  void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }
#endif
};

const bool registered = (c10::SetAllocator(kType, device_allocator()), true);

}  // namespace

c10::Allocator* device_allocator() {
  static auto* allocator = new DeviceAllocator;
  return allocator;
}

c10::Allocator* pinned_allocator() {
  static auto* allocator = new PinnedAllocator;
  return allocator;
}

Block* block_of(const c10::DataPtr& pointer) {
  return pointer.get_deleter() == &free_block ? static_cast<Block*>(pointer.get_context()) : nullptr;
}

Block* block_of(const at::Tensor& tensor) { return block_of(tensor.storage().unsafeGetStorageImpl()->data_ptr()); }

bool is_pinned(const void* pointer) { return PinnedRegions::instance().contain(pointer); }

int64_t live_bytes(c10::DeviceIndex index) { return index >= 0 ? live[index].load() : live[0].load() + live[1].load(); }

at::Tensor pinned_empty(c10::IntArrayRef sizes, c10::ScalarType dtype) {
  return at::detail::empty_generic(sizes, pinned_allocator(), c10::DispatchKeySet(c10::DispatchKey::CPU), dtype,
                                   c10::nullopt);
}

}  // namespace fake_device
