// One section of the fit and solo layouts: how a tensor is read as tiles, how many of them fit into a place and how
// large, and the section that comes of it. Private to the geometry.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "beholder/section.h"

namespace beholder {

/// The parts of a canvas: room for sections with a margin around it, and the line below. Small canvases have no line.
struct Canvas {
  int width, height;
  Rect sections, footer;
};
Canvas canvas_of(int width, int height);

/// How a tensor is read: rows of tiles, each tile a small matrix of values. Kernels and activation maps are tiles; a
/// matrix is a row of tiles one value wide, without gaps; a vector a row of single values. Members that name dimensions
/// of the tensor are -1 where there is none.
struct Tiles {
  std::vector<int> down;      ///< rows of tiles, outermost first: input channels, samples
  int across = -1;            ///< columns of tiles: output channels, channels; wrapped where there is height for it
  std::vector<int> stacked;   ///< tiles that stay below each other when rows are wrapped: depth slices
  int row = -1, column = -1;  ///< inside a tile
  int gap_x = 0, gap_y = 0;   ///< pixels between tiles
  int smallest_block = 3;     ///< pixels of a value's side
  int preferred_tile = 0;     ///< pixels of a tile's longer side, where there is room
  bool may_wrap = true;
  bool vector = false;
  bool picture = false;  ///< a frame: one step for both axes, never cut
  bool rgb = false;
  std::string reading;
};
Tiles read_as_tiles(const TensorShape& tensor, bool show_all);

struct ArrangeRules {
  int largest_block = 1 << 20;
  bool sample = false;         ///< where not everything fits: a regular sample instead of the top-left part
  bool wrap_matrices = false;  ///< also where that makes them only larger: a last use for room that is left
  int64_t max_values = 0;      ///< 0: no bound
};

/// Which part of the tensor is shown, and how large.
struct Arrangement {
  std::vector<Range> box;  ///< one per dimension
  int64_t per_row = 1;     ///< tiles in a row
  int64_t wraps = 1;       ///< rows that one block row is wrapped into
  int block_width = 1, block_height = 1;
  int64_t width = 0, height = 0;  ///< pixels
  int64_t shown = 0;              ///< values
};

/// As much as fits into width x height, and then as large as it fits. Never empty: at least one value.
Arrangement arrange(const Tiles& tiles, const std::vector<int64_t>& shape, int width, int height,
                    const ArrangeRules& rules);

/// What is in `box`, at a given block and with so many tiles in a row, however large it becomes.
Arrangement arrange_box(const Tiles& tiles, std::vector<Range> box, int64_t per_row, int block_width, int block_height);

/// Kernels with few block rows, or few values: people look at them as pictures, so they are worth large blocks.
bool is_first_layer(const Tiles& tiles, const std::vector<int64_t>& shape);

/// Heights between which a section is given room in a column of this width.
struct Heights {
  int64_t low;   ///< every row at the smallest block; kernels of a first layer at a block of 6
  int64_t want;  ///< the largest block that still shows all columns
};
Heights heights_of(const Tiles& tiles, const std::vector<int64_t>& shape, int width);

/// The section that shows the window (offset, width x height of `place`) of an arrangement at `place`.
Section tile_section(const Tiles& tiles, const TensorShape& tensor, const Arrangement& arrangement, Rect place,
                     int64_t offset_x = 0, int64_t offset_y = 0);

}  // namespace beholder
