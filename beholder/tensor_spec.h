// What a plan knows of a tensor, and whether a tensor that comes later has a place in it. Internal.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "beholder/section.h"
#include "beholder/tensors.h"

namespace beholder {

/// How a tensor fits the place that was made for one of its name.
enum class Fit {
  Whole,   ///< as planned
  Part,    ///< smaller in some dimension, or other strides: what there is of it goes to where it belongs
  Larger,  ///< in some dimension: a Part, as far as its place goes, until there is a larger one
  Absent,  ///< it has no values this time
  Misfit,  ///< another place is needed: another dtype, device or rank, or it can be shown at last
};

/// Whether such a tensor is gathered, and whether it needs another place.
inline bool is_gathered(Fit fit) { return fit == Fit::Whole || fit == Fit::Part || fit == Fit::Larger; }
inline bool needs_place(Fit fit) { return fit == Fit::Larger || fit == Fit::Misfit; }

/// What a plan must know of a tensor.
struct TensorSpec {
  std::string name, module;
  Kind kind = Kind::Array;   ///< by which it is read at these sizes
  Kind asked = Kind::Array;  ///< as it was given
  bool tap = false;
  /// Its name came once at most. While it is missing, one whose name is new may stand in its place.
  bool passing = false;
  std::vector<int64_t> sizes, strides;  ///< strides are empty where the layout is not strided
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  c10::Device device = c10::Device(c10::kCPU);
  bool dense = true;    ///< strided and plain; else (sparse, quantized, at times) it is made dense at each capture
  std::string refusal;  ///< not empty: why it cannot be shown ("empty", "meta tensor: it has no values", ...)

  int64_t numel() const;
  /// The kind by which the candidate would be planned is this one. (Sizes may turn kernels into feature maps.)
  bool same_kind(const Candidate& candidate) const;
  /// Names are not compared. A Part may still be one that a device cannot gather: capture.h knows.
  Fit fit(const Candidate& candidate) const;
  /// Of the same kind, and as it is now.
  bool still_true(const Candidate& candidate) const { return fit(candidate) == Fit::Whole; }
};

/// Describes a candidate. Reads no values.
TensorSpec describe(const Candidate& candidate);

/// A place for both, by the newer's name: as large as the larger in each dimension. `newer` itself where they cannot
/// share one.
TensorSpec place_for_both(const TensorSpec& older, TensorSpec newer);

/// Why a tensor is left out after its gather has failed.
std::string unreadable(const std::exception& error);

/// Leaves out those of a dtype that LibTorch does not convert where they lie. See can_narrow(), which it asks: for the
/// render thread. describe() knows it from then on.
void refuse_what_does_not_narrow(std::vector<TensorSpec>& specs);

/// What can be read as it lies in memory.
bool is_plain(const at::Tensor& tensor);

/// Strides, in elements, of a contiguous tensor of these sizes.
std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& sizes);

}  // namespace beholder
