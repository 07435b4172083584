#include "operation.h"

#include <utility>

#include "memory.h"

namespace fake_device {
namespace {

// The bytes of its storage from a tensor's first element to its last; those between its elements count as well.
std::pair<int64_t, int64_t> extent(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return {0, 0};
  int64_t last = tensor.storage_offset();
  for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  const auto item_bytes = static_cast<int64_t>(tensor.dtype().itemsize());
  return {tensor.storage_offset() * item_bytes, (last + 1) * item_bytes};
}

}  // namespace

Operation::Operation(std::string name, c10::Device device)
    : name_(std::move(name)), place_(Driver::instance().enqueue(current_timeline(device))) {}

void Operation::touch(const at::Tensor& tensor, bool writes) {
  Block* block = block_of(tensor);
  const auto [begin, end] = extent(tensor);
  if (!block || begin == end) return;
  const Access access{begin, end, place_.stream, place_.tick, writes, name_};
  std::vector<std::string> races;
  {
    std::lock_guard<std::mutex> lock(block->mutex);
    races = block->accesses.add(access, place_.known);
  }
  Driver::instance().report(races);
}

void Operation::synchronize(int64_t Counts::*kind) const {
  Driver::instance().wait(Driver::instance().tail(place_.stream), kind, name_);
}

}  // namespace fake_device
