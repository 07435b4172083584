#include "beholder/section.h"

namespace beholder {
namespace {

// An Array of rank 4 is read as kernels up to 11 x 11, the largest kernels in use; larger planes are feature maps.
constexpr int64_t kLargestKernel = 121;

}  // namespace

const char* to_string(Kind kind) {
  switch (kind) {
    case Kind::Vector: return "vector";
    case Kind::LinearWeight: return "linear weight";
    case Kind::EmbeddingWeight: return "embedding weight";
    case Kind::ConvWeight: return "convolution weight";
    case Kind::ConvTransposeWeight: return "transposed convolution weight";
    case Kind::OtherParameter: return "parameter";
    case Kind::Activation: return "activation";
    case Kind::Array: return "array";
    case Kind::Frame: return "frame";
  }
  return "array";
}

Kind resolve_kind(Kind kind, const std::vector<int64_t>& shape) {
  if (shape.size() <= 1) return Kind::Vector;
  if (kind == Kind::Array && shape.size() == 4)
    return shape[2] * shape[3] <= kLargestKernel ? Kind::ConvWeight : Kind::Activation;
  return kind;
}

int64_t TensorShape::numel() const {
  int64_t count = 1;
  for (int64_t extent : shape) count *= extent;
  return count;
}

int64_t Selection::size() const {
  if (box.empty()) return static_cast<int64_t>(outer.size() * inner.size());
  int64_t count = 1;
  for (const Range& range : box) count *= range.count;
  return count;
}

int64_t Selection::element(int64_t position, const std::vector<int64_t>& shape) const {
  if (box.empty()) {
    const int64_t columns = static_cast<int64_t>(inner.size());
    return outer[position / columns] + inner[position % columns];
  }
  int64_t index = 0, stride = 1;
  for (size_t dim = box.size(); dim-- > 0;) {
    index += (box[dim].start + position % box[dim].count * box[dim].step) * stride;
    position /= box[dim].count;
    stride *= shape[dim];
  }
  return index;
}

}  // namespace beholder
