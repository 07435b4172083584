// The copies of gather() for tensors in this process's memory: loops that wait for nothing but memory itself.
#pragma once

#include "beholder/plan.h"

namespace beholder {

/// Copies the section's values of `tensor` (strided, on the CPU, of any dtype) into `target` (contiguous, of the same
/// dtype, staged.count elements), and touches nothing else. REQUIRES the tensor's sizes and strides to be the plan's.
/// Training thread.
void gather_on_cpu(const StagedSection& staged, const at::Tensor& tensor, const at::Tensor& target);

/// The same for a tensor of other strides, or of fewer elements in some dimension, than `planned`, the sizes that the
/// plan knows: values that it does not have are left as they are in `target`.
void gather_part_on_cpu(const Selection& selection, const std::vector<int64_t>& planned, const at::Tensor& tensor,
                        const at::Tensor& target);

}  // namespace beholder
