// The copies of gather() for tensors in this process's memory: loops that wait for nothing but memory itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "beholder/plan.h"

namespace beholder {

/// The copy of a box: which memory goes where, decided once for many copies. Dimensions that lie behind each other in
/// memory are joined.
struct BoxCopy {
  static constexpr size_t kMostDims = 4;
  int64_t sizes[kMostDims] = {}, strides[kMostDims] = {};  ///< in elements, outermost first
  int64_t offset = 0;                                      ///< in bytes from the tensor's first value
  int64_t item_size = 0;                                   ///< bytes
  size_t rank = 0;
};

/// Nothing where the section is no box, or has more dimensions.
std::optional<BoxCopy> box_copy_of(const StagedSection& staged, int64_t item_size);

/// Copies it to `to`, contiguously. `from`: the tensor's first value.
void copy_box(const BoxCopy& copy, const char* from, char* to);

/// Where a tensor's values begin. (data_ptr() would make a copy-on-write tensor copy itself.)
inline const char* values_of(const at::Tensor& tensor) {
  return static_cast<const char*>(tensor.storage().data()) +
         tensor.storage_offset() * static_cast<int64_t>(tensor.element_size());
}

/// Copies the section's values of `tensor` (strided, on the CPU, of any dtype) into `target` (contiguous, of the same
/// dtype, staged.count elements), and touches nothing else. REQUIRES the tensor's sizes and strides to be the plan's.
/// Training thread.
void gather_on_cpu(const StagedSection& staged, const at::Tensor& tensor, const at::Tensor& target);

/// The same for a tensor of other strides, or of fewer elements in some dimension, than `planned`, the sizes that the
/// plan knows: values that it does not have are left as they are in `target`.
void gather_part_on_cpu(const Selection& selection, const std::vector<int64_t>& planned, const at::Tensor& tensor,
                        const at::Tensor& target);

}  // namespace beholder
