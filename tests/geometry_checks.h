// What must hold for every section and every layout, whatever the tensors and the canvas: for tests and fuzzers. Texts
// instead of a macro for each of millions of numbers: empty when all is well.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "beholder/layout.h"
#include "beholder/section.h"

namespace geometry_checks {

using beholder::Layout;
using beholder::Range;
using beholder::Rect;
using beholder::Section;
using beholder::TensorShape;

using Shape = std::vector<int64_t>;

inline bool inside(const Rect& inner, const Rect& outer) {
  return inner.x >= outer.x && inner.y >= outer.y && inner.width >= 0 && inner.height >= 0 &&
         inner.x + inner.width <= outer.x + outer.width && inner.y + inner.height <= outer.y + outer.height;
}

inline int columns_of_row(const Section& section, int row) {
  return section.grid.row_length.empty() ? section.grid.columns() : section.grid.row_length[static_cast<size_t>(row)];
}

inline int64_t element_at(const Section& section, const Shape& shape, int row, int column) {
  return section.selection.element(
      section.grid.row_position[static_cast<size_t>(row)] + section.grid.column_position[static_cast<size_t>(column)],
      shape);
}

inline std::string wrong_cells(const Section& section, const TensorShape& t) {
  const int64_t size = section.selection.size(), numel = t.numel();
  const int colours = section.channel_stride > 0 ? 3 : 1;
  const int row_step = std::max(1, section.grid.rows() / 40), column_step = std::max(1, section.grid.columns() / 40);
  for (int row = 0; row < section.grid.rows(); row += row_step) {
    for (int column = 0; column < columns_of_row(section, row); column += column_step) {
      for (int colour = 0; colour < colours; ++colour) {
        const int64_t position = section.grid.row_position[static_cast<size_t>(row)] +
                                 section.grid.column_position[static_cast<size_t>(column)] +
                                 colour * section.channel_stride;
        if (position < 0 || position >= size) return "position outside what is gathered";
        const int64_t element = section.selection.element(position, t.shape);
        if (element < 0 || element >= numel) return "element outside the tensor";
      }
    }
  }
  return "";
}

inline std::string wrong_section(const Section& section, const TensorShape& t) {
  if (!inside(section.picture, section.area)) return "picture outside its area";
  if (!inside(section.caption, section.area)) return "caption outside its area";
  if (section.picture.width < 1 || section.picture.height < 1) return "no picture";
  const Rect &p = section.picture, &c = section.caption;
  const bool apart = p.x >= c.x + c.width || c.x >= p.x + p.width || p.y >= c.y + c.height || c.y >= p.y + p.height;
  if (c.height > 0 && !apart) return "caption on the picture";
  if (section.row_at.size() != static_cast<size_t>(p.height)) return "row_at has another size than the picture";
  if (section.column_at.size() != static_cast<size_t>(p.width)) return "column_at has another size than the picture";
  for (int32_t row : section.row_at)
    if (row < -1 || row >= section.grid.rows()) return "row_at outside the grid";
  for (int32_t column : section.column_at)
    if (column < -1 || column >= section.grid.columns()) return "column_at outside the grid";
  if (!section.grid.row_length.empty() && section.grid.row_length.size() != section.grid.row_position.size())
    return "row_length has another size than the grid";
  for (int32_t length : section.grid.row_length)
    if (length < 0 || length > section.grid.columns()) return "row_length outside the grid";
  if (section.selection.size() < 1) return "nothing is gathered";
  if (!section.selection.box.empty()) {
    if (section.selection.box.size() != t.shape.size()) return "box of another rank than the tensor";
    for (size_t dim = 0; dim < t.shape.size(); ++dim) {
      const Range& range = section.selection.box[dim];
      if (range.start < 0 || range.step < 1 || range.count < 1) return "odd range";
      if (range.start + (range.count - 1) * range.step >= t.shape[dim]) return "range outside the tensor";
    }
  }
  if (section.reading.empty()) return "says not how it is read";
  return wrong_cells(section, t);
}

inline std::string wrong_layout(const Layout& layout, const std::vector<TensorShape>& tensors) {
  const Rect canvas{0, 0, layout.width, layout.height};
  if (!inside(layout.footer, canvas)) return "footer outside the canvas";
  std::vector<Rect> taken;
  if (layout.footer.height > 0) taken.push_back(layout.footer);
  size_t next = layout.first_section;
  for (const Section& section : layout.sections) {
    if (section.tensor != next++) return "order not kept";
    if (!inside(section.area, canvas)) return "area outside the canvas";
    for (const Rect& other : taken) {
      const bool apart = section.area.x >= other.x + other.width || other.x >= section.area.x + section.area.width ||
                         section.area.y >= other.y + other.height || other.y >= section.area.y + section.area.height;
      if (!apart) return "areas overlap";
    }
    taken.push_back(section.area);
    const std::string wrong = wrong_section(section, tensors[section.tensor]);
    if (!wrong.empty()) return tensors[section.tensor].name + ": " + wrong;
  }
  return layout.total_sections == tensors.size() ? "" : "wrong total";
}

/// Of the fit layout: tensors of one kind and shape are shown alike.
inline std::string wrong_equals(const Layout& layout, const std::vector<TensorShape>& tensors) {
  std::map<std::pair<beholder::Kind, Shape>, const Section*> firsts;
  for (const Section& section : layout.sections) {
    const TensorShape& t = tensors[section.tensor];
    const Section& first =
        *firsts.emplace(std::make_pair(resolve_kind(t.kind, t.shape), t.shape), &section).first->second;
    const auto box = [](const Section& s) {
      std::vector<int64_t> numbers;
      for (const Range& range : s.selection.box) numbers.insert(numbers.end(), {range.start, range.step, range.count});
      return numbers;
    };
    const bool alike = section.picture.width == first.picture.width && section.picture.height == first.picture.height &&
                       box(section) == box(first) && section.row_at == first.row_at &&
                       section.column_at == first.column_at && section.grid.row_position == first.grid.row_position &&
                       section.grid.column_position == first.grid.column_position && section.reading == first.reading;
    if (!alike) return t.name + ": shown otherwise than " + tensors[first.tensor].name + ", which has its shape";
  }
  return "";
}

inline int64_t values_of(const Layout& layout) {
  int64_t values = 0;
  for (const Section& section : layout.sections) values += section.selection.size();
  return values;
}

}  // namespace geometry_checks
