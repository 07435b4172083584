// A tensor with a name, as a user hands it over, and what geometry must know about it.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "beholder/section.h"
#include "beholder/settings.h"  // before Arrays: GCC warns of Values::Arrays where it comes after it

namespace beholder {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;  ///< any rank, dtype, device, layout
  Kind kind = Kind::Array;
  std::string module{};  ///< tensors of one module stand together; may be empty
};

/// The user's arrays of one update(), in the order of their sections.
using Arrays = std::vector<NamedTensor>;

}  // namespace beholder
