// Which of a section's values exist, where the tensor that came is smaller than the place that was made for it.
// Internal; plain numbers.
#pragma once

#include <cstdint>
#include <vector>

#include "beholder/section.h"

namespace beholder {

/// Where the value of C-order element `element` of a tensor of `planned` sizes lies in one of `sizes`, in elements by
/// `strides`; -1 where that one has no such element. REQUIRES sizes[d] <= planned[d].
inline int64_t place_of(int64_t element, const std::vector<int64_t>& planned, const int64_t* sizes,
                        const int64_t* strides) {
  int64_t offset = 0;
  for (size_t d = planned.size(); d-- > 0;) {
    const int64_t index = element % planned[d];
    if (index >= sizes[d]) return -1;
    offset += index * strides[d];
    element /= planned[d];
  }
  return offset;
}

/// How many of a range's elements a dimension of `size` has.
inline int64_t present_count(const Range& range, int64_t size) {
  if (size <= range.start) return 0;
  const int64_t count = (size - range.start - 1) / range.step + 1;
  return count < range.count ? count : range.count;
}

/// Calls visit(first, count) for each run of the selection's values that a tensor of `sizes` does not have.
template <typename Visit>
void for_each_absent(const Selection& selection, const std::vector<int64_t>& planned, const std::vector<int64_t>& sizes,
                     const Visit& visit) {
  if (!selection.box.empty()) {
    // Innermost runs by hand, the dimensions outside as a counter.
    const size_t rank = selection.box.size();
    std::vector<int64_t> present(rank), index(rank, 0);
    for (size_t d = 0; d < rank; ++d) present[d] = present_count(selection.box[d], sizes[d]);
    const int64_t row = selection.box[rank - 1].count;
    for (int64_t first = 0; first < selection.size(); first += row) {
      bool whole_row = false;
      for (size_t d = 0; d + 1 < rank; ++d) whole_row = whole_row || index[d] >= present[d];
      if (whole_row) {
        visit(first, row);
      } else if (present[rank - 1] < row) {
        visit(first + present[rank - 1], row - present[rank - 1]);
      }
      for (size_t d = rank - 1; d-- > 0;) {
        if (++index[d] < selection.box[d].count) break;
        index[d] = 0;
      }
    }
    return;
  }
  const std::vector<int64_t> nothing(planned.size(), 0);
  int64_t position = 0;
  for (const auto a : selection.outer) {
    for (const auto b : selection.inner) {
      if (place_of(a + b, planned, sizes.data(), nothing.data()) < 0) visit(position, int64_t{1});
      ++position;
    }
  }
}

}  // namespace beholder
