// The solo layout: one section on the whole canvas, as a window that is moved over an enlarged picture of all its
// values.
#include <algorithm>
#include <cmath>
#include <utility>

#include "beholder/layout.h"
#include "beholder/tile_layout.h"

namespace beholder {
namespace {

constexpr double kLargestZoom = 1e6;
constexpr int kSmallestForCaption = 3 * FitMetrics::kCaptionHeight;  // height of a canvas's room

bool is_cut(const Arrangement& arrangement, const std::vector<int64_t>& shape) {
  for (size_t dim = 0; dim < shape.size(); ++dim)
    if (arrangement.box[dim].count < (shape[dim] + arrangement.box[dim].step - 1) / arrangement.box[dim].step)
      return true;
  return false;
}

int enlarged(int block, double factor) { return static_cast<int>(std::clamp(std::round(block * factor), 1.0, 4096.0)); }

// Zoom first fills in what a sample left out, then enlarges the blocks.
Arrangement zoomed(const Tiles& tiles, const std::vector<int64_t>& shape, const Arrangement& whole, double zoom) {
  std::vector<Range> box = whole.box;
  int64_t largest_step = 1;
  for (const Range& range : box) largest_step = std::max(largest_step, range.step);
  const double finer = std::min(zoom, static_cast<double>(largest_step));
  for (size_t dim = 0; dim < box.size(); ++dim) {
    box[dim].step = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(static_cast<double>(box[dim].step) / finer)));
    box[dim].count = (shape[dim] + box[dim].step - 1) / box[dim].step;
  }
  const int64_t across = tiles.across < 0 ? 1 : box[static_cast<size_t>(tiles.across)].count;
  // A cut picture keeps the width of its rows where it is wrapped; a whole one the number of its rows.
  int64_t per_row = (across + whole.wraps - 1) / whole.wraps;
  if (is_cut(whole, shape) && whole.wraps > 1) per_row = whole.per_row;
  return arrange_box(tiles, std::move(box), per_row, enlarged(whole.block_width, zoom / finer),
                     enlarged(whole.block_height, zoom / finer));
}

// Twice as coarse, at the same size on the canvas.
Arrangement coarser(const Tiles& tiles, const Arrangement& fine) {
  std::vector<Range> box = fine.box;
  for (size_t dim = tiles.rgb ? 1 : 0; dim < box.size(); ++dim) {
    box[dim].step *= 2;
    box[dim].count = (box[dim].count + 1) / 2;
  }
  return arrange_box(tiles, std::move(box), (fine.per_row + 1) / 2, fine.block_width * 2, fine.block_height * 2);
}

Section window(const Tiles& tiles, const TensorShape& tensor, const Arrangement& arrangement, const Rect& room,
               double pan_x, double pan_y) {
  Rect place{room.x, room.y, static_cast<int>(std::min<int64_t>(room.width, arrangement.width)),
             static_cast<int>(std::min<int64_t>(room.height, arrangement.height))};
  const auto offset = [](double pan, int64_t hidden) {
    return static_cast<int64_t>(std::round(std::clamp(pan, 0.0, 1.0) * static_cast<double>(hidden)));
  };
  return tile_section(tiles, tensor, arrangement, place, offset(pan_x, arrangement.width - place.width),
                      offset(pan_y, arrangement.height - place.height));
}

}  // namespace

Layout solo_layout(const TensorShape& tensor, int width, int height, bool show_all, double zoom, double pan_x,
                   double pan_y, int64_t max_values) {
  const Canvas canvas = canvas_of(width, height);
  const int caption = canvas.sections.height >= kSmallestForCaption ? FitMetrics::kCaptionHeight : 0;
  Rect room = canvas.sections;
  room.y += caption;
  room.height -= caption;

  const Tiles tiles = read_as_tiles(tensor, true);  // blocks of one pixel
  ArrangeRules rules;
  rules.sample = show_all;
  rules.wrap_matrices = true;
  const Arrangement whole = arrange(tiles, tensor.shape, room.width, room.height, rules);
  zoom = zoom > 1 ? std::min(zoom, kLargestZoom) : 1;  // also where it is not a number
  Arrangement arrangement = zoomed(tiles, tensor.shape, whole, zoom);
  pan_x = pan_x > 0 ? pan_x : 0;
  pan_y = pan_y > 0 ? pan_y : 0;

  Layout layout;
  Section section = window(tiles, tensor, arrangement, room, pan_x, pan_y);
  while (max_values > 0 && section.selection.size() > max_values && arrangement.block_width < (1 << 24)) {
    arrangement = coarser(tiles, arrangement);
    section = window(tiles, tensor, arrangement, room, pan_x, pan_y);
    layout.reduced = "sampled to keep within " + std::to_string(max_values) + " values";
  }
  section.area = canvas.sections;
  section.caption = {canvas.sections.x, canvas.sections.y, canvas.sections.width, caption};
  layout.width = canvas.width;
  layout.height = canvas.height;
  layout.footer = canvas.footer;
  layout.captions = caption > 0 ? CaptionDetail::Full : CaptionDetail::None;
  layout.total_sections = 1;
  layout.sections.push_back(std::move(section));
  return layout;
}

}  // namespace beholder
