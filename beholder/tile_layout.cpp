#include "beholder/tile_layout.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "beholder/layout.h"

namespace beholder {
namespace {

constexpr int kComfortableBlock = 6;  // pixels a value of a first layer's kernels
constexpr int kLargestWantedBlock = 24;
constexpr int kPreferredMap = 28;     // pixels of an activation map's longer side
constexpr int64_t kFewRows = 4;       // block rows up to which wrapping is worth asking room for
constexpr int64_t kFewValues = 4096;  // values up to which kernels are asked room for as those of a first layer
constexpr int64_t kWrappedRows = 20;  // rows of a matrix up to which it is wrapped like text
constexpr int kSmallestCaptionedHeight = 120, kSmallestCaptionedWidth = 160;  // of a canvas; below: no footer
constexpr int kBandGap = 4;  // pixels between the bands of a wrapped matrix

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t product(const std::vector<Range>& box, const std::vector<int>& dims) {
  int64_t count = 1;
  for (int dim : dims) count *= box[dim].count;
  return count;
}

int64_t extent(const std::vector<Range>& box, int dim) { return dim < 0 ? 1 : box[dim].count; }

bool is_kernels(const Tiles& tiles) { return tiles.column >= 0 && tiles.smallest_block == 3; }

std::vector<Range> whole(const std::vector<int64_t>& shape) {
  std::vector<Range> box;
  for (int64_t count : shape) box.push_back({0, 1, count});
  return box;
}

// A box in the words of its tiles.
struct Counts {
  int64_t down, across, stacked, row, column;
  int64_t values() const { return down * across * stacked * row * column; }
};
Counts counts_of(const Tiles& tiles, const std::vector<Range>& box) {
  return {product(box, tiles.down), extent(box, tiles.across), product(box, tiles.stacked), extent(box, tiles.row),
          extent(box, tiles.column)};
}

// ---- Reading

// The two sides of a matrix (of values, or of tiles) with their names; the longer one lies across.
struct Side {
  int dim;
  std::string name;
};
bool lies_down(const std::vector<int64_t>& shape, const Side& a, const Side& b) { return shape[a.dim] <= shape[b.dim]; }

Tiles matrix_tiles(const std::vector<int64_t>& shape, Side down, Side across) {
  if (!lies_down(shape, down, across)) std::swap(down, across);
  Tiles tiles;
  tiles.row = down.dim;
  tiles.across = across.dim;
  tiles.gap_y = kBandGap;
  tiles.may_wrap = shape[down.dim] <= kWrappedRows;
  tiles.reading = "rows: " + down.name + ", columns: " + across.name;
  return tiles;
}

Tiles vector_tiles(const std::vector<int64_t>& shape) {
  Tiles tiles;
  tiles.vector = true;
  tiles.across = shape.empty() ? -1 : 0;
  tiles.reading = shape.empty() ? "one value" : "a vector";
  return tiles;
}

// Kernels (output, input, k...): block rows are the shorter side of the matrix of kernels.
Tiles kernel_tiles(const std::vector<int64_t>& shape, Side output, Side input) {
  const int rank = static_cast<int>(shape.size());
  int64_t kernel = 1;
  for (int dim = 2; dim < rank; ++dim) kernel *= shape[dim];
  if (kernel == 1) return matrix_tiles(shape, std::move(input), std::move(output));
  if (!lies_down(shape, input, output)) std::swap(input, output);
  Tiles tiles;
  tiles.down = {input.dim};
  tiles.across = output.dim;
  for (int dim = 2; dim < rank - 2; ++dim) tiles.stacked.push_back(dim);
  tiles.row = rank >= 4 ? rank - 2 : -1;
  tiles.column = rank - 1;
  tiles.gap_x = tiles.gap_y = 1;
  tiles.reading = "rows of kernels: " + input.name + ", columns: " + output.name;
  return tiles;
}

Tiles map_tiles(const std::vector<int64_t>& shape) {
  const int rank = static_cast<int>(shape.size());
  int64_t map = 1;
  for (int dim = 2; dim < rank; ++dim) map *= shape[dim];
  if (map == 1) return matrix_tiles(shape, {0, "samples"}, {1, "channels"});
  Tiles tiles;
  // Colour channels and the like: the samples lie across, or most of a cell's width would stay empty.
  const bool few_channels = shape[1] * kPreferredMap < 200 && shape[0] > shape[1];
  tiles.down = {few_channels ? 1 : 0};
  tiles.across = few_channels ? 0 : 1;
  for (int dim = 2; dim < rank - 2; ++dim) tiles.stacked.push_back(dim);
  tiles.row = rank - 2;
  tiles.column = rank - 1;
  tiles.gap_x = tiles.gap_y = 1;
  tiles.smallest_block = 1;
  tiles.preferred_tile = kPreferredMap;
  tiles.reading =
      few_channels ? "rows of maps: channels, columns: samples" : "rows of maps: samples, columns: channels";
  return tiles;
}

// Any other tensor of three and more dimensions: the last two are a tile, the longer side across. Of the others the
// longest lies across too, or long stacks of tiles would stand in narrow columns.
Tiles other_tiles(const std::vector<int64_t>& shape, Side row, Side column, const std::string& across) {
  const int rank = static_cast<int>(shape.size());
  if (!lies_down(shape, row, column)) std::swap(row, column);
  Tiles tiles;
  tiles.across = rank - 3;
  for (int dim = rank - 4; dim >= 0; --dim)
    if (shape[dim] > shape[tiles.across]) tiles.across = dim;
  for (int dim = 0; dim < rank - 2; ++dim)
    if (dim != tiles.across) tiles.down.push_back(dim);
  tiles.row = row.dim;
  tiles.column = column.dim;
  tiles.gap_x = tiles.gap_y = shape[row.dim] * shape[column.dim] > 1 ? 1 : 0;
  tiles.reading = "one tile per " + across + "; rows: " + row.name + ", columns: " + column.name;
  return tiles;
}

Tiles rank3_tiles(const std::vector<int64_t>& shape, Side first, Side second, Side third) {
  if (shape[0] == 1) return matrix_tiles(shape, std::move(second), std::move(third));
  if (shape[1] == 1) return matrix_tiles(shape, std::move(first), std::move(third));
  if (shape[2] == 1) return matrix_tiles(shape, std::move(first), std::move(second));
  const std::string across = first.name;
  return other_tiles(shape, std::move(second), std::move(third), across);
}

Tiles frame_tiles(const std::vector<int64_t>& shape) {
  const int rank = static_cast<int>(shape.size());
  Tiles tiles;
  tiles.picture = true;
  tiles.rgb = rank == 3;
  tiles.row = rank - 2;
  tiles.column = rank - 1;
  tiles.smallest_block = 1;
  tiles.reading = "the picture as it was given";
  return tiles;
}

Tiles matrix_of_kind(Kind kind, const std::vector<int64_t>& shape) {
  if (kind == Kind::LinearWeight) return matrix_tiles(shape, {1, "inputs"}, {0, "outputs"});
  if (kind == Kind::EmbeddingWeight) return matrix_tiles(shape, {0, "vocabulary"}, {1, "dimensions"});
  if (kind == Kind::Activation) return matrix_tiles(shape, {0, "samples"}, {1, "channels"});
  return matrix_tiles(shape, {0, "first index"}, {1, "second index"});
}

Tiles tiles_of_kind(Kind kind, const std::vector<int64_t>& shape) {
  const int rank = static_cast<int>(shape.size());
  if (rank <= 1) return vector_tiles(shape);
  if (kind == Kind::Frame && (rank == 2 || (rank == 3 && shape[0] == 3))) return frame_tiles(shape);
  if (rank == 2) return matrix_of_kind(kind, shape);
  const Side zero{0, "output channels"}, one{1, "input channels"};
  if (kind == Kind::ConvWeight) return kernel_tiles(shape, zero, one);
  if (kind == Kind::ConvTransposeWeight) return kernel_tiles(shape, {1, "output channels"}, {0, "input channels"});
  if (kind == Kind::Activation && rank >= 4) return map_tiles(shape);
  if (rank == 3) {
    if (kind != Kind::Activation)
      return rank3_tiles(shape, {0, "first index"}, {1, "second index"}, {2, "third index"});
    Tiles tiles = rank3_tiles(shape, {0, "sample"}, {1, "tokens"}, {2, "channels"});
    if (tiles.column >= 0) tiles.smallest_block = 1;
    return tiles;
  }
  return other_tiles(shape, {rank - 2, "last but one index"}, {rank - 1, "last index"}, "leading indices");
}

// ---- Fitting

// How many tiles stand where, at one size of block.
struct Fit {
  Counts shown;
  int64_t per_row = 1, wraps = 1;
};

int64_t tiles_within(int64_t pixels, int64_t tile, int64_t gap) { return (pixels + gap) / (tile + gap); }

// A matrix is wrapped where its columns do not fit at the smallest block, or where asked to; tiles always.
bool is_wrapped(const Tiles& tiles, const Counts& all, int64_t width, bool wrap_matrices) {
  if (!tiles.may_wrap) return false;
  return tiles.column >= 0 || wrap_matrices || all.across * tiles.smallest_block > width;
}

Fit fit_at(const Tiles& tiles, const Counts& all, int64_t width, int64_t height, int64_t block, bool wrap_matrices) {
  Fit fit{all};
  Counts& shown = fit.shown;
  const int64_t columns = tiles_within(width, all.column * block, tiles.gap_x);
  const int64_t lines = tiles_within(height, all.row * block, tiles.gap_y);
  const int64_t rows = lines / all.stacked;
  if (columns == 0) shown.column = std::max<int64_t>(1, width / block);
  if (lines == 0) shown.row = std::max<int64_t>(1, height / block);
  if (rows == 0) shown.stacked = std::max<int64_t>(1, lines);

  const int64_t across = std::max<int64_t>(1, columns);
  if (all.across > across && is_wrapped(tiles, all, width, wrap_matrices))
    fit.wraps = std::clamp<int64_t>(rows / all.down, 1, divide_up(all.across, across));
  shown.across = std::min(all.across, fit.wraps * across);
  fit.per_row = divide_up(shown.across, fit.wraps);
  const bool even_only = all.down > kFewRows || (tiles.column < 0 && wrap_matrices);
  if ((all.down > 1 || even_only) && fit.wraps > 1 && shown.across % fit.per_row != 0) {
    // Each of the block rows would end raggedly: better rows that come out even, where they are not much shorter.
    int64_t even = fit.per_row;
    while (even > across / 2 && (shown.across % even != 0 || shown.across / even * all.down > rows)) --even;
    if (even > across / 2) {
      fit.per_row = even;
    } else if (even_only) {
      fit.wraps = 1;
      shown.across = fit.per_row = std::min(all.across, across);
    }
  }
  fit.wraps = divide_up(shown.across, fit.per_row);
  shown.down = std::min(all.down, std::max<int64_t>(1, rows / fit.wraps));
  return fit;
}

// Keeps the first `limit` of a nest of dimensions, as a box: outer dimensions are cut first.
void cut(std::vector<Range>& box, const std::vector<int>& dims, int64_t limit) {
  int64_t inner = product(box, dims);
  for (int dim : dims) {
    inner /= box[dim].count;
    box[dim].count = std::clamp<int64_t>(limit / inner, 1, box[dim].count);
    limit = std::max<int64_t>(1, limit / box[dim].count);
  }
}
void cut(std::vector<Range>& box, int dim, int64_t limit) {
  if (dim >= 0) box[dim].count = std::min(box[dim].count, limit);
}

void thin(Range& range, int64_t step) {
  range.step *= step;
  range.count = divide_up(range.count, step);
}
// Keeps at most `limit` of a dimension or of a nest of them, by a step.
void sample(std::vector<Range>& box, int dim, int64_t limit) {
  if (dim >= 0) thin(box[dim], divide_up(box[dim].count, std::max<int64_t>(1, limit)));
}
void sample(std::vector<Range>& box, const std::vector<int>& dims, int64_t limit) {
  int64_t inner = product(box, dims);
  for (int dim : dims) {
    inner /= box[dim].count;
    sample(box, dim, std::max<int64_t>(1, limit / inner));
    limit = std::max<int64_t>(1, limit / box[dim].count);
  }
}

// A regular sample of whole tiles, of which width x height pixels hold all; of values where not even one tile fits.
void sample_to_fit(const Tiles& tiles, int64_t width, int64_t height, int64_t block, std::vector<Range>& box) {
  const Counts all = counts_of(tiles, box);
  const Fit fit = fit_at(tiles, all, width, height, block, false);
  if (fit.shown.values() == all.values()) return;
  const int64_t columns = tiles_within(width, all.column * block, tiles.gap_x);
  const int64_t rows = tiles_within(height, all.row * block, tiles.gap_y) / all.stacked;
  if (columns == 0) sample(box, tiles.column, width / block);
  if (fit.shown.row < all.row) sample(box, tiles.row, height / block);
  if (fit.shown.stacked < all.stacked) sample(box, tiles.stacked, fit.shown.stacked);
  // With one block row the columns may be wrapped into all the height; else each side is thinned for itself.
  const bool wrapped = tiles.may_wrap && all.down == 1 && rows > 1;
  sample(box, tiles.across, std::max<int64_t>(1, columns) * (wrapped ? rows : 1));
  sample(box, tiles.down, std::max<int64_t>(1, rows));
}

// Halves the longest dimension until the values fit; tiles stay whole as long as there are several.
void sample_to_bound(const Tiles& tiles, int64_t max_values, std::vector<Range>& box) {
  std::vector<int> between = tiles.down, inside = tiles.stacked;
  // A matrix is a row of tiles one value wide: its two sides are thinned alike.
  if (tiles.across >= 0) (tiles.column >= 0 ? between : inside).push_back(tiles.across);
  if (tiles.row >= 0) inside.push_back(tiles.row);
  if (tiles.column >= 0) inside.push_back(tiles.column);
  const auto longest = [&](const std::vector<int>& dims) {
    int best = -1;
    for (int dim : dims)
      if (box[dim].count > 1 && (best < 0 || box[dim].count > box[best].count)) best = dim;
    return best;
  };
  const int64_t colours = tiles.rgb ? 3 : 1;
  while (counts_of(tiles, box).values() * colours > max_values) {
    const int dim = longest(between) >= 0 ? longest(between) : longest(inside);
    if (dim < 0) return;
    thin(box[dim], 2);
    if (!tiles.picture) continue;
    for (int other : inside)
      if (other != dim) thin(box[other], 2);
  }
}

// A picture keeps its shape: one step for both axes.
void reduce_picture(const Tiles& tiles, int width, int height, std::vector<Range>& box) {
  const int64_t step = std::max(divide_up(box[tiles.column].count, width), divide_up(box[tiles.row].count, height));
  thin(box[tiles.row], step);
  thin(box[tiles.column], step);
}

void measure(const Tiles& tiles, Arrangement& arrangement) {
  const Counts counts = counts_of(tiles, arrangement.box);
  const int64_t lines = counts.down * arrangement.wraps * counts.stacked;
  arrangement.width = arrangement.per_row * (counts.column * arrangement.block_width + tiles.gap_x) - tiles.gap_x;
  arrangement.height = lines * (counts.row * arrangement.block_height + tiles.gap_y) - tiles.gap_y;
  arrangement.shown = counts.values() * (tiles.rgb ? 3 : 1);
}

// Vectors: blocks as high as their line, not square; wrapped where blocks would become needles, or not all would fit.
Arrangement arrange_vector(const Tiles& tiles, std::vector<Range> box, int width, int height,
                           const ArrangeRules& rules) {
  const int64_t smallest_width = std::clamp(tiles.smallest_block, 1, width);
  const int64_t smallest_height = std::clamp(tiles.smallest_block, 1, height);
  const int64_t per_line = width / smallest_width, lines = height / smallest_height;
  if (rules.sample)
    sample(box, tiles.across, per_line * lines);
  else
    cut(box, tiles.across, per_line * lines);
  const int64_t count = extent(box, tiles.across);
  const double slim =
      height > 40 ? 1.5 : 4;  // height of a block over its width: bars in a strip, near squares in a field
  int64_t rows = divide_up(count, per_line);
  const auto is_slim = [&](int64_t n) {
    return static_cast<double>(height / n) > slim * static_cast<double>(width / divide_up(count, n));
  };
  while (rows < lines && is_slim(rows)) ++rows;
  // Rows that come out even, where only a few more of them are needed.
  for (int64_t even = rows; even <= lines && 2 * even <= 3 * rows; ++even) {
    if (count % even != 0) continue;
    rows = even;
    break;
  }
  Arrangement result;
  result.box = std::move(box);
  result.per_row = divide_up(count, rows);
  result.wraps = divide_up(count, result.per_row);
  result.block_width = static_cast<int>(width / result.per_row);
  result.block_height = static_cast<int>(height / result.wraps);
  measure(tiles, result);
  return result;
}

// ---- Building

// Where one row or column of pixels stands: tile line (or column) and value inside it; -1 in a gap.
struct Place {
  int64_t tile, value;
};
bool operator!=(const Place& a, const Place& b) { return a.tile != b.tile || a.value != b.value; }

// The places that `pixels` pixels from `offset` on show, and for each pixel the number of its place.
std::vector<Place> places(int64_t offset, int pixels, int64_t values, int block, int gap,
                          std::vector<int32_t>& pixel_shows) {
  std::vector<Place> shown;
  const int64_t pitch = values * block + gap;
  for (int64_t pixel = offset; pixel < offset + pixels; ++pixel) {
    const int64_t inside = pixel % pitch;
    if (inside >= values * block) {
      pixel_shows.push_back(-1);
      continue;
    }
    const Place place{pixel / pitch, inside / block};
    if (shown.empty() || shown.back() != place) shown.push_back(place);
    pixel_shows.push_back(static_cast<int32_t>(shown.size() - 1));
  }
  return shown;
}

// Smallest and largest index that was seen of one dimension.
struct Seen {
  int64_t first = -1, last = -1;
  void add(int64_t index) {
    if (first < 0 || index < first) first = index;
    last = std::max(last, index);
  }
};

// Indices, within the box, of a row of pixels: every dimension that runs down, and the wrapped row it stands in.
struct RowIndices {
  std::vector<std::pair<int, int64_t>> dims;
  int64_t wrap;
};
RowIndices row_indices(const Tiles& tiles, const Arrangement& arrangement, const Place& place) {
  RowIndices row;
  int64_t line = place.tile;
  const auto take = [&](const std::vector<int>& nest) {
    for (size_t k = nest.size(); k-- > 0;) {
      row.dims.emplace_back(nest[k], line % arrangement.box[nest[k]].count);
      line /= arrangement.box[nest[k]].count;
    }
  };
  take(tiles.stacked);
  row.wrap = line % arrangement.wraps;
  line /= arrangement.wraps;
  take(tiles.down);
  if (tiles.row >= 0) row.dims.emplace_back(tiles.row, place.value);
  return row;
}

}  // namespace

Canvas canvas_of(int width, int height) {
  Canvas canvas{std::max(1, width), std::max(1, height), {}, {}};
  const bool small = canvas.width < kSmallestCaptionedWidth || canvas.height < kSmallestCaptionedHeight;
  const int margin = small ? std::min(canvas.width, canvas.height) / 32 : FitMetrics::kGap;
  const int footer = small ? 0 : FitMetrics::kFooterHeight;
  canvas.sections = {margin, margin, canvas.width - 2 * margin, canvas.height - 2 * margin - footer};
  canvas.footer = {margin, canvas.height - footer, canvas.width - 2 * margin, footer};
  return canvas;
}

Tiles read_as_tiles(const TensorShape& tensor, bool show_all) {
  Tiles tiles = tiles_of_kind(resolve_kind(tensor.kind, tensor.shape), tensor.shape);
  if (show_all) {
    tiles.smallest_block = 1;
    tiles.preferred_tile = 0;
  }
  return tiles;
}

Arrangement arrange(const Tiles& tiles, const std::vector<int64_t>& shape, int width, int height,
                    const ArrangeRules& rules) {
  std::vector<Range> box = whole(shape);
  if (rules.max_values > 0) sample_to_bound(tiles, rules.max_values, box);
  if (tiles.picture) reduce_picture(tiles, width, height, box);
  if (tiles.vector) return arrange_vector(tiles, std::move(box), width, height, rules);

  const int64_t largest = std::max<int64_t>(1, std::min({width, height, rules.largest_block}));
  int64_t block = std::min<int64_t>(tiles.smallest_block, largest);
  if (rules.sample && !tiles.picture) sample_to_fit(tiles, width, height, block, box);
  const Counts all = counts_of(tiles, box);
  if (tiles.preferred_tile > 0) {
    const int64_t preferred = divide_up(tiles.preferred_tile, std::max(all.row, all.column));
    const int64_t possible = std::min(width / all.column, height / (all.row * all.stacked));
    block = std::clamp(preferred, block, std::max(block, std::min(possible, largest)));
  }
  Fit best = fit_at(tiles, all, width, height, block, rules.wrap_matrices);
  for (int64_t larger = block + 1; larger <= largest; ++larger) {
    const Fit fit = fit_at(tiles, all, width, height, larger, rules.wrap_matrices);
    if (fit.shown.values() < best.shown.values()) break;
    best = fit;
    block = larger;
  }
  Arrangement result;
  cut(box, tiles.down, best.shown.down);
  cut(box, tiles.across, best.shown.across);
  cut(box, tiles.stacked, best.shown.stacked);
  cut(box, tiles.row, best.shown.row);
  cut(box, tiles.column, best.shown.column);
  result.box = std::move(box);
  result.per_row = best.per_row;
  result.wraps = best.wraps;
  result.block_width = result.block_height = static_cast<int>(block);
  measure(tiles, result);
  return result;
}

Arrangement arrange_box(const Tiles& tiles, std::vector<Range> box, int64_t per_row, int block_width,
                        int block_height) {
  Arrangement result;
  result.box = std::move(box);
  const int64_t across = extent(result.box, tiles.across);
  result.per_row = std::clamp<int64_t>(per_row, 1, across);
  result.wraps = divide_up(across, result.per_row);
  result.block_width = block_width;
  result.block_height = block_height;
  measure(tiles, result);
  return result;
}

bool is_first_layer(const Tiles& tiles, const std::vector<int64_t>& shape) {
  const Counts all = counts_of(tiles, whole(shape));
  return is_kernels(tiles) && (all.down * all.stacked <= kFewRows || all.values() <= kFewValues);
}

Heights heights_of(const Tiles& tiles, const std::vector<int64_t>& shape, int width) {
  const Counts all = counts_of(tiles, whole(shape));
  if (tiles.vector) return {12, 1 << 20};  // a vector that stands below its caption fills whatever it is given
  const auto height = [&](int64_t wraps, int64_t block) {
    return all.down * wraps * all.stacked * (all.row * block + tiles.gap_y) - tiles.gap_y;
  };
  // The block at which a row of tiles that is wrapped so often is as wide as the column.
  const auto block_at = [&](int64_t wraps) {
    return ((width + tiles.gap_x) / divide_up(all.across, wraps) - tiles.gap_x) / all.column;
  };
  int64_t smallest = tiles.smallest_block;
  if (tiles.preferred_tile > 0)
    smallest = std::max(smallest, divide_up(tiles.preferred_tile, std::max(all.row, all.column)));
  const bool kernels = is_kernels(tiles);
  const bool few = tiles.may_wrap && (all.down * all.stacked <= kFewRows || (kernels && all.values() <= kFewValues));
  if (!few) {
    const int64_t block = std::clamp<int64_t>(block_at(1), smallest, kLargestWantedBlock);
    return {height(1, smallest), height(1, block)};
  }
  const auto wraps_for = [&](int64_t block) {
    int64_t wraps = divide_up(all.across, std::max<int64_t>(1, tiles_within(width, all.column * block, tiles.gap_x)));
    return std::min(wraps, all.across);
  };
  const int64_t low_wraps = wraps_for(kernels ? kComfortableBlock : smallest);
  // A matrix that is as high as wide shall not push others aside: large blocks are a wish, for kernels a need.
  const int64_t low_block =
      std::max(smallest, std::min<int64_t>(block_at(low_wraps), kernels ? kLargestWantedBlock : kComfortableBlock));
  const int64_t want_wraps = wraps_for(kernels ? 2 * kComfortableBlock : smallest);
  const int64_t want_block = std::clamp<int64_t>(block_at(want_wraps), smallest, kLargestWantedBlock);
  const int64_t low = height(low_wraps, low_block);
  return {low, std::max(low, height(want_wraps, want_block))};
}

Section tile_section(const Tiles& tiles, const TensorShape& tensor, const Arrangement& arrangement, Rect place,
                     int64_t offset_x, int64_t offset_y) {
  Section section;
  section.picture = place;
  const std::vector<Range>& box = arrangement.box;
  const Counts counts = counts_of(tiles, box);
  const std::vector<Place> rows =
      places(offset_y, place.height, counts.row, arrangement.block_height, tiles.gap_y, section.row_at);
  const std::vector<Place> columns =
      places(offset_x, place.width, counts.column, arrangement.block_width, tiles.gap_x, section.column_at);

  // What is gathered: of every dimension the range that this window shows.
  std::vector<RowIndices> row_list;
  std::vector<Seen> seen(box.size());
  Seen wraps, tile_columns;
  for (const Place& row : rows) {
    row_list.push_back(row_indices(tiles, arrangement, row));
    for (const auto& [dim, index] : row_list.back().dims) seen[dim].add(index);
    wraps.add(row_list.back().wrap);
  }
  for (const Place& column : columns) {
    tile_columns.add(column.tile);
    if (tiles.column >= 0) seen[tiles.column].add(column.value);
  }
  if (tiles.across >= 0 && wraps.first >= 0 && tile_columns.first >= 0) {
    const int64_t last = box[tiles.across].count - 1;
    seen[tiles.across].add(std::min(last, wraps.first * arrangement.per_row + tile_columns.first));
    seen[tiles.across].add(std::min(last, wraps.last * arrangement.per_row + tile_columns.last));
  }
  if (tiles.rgb) {
    seen[0].add(0);
    seen[0].add(2);
  }
  std::vector<int64_t> stride(box.size(), 1);
  for (size_t dim = box.size(); dim-- > 0;) {
    const int64_t first = std::max<int64_t>(0, seen[dim].first), last = std::max(first, seen[dim].last);
    section.selection.box.insert(section.selection.box.begin(),
                                 {box[dim].start + first * box[dim].step, box[dim].step, last - first + 1});
    seen[dim].first = first;
    if (dim > 0) stride[dim - 1] = stride[dim] * (last - first + 1);
  }

  const int64_t across = tiles.across < 0 ? 0 : stride[tiles.across];
  for (const RowIndices& row : row_list) {
    int64_t position = (row.wrap - wraps.first) * arrangement.per_row * across;
    for (const auto& [dim, index] : row.dims) position += (index - seen[dim].first) * stride[dim];
    section.grid.row_position.push_back(position);
  }
  for (const Place& column : columns) {
    int64_t position = (column.tile - tile_columns.first) * across;
    if (tiles.column >= 0) position += (column.value - seen[tiles.column].first) * stride[tiles.column];
    section.grid.column_position.push_back(position);
  }
  if (arrangement.per_row * arrangement.wraps > counts.across) {
    for (const RowIndices& row : row_list) {
      const int64_t exist = counts.across - row.wrap * arrangement.per_row;  // tiles in this row
      const auto end = std::find_if(columns.begin(), columns.end(), [&](const Place& p) { return p.tile >= exist; });
      section.grid.row_length.push_back(static_cast<int32_t>(end - columns.begin()));
    }
  }
  if (tiles.rgb) section.channel_stride = stride[0];
  if (tensor.shape.empty()) section.selection.outer = section.selection.inner = {0};
  section.reading = tiles.reading;
  if (arrangement.wraps > 1 && !tiles.vector)
    section.reading += ", wrapped into " + std::to_string(arrangement.wraps) + " rows";
  int64_t cells = section.grid.rows() * static_cast<int64_t>(section.grid.columns());
  if (!section.grid.row_length.empty()) {
    cells = 0;
    for (int32_t length : section.grid.row_length) cells += length;
  }
  section.complete = cells * (tiles.rgb ? 3 : 1) == tensor.numel();
  for (const Range& range : section.selection.box) section.sampled = section.sampled || range.step > 1;
  return section;
}

}  // namespace beholder
