// Which values of a tensor are shown, and as which grid. Pure geometry: plain numbers, no device, no thread, no torch.
// A section never holds values; it says which elements to gather and which pixel shows which of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace beholder {

/// What a tensor is, which decides how it is read as a picture. Known from its module, never guessed from its shape
/// (except Array, see resolve_kind()).
enum class Kind {
  Vector,               ///< rank 0 and 1, of any origin
  LinearWeight,         ///< (out, in)
  EmbeddingWeight,      ///< (vocabulary, dimension)
  ConvWeight,           ///< (out, in, k...): Conv1d, Conv2d, Conv3d
  ConvTransposeWeight,  ///< (in, out, k...)
  OtherParameter,       ///< any other parameter: rank 2 as it is, other ranks flattened in classic
  Activation,           ///< (N, C, H, W), (N, T, C), (N, C) or any other rank
  Array,                ///< a user's array without a kind
  Frame,                ///< the user's picture: (H, W), or RGB (3, H, W)
};
const char* to_string(Kind kind);

/// The kind by which a tensor of this shape is read: rank 0 and 1 are vectors; a rank-4 Array is ConvWeight when
/// H * W <= 121, else Activation; a rank-2 Array stays one (drawn as it is).
Kind resolve_kind(Kind kind, const std::vector<int64_t>& shape);

/// Geometry computes pixels with 64 bits: tensors of more elements (an expanded one may have them) are not shown.
constexpr int64_t kMostElements = int64_t{1} << 48;

/// A tensor as geometry sees it.
struct TensorShape {
  std::string name;
  Kind kind = Kind::Array;
  std::vector<int64_t> shape;  ///< no dimension is 0, at most kMostElements in all
  std::string module;          ///< tensors with the same non-empty module stand together (weight and bias)

  int64_t numel() const;
};

struct Rect {
  int x = 0, y = 0, width = 0, height = 0;
  friend bool operator==(const Rect& a, const Rect& b) {
    return a.x == b.x && a.y == b.y && a.width == b.width && a.height == b.height;
  }
};

/// start, start + step, ... (count of them) along one dimension.
struct Range {
  int64_t start = 0, step = 1, count = 1;
};

/// Which elements of a tensor are gathered, and in which order. Either a box (a regular slice in every dimension,
/// gathered in C order: one strided copy) or, where `box` is empty, a product of two lists of C-order element
/// offsets: value number a * inner.size() + b is element outer[a] + inner[b].
struct Selection {
  std::vector<Range> box;  ///< one Range per dimension; a rank-0 tensor has lists {0} x {0}
  std::vector<int64_t> outer, inner;

  int64_t size() const;
  /// C-order index, in a tensor of `shape`, of gathered value number `position` (0 <= position < size()).
  int64_t element(int64_t position, const std::vector<int64_t>& shape) const;
};

/// The gathered values as rows and columns: cell (r, c) is gathered value number
/// row_position[r] + column_position[c].
struct Grid {
  std::vector<int64_t> row_position, column_position;
  /// Where not empty: only the first row_length[r] columns of row r exist, the rest is background (the last row of
  /// kernels that were wrapped into several rows).
  std::vector<int32_t> row_length;

  int rows() const { return static_cast<int>(row_position.size()); }
  int columns() const { return static_cast<int>(column_position.size()); }
};

/// One tensor on the canvas.
struct Section {
  size_t tensor = 0;            ///< index into the list that the layout was made for
  Rect area;                    ///< everything that belongs to it; areas do not overlap
  Rect caption;                 ///< where its text stands, inside area; height 0 where captions were dropped
  bool caption_inline = false;  ///< a vector: the name stands left of the strip, on the same line
  Rect picture;                 ///< where its values stand, inside area
  Selection selection;
  Grid grid;
  /// picture.height entries: the grid row that this pixel row shows, -1 = gap. picture.width likewise for columns.
  std::vector<int32_t> row_at, column_at;
  /// 0: one value per cell, coloured through the colormap. Otherwise an RGB frame: channel k of a cell is gathered
  /// value number row_position + column_position + k * channel_stride.
  int64_t channel_stride = 0;
  /// Tensor's first dimension runs down, second across, or the other way round, in words for people:
  /// "rows: input channels, columns: output channels".
  std::string reading;
  bool complete = true;  ///< every value of the tensor is shown
  bool sampled = false;  ///< the values shown are a regular sample of the whole, not its top-left part
};

}  // namespace beholder
