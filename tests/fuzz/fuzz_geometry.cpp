// Fuzzes the geometry: any tensors, on any canvas, in each layout. Nothing overlaps, leaves the canvas or is lost, the
// order is kept, bounds are kept, and memory is used for what stands on the canvas alone.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "beholder/layout.h"
#include "beholder/section.h"
#include "fuzz.h"
#include "geometry_checks.h"

using namespace beholder;

namespace {

constexpr size_t kMostTensors = 24;
constexpr int kLargestCanvas = 1 << 13;  // Options::canvas_width and canvas_height allow no more

/// Small numbers by one byte, up to 2^62 by two; numbers of elements stay below `limit`.
int64_t read_extent(fuzz::Input& input, int64_t& limit) {
  const uint8_t first = input.byte();
  int64_t extent = 1 + (first & 127);
  if (first & 128) extent = (int64_t{1} << (first & 63) % 62) + input.byte();
  extent = std::clamp<int64_t>(extent, 1, limit);
  limit /= extent;
  return extent;
}

TensorShape read_tensor(fuzz::Input& input, size_t number) {
  TensorShape tensor;
  const uint8_t first = input.byte();
  tensor.kind = static_cast<Kind>(first % 9);
  // "a", "aa", ... of any length, in modules of several tensors.
  tensor.name = std::string(1 + first / 9, static_cast<char>('a' + number % 26));
  const uint8_t second = input.byte();
  size_t rank = second % 8;
  if (rank == 7) rank = 1 + input.byte() % 64;
  if (second & 128) tensor.module = "m" + std::to_string((second >> 3) % 16);
  int64_t limit = kMostElements;
  for (size_t dim = 0; dim < rank; ++dim) tensor.shape.push_back(read_extent(input, limit));
  return tensor;
}

double read_double(fuzz::Input& input) {
  const uint8_t first = input.byte();
  if (first < 250) return first / 50.0;
  const uint64_t bits = input.number(8);  // any, infinities and NaN among them
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// Of the canvas: small ones as often as large ones.
int read_side(fuzz::Input& input) {
  const auto side = static_cast<int>(input.number(2));
  return 1 + ((side & (kLargestCanvas - 1)) >> (side >> 13));
}

void check(const Layout& layout, const std::vector<TensorShape>& tensors) {
  const std::string wrong = geometry_checks::wrong_layout(layout, tensors);
  if (!wrong.empty()) fuzz::found(wrong);
  fuzz::expect(layout.page >= 0 && layout.page < layout.pages, "no such page");
}

/// What a layout may need: its sections' edges, on which each row of pixels knows its index in every dimension, and a
/// little for each tensor.
int64_t allowed_bytes(const Layout& layout, const std::vector<TensorShape>& tensors) {
  int64_t bytes = (1 << 20) + 8192 * static_cast<int64_t>(tensors.size());
  for (const Section& section : layout.sections) {
    const auto rank = static_cast<int64_t>(tensors[section.tensor].shape.size());
    bytes += (256 + 64 * rank) * (section.picture.width + section.picture.height);
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  const uint8_t kind = input.byte();
  const bool show_all = kind & 128;
  const int width = read_side(input), height = read_side(input);
  const int page = static_cast<int16_t>(input.number(2));
  int64_t max_values = input.number(1) % 32 == 0 ? 0 : static_cast<int64_t>(1 + input.number(3));
  const double zoom = read_double(input), pan_x = read_double(input), pan_y = read_double(input);
  std::vector<TensorShape> tensors;
  while (input.left() > 0 && tensors.size() < kMostTensors) tensors.push_back(read_tensor(input, tensors.size()));
  bool frames = false;
  for (const TensorShape& tensor : tensors) frames = frames || tensor.kind == Kind::Frame;

  fuzz::start_counting();
  Layout layout;
  std::vector<TensorShape> shown = tensors;
  if (kind % 3 == 0) {
    // The original's column is as large as its frames and, with show all, its tensors: Beholder always gives a bound.
    if (max_values == 0) max_values = 100000;
    layout = classic_layout(tensors, show_all, max_values);
    fuzz::expect(layout.sections.size() == tensors.size(), "classic lost a section");
    const auto count = static_cast<int64_t>(tensors.size());
    if (!frames) {
      fuzz::expect(int64_t{layout.width} * layout.height <= 4 * max_values + (count + 1) * 133 * 768,
                   "classic is larger than its bound");
    }
  } else if (kind % 3 == 1) {
    layout = fit_layout(tensors, width, height, show_all, page, max_values);
    fuzz::expect(layout.width == width && layout.height == height, "fit has another canvas");
    const std::string unlike = geometry_checks::wrong_equals(layout, tensors);
    fuzz::expect(unlike.empty(), unlike.c_str());
  } else {
    if (tensors.empty()) return 0;
    shown.resize(1);
    layout = solo_layout(tensors[0], width, height, show_all, zoom, pan_x, pan_y, max_values);
    fuzz::expect(layout.width == width && layout.height == height, "solo has another canvas");
    fuzz::expect(layout.sections.size() == 1, "solo shows one section");
  }
  fuzz::expect_at_most(allowed_bytes(layout, tensors));
  check(layout, shown);
  if (max_values > 0) {
    // At least one value of each, three of a frame with colours.
    const int64_t least = 3 * static_cast<int64_t>(layout.sections.size());
    fuzz::expect(geometry_checks::values_of(layout) <= std::max(max_values, least), "more values than the bound");
  }
  if (kind % 3 != 1) return 0;

  // All pages together: every section once, in order.
  size_t next = 0;
  for (int k = 0; k < layout.pages; ++k) {
    const Layout one = fit_layout(tensors, width, height, show_all, k, max_values);
    check(one, tensors);
    fuzz::expect(one.page == k && one.pages == layout.pages && one.first_section == next, "pages do not follow");
    fuzz::expect(tensors.empty() || !one.sections.empty(), "an empty page");
    next += one.sections.size();
  }
  fuzz::expect(next == tensors.size(), "a section is on no page");
  return 0;
}
