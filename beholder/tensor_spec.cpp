#include "beholder/tensor_spec.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Layout.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "beholder/narrowing.h"
#include "beholder/numbers.h"

namespace beholder {
namespace {

/// No more elements than kMostElements. REQUIRES sizes above 0.
bool fits_geometry(const std::vector<int64_t>& sizes) {
  int64_t room = kMostElements;
  for (const int64_t size : sizes) room /= size;
  return room > 0;
}

bool is_picture(const std::vector<int64_t>& sizes) { return sizes.size() == 2 || (sizes.size() == 3 && sizes[0] == 3); }

/// LibTorch has numbers of it. (What it only stores, such as Bits8, are none.) Whether it converts them, which it does
/// not do with all, is tried.
bool holds_numbers(c10::ScalarType dtype) {
  return c10::isIntegralType(dtype, /*includeBool=*/true) || c10::isFloatingType(dtype) || c10::isComplexType(dtype) ||
         c10::isQIntType(dtype);
}

/// (Quantized ones are made dense before they are converted.)
std::string does_not_narrow(const TensorSpec& spec) {
  return std::string("of a dtype that LibTorch does not convert to float32 on such a device, ") +
         c10::toString(spec.dtype) + " on " + spec.device.str();
}

}  // namespace

void refuse_what_does_not_narrow(std::vector<TensorSpec>& specs) {
  for (auto& spec : specs) {
    if (!spec.refusal.empty() || c10::isQIntType(spec.dtype)) continue;
    if (!can_narrow(spec.dtype, spec.device)) spec.refusal = does_not_narrow(spec);
  }
}

/// A nested tensor says that it is strided, and has neither sizes nor strides; one of zeros has no memory.
bool is_plain(const at::Tensor& tensor) {
  return tensor.layout() == c10::kStrided && !tensor.is_quantized() && !tensor.is_neg() && !tensor.is_nested() &&
         !tensor._is_zerotensor();
}

std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= sizes[d];
  }
  return strides;
}

int64_t TensorSpec::numel() const {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

bool TensorSpec::same_kind(const Candidate& candidate) const {
  if (!refusal.empty() || !candidate.tensor.defined() || asked == candidate.kind) return true;
  return kind == Kind::Vector && candidate.tensor.dim() <= 1;
}

Fit TensorSpec::fit(const Candidate& candidate) const {
  const at::Tensor& tensor = candidate.tensor;
  if (!tensor.defined()) {
    if (dtype == c10::ScalarType::Undefined) return Fit::Whole;
    return candidate.expected && refusal.empty() ? Fit::Absent : Fit::Misfit;
  }
  if (tensor.scalar_type() != dtype || tensor.device() != device) return Fit::Misfit;
  if (!refusal.empty() || candidate.refusal) {
    return describe(candidate).refusal == refusal ? Fit::Whole : Fit::Misfit;
  }
  if (tensor.is_nested()) return Fit::Misfit;
  const c10::IntArrayRef found = tensor.sizes();
  if (dense && !is_plain(tensor)) return Fit::Misfit;
  if (found == c10::IntArrayRef(sizes)) {
    if (!dense) return Fit::Whole;
    return tensor.strides() == c10::IntArrayRef(strides) ? Fit::Whole : Fit::Part;
  }
  // A parameter of another size is another parameter.
  if (!candidate.may_vary || found.size() != sizes.size()) return Fit::Misfit;
  if (kind == Kind::Frame && !is_picture(found.vec())) return Fit::Misfit;
  if (std::count(found.begin(), found.end(), 0) > 0) return Fit::Absent;
  for (size_t d = 0; d < found.size(); ++d) {
    if (found[d] > sizes[d]) return Fit::Larger;
  }
  return Fit::Part;
}

TensorSpec place_for_both(const TensorSpec& older, TensorSpec newer) {
  if (!older.refusal.empty()) return newer;
  // Nothing this time: it keeps the place that it has.
  if (newer.refusal == "undefined" || newer.refusal == "empty") return older;
  const bool same_kind = older.asked == newer.asked || older.kind == newer.kind;
  if (!newer.refusal.empty() || !same_kind || older.tap != newer.tap || older.dtype != newer.dtype ||
      older.device != newer.device || older.sizes.size() != newer.sizes.size()) {
    return newer;
  }
  std::vector<int64_t> sizes = newer.sizes;
  for (size_t d = 0; d < sizes.size(); ++d) sizes[d] = std::max(sizes[d], older.sizes[d]);
  if (!fits_geometry(sizes)) return newer;
  if (!older.dense || !newer.dense) {  // what is dense goes into such a place as well
    newer.dense = false;
    newer.strides.clear();
  } else if (sizes != newer.sizes) {
    newer.strides = sizes == older.sizes ? older.strides : contiguous_strides(sizes);
  }
  newer.kind = resolve_kind(newer.asked, sizes);
  newer.sizes = std::move(sizes);
  return newer;
}

std::string unreadable(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);  // whose what() may look up a backtrace
  const std::string text = of_torch ? of_torch->what_without_backtrace() : error.what();
  return "cannot be read: " + text.substr(0, std::min<size_t>(text.find('\n'), 200));
}

TensorSpec describe(const Candidate& candidate) {
  TensorSpec spec;
  spec.name = *candidate.name;
  if (candidate.module) spec.module = *candidate.module;
  spec.kind = spec.asked = candidate.kind;
  spec.tap = candidate.tap;
  const at::Tensor& tensor = candidate.tensor;
  if (!tensor.defined()) {
    spec.refusal = "undefined";
    return spec;
  }
  spec.dtype = tensor.scalar_type();
  spec.device = tensor.device();
  if (candidate.refusal) {
    spec.refusal = *candidate.refusal;
    return spec;
  }
  constexpr const char* kNoSizes = "of a layout that has no sizes";
  if (tensor.is_nested()) {
    spec.refusal = kNoSizes;
    return spec;
  }
  try {
    spec.sizes = tensor.sizes().vec();
    if (tensor.is_meta()) {
      spec.refusal = "a meta tensor, which has no values";
    } else if (!holds_numbers(spec.dtype)) {
      spec.refusal = std::string("of a dtype that holds no numbers, ") + c10::toString(spec.dtype);
    } else if (!c10::isQIntType(spec.dtype) && !may_narrow(spec.dtype, spec.device.type())) {
      spec.refusal = does_not_narrow(spec);
    } else if (std::count(spec.sizes.begin(), spec.sizes.end(), 0) > 0) {
      spec.refusal = "empty";
    } else if (!fits_geometry(spec.sizes)) {
      spec.refusal = "more than 2^48 elements";
    } else if (is_plain(tensor)) {
      spec.strides = tensor.strides().vec();
    } else {
      spec.dense = false;
    }
    if (spec.refusal.empty() && spec.kind == Kind::Frame && !is_picture(spec.sizes)) {
      PlainStream found;
      found << tensor.sizes();
      spec.refusal = "a frame is (H, W) or (3, H, W); found " + found.str();
    }
    if (spec.refusal.empty()) spec.kind = resolve_kind(spec.kind, spec.sizes);
  } catch (const std::exception&) {  // exotic ones
    spec.refusal = kNoSizes;
  }
  return spec;
}

}  // namespace beholder
