// The original's picture, pixel for pixel: one column of sections, each a matrix that is resized to its place by
// nearest neighbours. RENDERING.md, Part B, sections 4 to 6, and the exceptions of Part A.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "beholder/layout.h"

namespace beholder {
namespace {

constexpr int64_t kWidth = 768, kHeight = 128, kSeparator = 5;
constexpr int64_t kSmallestSquare = 3;
constexpr int64_t kValues = kHeight * (kWidth / kSmallestSquare);  // 32768: what block rows are cut to

// One loop over a dimension of the tensor, of which every step-th element is taken.
struct Loop {
  int dim;  // -1: not a dimension of the tensor (a flattened tensor)
  int64_t count, stride;
  int64_t step = 1;
};

// What runs down or across: loops, outermost first. Index ((i0 * n1) + i1) * n2 + i2.
struct Axis {
  std::vector<Loop> loops;

  int64_t size() const {
    int64_t count = 1;
    for (const Loop& loop : loops) count *= loop.count;
    return count;
  }
  int64_t offset(int64_t index) const {
    int64_t sum = 0;
    for (size_t k = loops.size(); k-- > 0;) {
      sum += index % loops[k].count * loops[k].stride * loops[k].step;
      index /= loops[k].count;
    }
    return sum;
  }
  int64_t largest_stride() const {
    int64_t largest = 0;
    for (const Loop& loop : loops)
      if (loop.count > 1) largest = std::max(largest, loop.stride);
    return largest;
  }
  // Takes every second element of the outermost loop that has more than one, so that blocks stay whole for long.
  bool thin() {
    for (Loop& loop : loops) {
      if (loop.count == 1) continue;
      loop.count = (loop.count + 1) / 2;
      loop.step *= 2;
      return true;
    }
    return false;
  }
};

// The original's section matrix: element (r, c) is the tensor's element rows.offset(r) + columns.offset(c).
struct Matrix {
  Axis rows, columns;
  std::string reading;
};

std::vector<int64_t> strides_of(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t dim = shape.size(); dim-- > 1;) strides[dim - 1] = strides[dim] * shape[dim];
  return strides;
}

Matrix matrix_of(const std::vector<int64_t>& shape, std::vector<int> rows, std::vector<int> columns,
                 std::string reading) {
  const std::vector<int64_t> strides = strides_of(shape);
  Matrix matrix;
  for (int dim : rows) matrix.rows.loops.push_back({dim, shape[dim], strides[dim]});
  for (int dim : columns) matrix.columns.loops.push_back({dim, shape[dim], strides[dim]});
  matrix.reading = std::move(reading);
  return matrix;
}

// The original's rule, with its factor of block rows where block columns were meant: append block row i, then stop when
// i * block height * block width * block rows >= 32768.
void cut_block_rows(Matrix& matrix, int64_t block_height, int64_t block_width) {
  int64_t& blocks = matrix.rows.loops.front().count;
  const int64_t step = block_height * block_width * blocks;
  blocks = std::min(blocks, (kValues + step - 1) / step + 1);
}

Matrix flattened(int64_t numel, int64_t height, int64_t width, bool show_all) {
  const double area = static_cast<double>(height) * static_cast<double>(width);  // may be more than 64 bits hold
  const int64_t count = show_all ? numel : std::min(numel, height * width / 3);
  const double square = std::floor(std::sqrt(area / static_cast<double>(count)));
  const int64_t side = std::max<int64_t>(1, static_cast<int64_t>(square));
  const int64_t rows = std::clamp<int64_t>(height / side, 1, count);
  const int64_t columns = count / rows;
  Matrix matrix;
  matrix.rows.loops = {{-1, rows, columns}};
  matrix.columns.loops = {{-1, columns, 1}};
  matrix.reading = "flattened, in the order of memory";
  return matrix;
}

bool is_flattened(Kind kind, size_t rank) {
  if (rank == 3) return kind != Kind::Activation;
  if (rank == 4) return kind != Kind::ConvWeight && kind != Kind::ConvTransposeWeight && kind != Kind::Activation;
  return rank > 4;
}

// Every kind but those that are flattened; kernels and activations with all their block rows.
Matrix whole_matrix(Kind kind, const std::vector<int64_t>& shape) {
  if (shape.empty()) return matrix_of(shape, {}, {}, "one value");
  if (shape.size() == 1) return matrix_of(shape, {}, {0}, "a vector");
  if (shape.size() == 3)
    return matrix_of(shape, {0, 1}, {2}, "rows: tokens of one sample after the other, columns: channels");
  if (shape.size() == 4) {
    if (kind == Kind::ConvTransposeWeight)
      return matrix_of(shape, {0, 2}, {1, 3}, "rows of kernels: input channels, columns: output channels");
    if (kind == Kind::ConvWeight)
      return matrix_of(shape, {1, 2}, {0, 3}, "rows of kernels: input channels, columns: output channels");
    return matrix_of(shape, {0, 2}, {1, 3}, "rows of maps: samples, columns: channels");
  }
  if (kind == Kind::LinearWeight) return matrix_of(shape, {1}, {0}, "rows: inputs, columns: outputs");
  if (kind == Kind::EmbeddingWeight) return matrix_of(shape, {0}, {1}, "rows: vocabulary, columns: dimensions");
  if (kind == Kind::Activation) return matrix_of(shape, {0}, {1}, "rows: samples, columns: channels");
  return matrix_of(shape, {0}, {1}, "rows: first index, columns: second index");
}

void cut_rows(Matrix& matrix, const std::vector<int64_t>& shape) {
  if (shape.size() == 4) cut_block_rows(matrix, shape[2], shape[3]);
  // Our own case, without an original: as many whole samples as a section has rows of pixels, so that no token is lost.
  if (shape.size() == 3) {
    int64_t& samples = matrix.rows.loops.front().count;
    samples = std::min(samples, std::max<int64_t>(1, kHeight / shape[1]));
  }
}

Range regular_range(const std::vector<int64_t>& values, bool& regular) {
  Range range{values.front(), 1, static_cast<int64_t>(values.size())};
  if (values.size() > 1) range.step = values[1] - values[0];
  for (size_t k = 0; k < values.size(); ++k)
    regular = regular && values[k] == range.start + static_cast<int64_t>(k) * range.step;
  return range;
}

// Writes into `box` what the indices (ascending) select, when that is a product of regular ranges, one per loop.
bool as_ranges(const Axis& axis, const std::vector<int64_t>& indices, std::vector<Range>& box) {
  int64_t inner = axis.size(), product = 1;
  bool regular = true;
  for (const Loop& loop : axis.loops) {
    if (loop.dim < 0) return false;
    inner /= loop.count;
    std::vector<int64_t> values;
    for (int64_t index : indices) values.push_back(index / inner % loop.count * loop.step);
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    box[loop.dim] = regular_range(values, regular);
    product *= box[loop.dim].count;
  }
  return regular && product == static_cast<int64_t>(indices.size());
}

// Position, within the box, of each of the product's indices along one axis.
std::vector<int64_t> box_positions(const Axis& axis, const std::vector<int64_t>& indices,
                                   const std::vector<Range>& box) {
  std::vector<int64_t> counts;
  for (const Range& range : box) counts.push_back(range.count);
  const std::vector<int64_t> strides = strides_of(counts);
  std::vector<int64_t> positions;
  for (int64_t index : indices) {
    int64_t position = 0;
    for (size_t k = axis.loops.size(); k-- > 0;) {
      const Loop& loop = axis.loops[k];
      const Range& range = box[loop.dim];
      position += (index % loop.count * loop.step - range.start) / range.step * strides[loop.dim];
      index /= loop.count;
    }
    positions.push_back(position);
  }
  return positions;
}

std::vector<int64_t> offsets_of(const Axis& axis, const std::vector<int64_t>& indices) {
  std::vector<int64_t> offsets;
  for (int64_t index : indices) offsets.push_back(axis.offset(index));
  return offsets;
}

std::vector<int64_t> multiples(size_t count, int64_t factor) {
  std::vector<int64_t> values(count);
  for (size_t k = 0; k < count; ++k) values[k] = static_cast<int64_t>(k) * factor;
  return values;
}

// Columns (o, x) of kernels whose x lie next to each other in memory, inside the rows: gathered as o, then rows, then
// x, so that the copy runs along memory. Possible where every o shows the same x. Returns whether it was.
bool select_kernels(const Matrix& matrix, const std::vector<int64_t>& rows, const std::vector<int64_t>& columns,
                    Section& section) {
  if (matrix.columns.loops.size() < 2 || matrix.columns.loops.back().step != 1) return false;
  const int64_t width = matrix.columns.loops.back().count;
  std::vector<int64_t> kernels, across;
  for (int64_t column : columns) {
    if (kernels.empty() || kernels.back() != column / width) kernels.push_back(column / width);
    if (kernels.size() == 1) across.push_back(column % width);
  }
  if (kernels.size() * across.size() != columns.size()) return false;
  for (size_t k = 0; k < columns.size(); ++k) {
    if (columns[k] != kernels[k / across.size()] * width + across[k % across.size()]) return false;
  }
  for (int64_t kernel : kernels) section.selection.outer.push_back(matrix.columns.offset(kernel * width));
  for (int64_t row : rows) {
    for (int64_t x : across) section.selection.inner.push_back(matrix.rows.offset(row) + x);
  }
  const auto step = static_cast<int64_t>(across.size()), kernel_step = static_cast<int64_t>(rows.size()) * step;
  section.grid.row_position = multiples(rows.size(), step);
  for (size_t k = 0; k < columns.size(); ++k) {
    section.grid.column_position.push_back(static_cast<int64_t>(k) / step * kernel_step +
                                           static_cast<int64_t>(k) % step);
  }
  return true;
}

// Gathers the given rows and columns of the matrix, in the order of memory as far as possible.
void select(const Matrix& matrix, size_t rank, const std::vector<int64_t>& rows, const std::vector<int64_t>& columns,
            Section& section) {
  std::vector<Range> box(rank);
  if (rank > 0 && as_ranges(matrix.rows, rows, box) && as_ranges(matrix.columns, columns, box)) {
    section.grid.row_position = box_positions(matrix.rows, rows, box);
    section.grid.column_position = box_positions(matrix.columns, columns, box);
    section.selection.box = std::move(box);
    return;
  }
  const bool rows_outside = matrix.rows.largest_stride() >= matrix.columns.largest_stride();
  if (!rows_outside && select_kernels(matrix, rows, columns, section)) return;
  section.selection.outer = rows_outside ? offsets_of(matrix.rows, rows) : offsets_of(matrix.columns, columns);
  section.selection.inner = rows_outside ? offsets_of(matrix.columns, columns) : offsets_of(matrix.rows, rows);
  section.grid.row_position = multiples(rows.size(), rows_outside ? static_cast<int64_t>(columns.size()) : 1);
  section.grid.column_position = multiples(columns.size(), rows_outside ? 1 : static_cast<int64_t>(rows.size()));
}

// Which of `in` indices the resize shows (ascending), and for each pixel the number of the one that it shows.
std::vector<int64_t> shown_indices(int64_t in, int64_t out, std::vector<int32_t>& pixel_shows) {
  std::vector<int64_t> shown;
  for (int64_t index : resize_indices(in, out)) {
    if (shown.empty() || shown.back() != index) shown.push_back(index);
    pixel_shows.push_back(static_cast<int32_t>(shown.size() - 1));
  }
  return shown;
}

bool is_rgb(const std::vector<int64_t>& shape) { return shape.size() == 3 && shape[0] == 3; }
bool is_frame(Kind kind, const std::vector<int64_t>& shape) {
  return kind == Kind::Frame && (shape.size() == 2 || is_rgb(shape));
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t frame_values(const std::vector<int64_t>& shape, int64_t step) {
  return divide_up(shape[shape.size() - 2], step) * divide_up(shape.back(), step) * (is_rgb(shape) ? 3 : 1);
}

// The smallest step at which a frame has no more values than allowed (if at all).
int64_t frame_step(const std::vector<int64_t>& shape, int64_t max_values) {
  int64_t low = 1, high = std::max(shape[shape.size() - 2], shape.back());
  while (low < high) {  // larger steps never have more values
    const int64_t middle = low + (high - low) / 2;
    if (frame_values(shape, middle) > max_values)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// A frame is shown as it is, one pixel a value, or every step-th value.
Section frame_section(const std::vector<int64_t>& shape, int64_t step) {
  Section section;
  const Range rows{0, step, divide_up(shape[shape.size() - 2], step)}, columns{0, step, divide_up(shape.back(), step)};
  if (is_rgb(shape))
    section.selection.box = {{0, 1, 3}, rows, columns};
  else
    section.selection.box = {rows, columns};
  if (is_rgb(shape)) section.channel_stride = rows.count * columns.count;
  section.grid.row_position = multiples(static_cast<size_t>(rows.count), columns.count);
  section.grid.column_position = multiples(static_cast<size_t>(columns.count), 1);
  for (int row = 0; row < section.grid.rows(); ++row) section.row_at.push_back(row);
  for (int column = 0; column < section.grid.columns(); ++column) section.column_at.push_back(column);
  section.picture = {0, 0, section.grid.columns(), section.grid.rows()};
  section.reading = "the picture as it was given";
  section.complete = step == 1;
  section.sampled = step > 1;
  return section;
}

struct Limits {
  int64_t values = std::numeric_limits<int64_t>::max();   // of one section
  int64_t rows = std::numeric_limits<int64_t>::max();     // of one matrix, with show all
  int64_t columns = std::numeric_limits<int64_t>::max();  // of one matrix, with show all
};

// The sections' matrices and the size of their places, before anything is selected.
struct Sizes {
  std::vector<Matrix> matrices;  // empty axes for frames
  std::vector<int64_t> heights;
  std::vector<int64_t> frame_steps;  // 0: not a frame
  int64_t width = kWidth;
  int64_t values = 0;
  double pixels = 0;  // without a bound more than 64 bits hold
};

void thin_to(const Limits& limits, bool show_all, Matrix& matrix) {
  const auto shown_rows = [&] { return show_all ? matrix.rows.size() : std::min(matrix.rows.size(), kHeight); };
  const auto shown_columns = [&] { return show_all ? matrix.columns.size() : std::min(matrix.columns.size(), kWidth); };
  while (matrix.rows.size() > limits.rows && matrix.rows.thin()) {
  }
  while (matrix.columns.size() > limits.columns && matrix.columns.thin()) {
  }
  while (shown_rows() * shown_columns() > limits.values) {
    Axis& longer = matrix.rows.size() > matrix.columns.size() ? matrix.rows : matrix.columns;
    if (!longer.thin()) return;
  }
}

int64_t flattened_height(int64_t numel, bool show_all) {
  return show_all ? std::max(kHeight, numel / kWidth) : kHeight;
}

Sizes measure(const std::vector<TensorShape>& tensors, bool show_all, const Limits& limits) {
  Sizes sizes;
  const size_t count = tensors.size();
  sizes.matrices.resize(count);
  sizes.heights.assign(count, kHeight);
  sizes.frame_steps.assign(count, 0);
  std::vector<size_t> flat;
  for (size_t k = 0; k < count; ++k) {
    const std::vector<int64_t>& shape = tensors[k].shape;
    const Kind kind = resolve_kind(tensors[k].kind, shape);
    if (is_frame(kind, shape)) {
      sizes.frame_steps[k] = frame_step(shape, limits.values);
      sizes.values += frame_values(shape, sizes.frame_steps[k]);
      continue;
    }
    if (is_flattened(kind, shape.size())) {
      flat.push_back(k);
      continue;
    }
    sizes.matrices[k] = whole_matrix(kind, shape);
    if (!show_all) cut_rows(sizes.matrices[k], shape);
    thin_to(limits, show_all, sizes.matrices[k]);
    if (!show_all) continue;
    sizes.width = std::max(sizes.width, sizes.matrices[k].columns.size());
    sizes.heights[k] = std::max(kHeight, sizes.matrices[k].rows.size());
  }
  // The matrix of a flattened tensor depends on the width that the others need.
  for (size_t k : flat) {
    const int64_t height = std::min(flattened_height(tensors[k].numel(), show_all), std::max(kHeight, limits.rows));
    sizes.matrices[k] = flattened(tensors[k].numel(), height, sizes.width, show_all);
    thin_to(limits, show_all, sizes.matrices[k]);
    sizes.heights[k] = height;
  }
  for (size_t k = 0; k < count; ++k) {
    if (sizes.frame_steps[k] > 0) continue;
    sizes.values += std::min(sizes.matrices[k].rows.size(), sizes.heights[k]) *
                    std::min(sizes.matrices[k].columns.size(), sizes.width);
    sizes.pixels += static_cast<double>(sizes.heights[k] + kSeparator) * static_cast<double>(sizes.width);
  }
  return sizes;
}

// With a bound, sections are thinned until all values fit; with show all the picture's pixels are bounded as well,
// since one long vector makes every section as wide as itself.
Sizes measure_within(const std::vector<TensorShape>& tensors, bool show_all, int64_t max_values, bool& reduced) {
  Limits limits;
  Sizes sizes = measure(tensors, show_all, limits);
  if (max_values <= 0) return sizes;
  // In any order: another width is another matrix of a flattened tensor, and so another number of values.
  for (;; sizes = measure(tensors, show_all, limits)) {
    const int64_t tallest = sizes.heights.empty() ? 0 : *std::max_element(sizes.heights.begin(), sizes.heights.end());
    if (sizes.values > max_values && limits.values > 1) {
      limits.values = std::min(max_values, limits.values / 2);
    } else if (show_all && sizes.pixels > 4 * static_cast<double>(max_values) &&
               (sizes.width > kWidth || tallest > kHeight)) {
      if (sizes.width * kHeight >= tallest * kWidth)
        limits.columns = std::max(kWidth, sizes.width / 2);
      else
        limits.rows = std::max(kHeight, tallest / 2);
    } else {
      break;
    }
    reduced = true;
  }
  return sizes;
}

Section matrix_section(const Matrix& matrix, const TensorShape& tensor, int64_t height, int64_t width) {
  Section section;
  const std::vector<int64_t> rows = shown_indices(matrix.rows.size(), height, section.row_at);
  const std::vector<int64_t> columns = shown_indices(matrix.columns.size(), width, section.column_at);
  select(matrix, tensor.shape.size(), rows, columns, section);
  section.picture = {0, 0, static_cast<int>(width), static_cast<int>(height)};
  section.reading = matrix.reading;
  section.complete = section.selection.size() == tensor.numel();
  const auto thinned = [](const Axis& axis, size_t shown) {
    for (const Loop& loop : axis.loops)
      if (loop.step > 1) return true;
    return static_cast<int64_t>(shown) < axis.size();
  };
  section.sampled = thinned(matrix.rows, rows.size()) || thinned(matrix.columns, columns.size());
  return section;
}

}  // namespace

std::vector<int64_t> resize_indices(int64_t in, int64_t out) {
  std::vector<int64_t> indices(static_cast<size_t>(std::max<int64_t>(0, out)));
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  for (int64_t i = 0; i < out; ++i) {
    const float source = std::floor(static_cast<float>(i) * scale);
    indices[static_cast<size_t>(i)] = std::min(static_cast<int64_t>(source), in - 1);
  }
  return indices;
}

Layout classic_layout(const std::vector<TensorShape>& tensors, bool show_all, int64_t max_values) {
  bool reduced = false;
  const Sizes sizes = measure_within(tensors, show_all, max_values, reduced);
  Layout layout;
  layout.separators = true;
  layout.captions = CaptionDetail::None;
  layout.total_sections = tensors.size();
  layout.width = tensors.empty() ? static_cast<int>(kWidth) : 0;
  int64_t y = 0;
  for (size_t k = 0; k < tensors.size(); ++k) {
    Section section = sizes.frame_steps[k] > 0
                          ? frame_section(tensors[k].shape, sizes.frame_steps[k])
                          : matrix_section(sizes.matrices[k], tensors[k], sizes.heights[k], sizes.width);
    section.tensor = k;
    section.picture.y = static_cast<int>(y);
    section.area = section.picture;
    section.caption = {section.picture.x, section.picture.y, section.picture.width, 0};
    layout.width = std::max(layout.width, section.picture.width);
    y += section.picture.height + kSeparator;
    layout.sections.push_back(std::move(section));
  }
  layout.height = static_cast<int>(tensors.empty() ? kHeight : y - kSeparator);
  if (reduced) layout.reduced = "sampled to keep within " + std::to_string(max_values) + " values";
  return layout;
}

}  // namespace beholder
