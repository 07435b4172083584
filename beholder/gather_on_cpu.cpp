#include "beholder/gather_on_cpu.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>

#include "beholder/presence.h"

namespace beholder {
namespace {

/// Rows lie somewhere else in memory each, where no hardware prefetcher expects them: so many are fetched ahead into
/// the second-level cache (the first has not as many places for what is under way), and of those further ahead the
/// first bytes, since to find a page costs as much as to read from it. What is left is memory's own time: of ResNet-18
/// the original's layout samples, and touches 1.6 x the cache lines, and 6 x the pages, that its values fill. Slower or
/// no faster were: more or fewer rows, other hints, rows or results by way of a buffer, AVX2's gather instruction,
/// stores past the caches, huge pages for the slot.
constexpr int64_t kAhead = 8, kPagesAhead = 12;

/// Inlined without exception: GCC takes a function that does nothing but prefetch for one without effect, and its calls
/// away.
__attribute__((always_inline)) inline void prefetch(const char* from, int64_t bytes) {
  constexpr int64_t kMost = 2048;
  for (int64_t byte = 0; byte < std::min(bytes, kMost); byte += 64) __builtin_prefetch(from + byte, 0, 2);
}

/// While row `i` of `count` is copied. `row(i)` is its address; it has `bytes`.
template <typename Row>
__attribute__((always_inline)) inline void prefetch_after(int64_t i, int64_t count, const Row& row, int64_t bytes) {
  if (i + kPagesAhead < count) __builtin_prefetch(row(i + kPagesAhead));
  if (i + kAhead < count) prefetch(row(i + kAhead), bytes);
}

/// Copies a strided box of elements of `size` bytes into contiguous memory. `sizes` and `strides` (in elements) have
/// `rank` entries, outermost first.
void copy_box(const char* from, char*& to, const int64_t* sizes, const int64_t* strides, size_t rank, int64_t size) {
  if (rank == 0) {
    std::memcpy(to, from, size);
    to += size;
    return;
  }
  const int64_t count = sizes[0], step = strides[0] * size;
  if (rank > 1) {
    const auto row = [&](int64_t i) { return from + i * step; };
    const int64_t row_bytes = ((sizes[1] - 1) * strides[1] + 1) * size;
    for (int64_t i = 0; i < count; ++i) {
      if (rank == 2) prefetch_after(i, count, row, row_bytes);
      copy_box(row(i), to, sizes + 1, strides + 1, rank - 1, size);
    }
    return;
  }
  if (strides[0] == 1) {
    std::memcpy(to, from, count * size);
    to += count * size;
    return;
  }
  const auto copy_each = [&](auto unit) {
    constexpr int64_t n = sizeof(unit);
    for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * n, from + i * step, n);
    to += count * n;
  };
  switch (size) {
    case 1: copy_each(uint8_t{}); break;
    case 2: copy_each(uint16_t{}); break;
    case 4: copy_each(uint32_t{}); break;
    case 8: copy_each(uint64_t{}); break;
    default:
      for (int64_t i = 0; i < count; ++i, to += size) std::memcpy(to, from + i * step, size);
  }
}

/// Joins dimensions that lie behind each other in memory, so that the innermost copy is as long as it can be.
void copy_box_merged(const char* from, char* to, const StagedSection& staged, int64_t size) {
  constexpr size_t kMaxRank = 64;
  int64_t sizes[kMaxRank], strides[kMaxRank];
  size_t rank = 0;
  for (size_t d = 0; d < staged.box_sizes.size() && rank < kMaxRank; ++d) {
    const int64_t count = staged.box_sizes[d], stride = staged.box_strides[d];
    if (count == 1) continue;
    if (rank > 0 && strides[rank - 1] == stride * count) {
      sizes[rank - 1] *= count;
      strides[rank - 1] = stride;
    } else {
      sizes[rank] = count;
      strides[rank++] = stride;
    }
  }
  copy_box(from, to, sizes, strides, rank, size);
}

/// Runs of neighbours of one row. Most are two to four rows of a 3 x 3 kernel, shorter than the call of a memcpy is
/// long: 48 bytes are copied where there are as many in the row and before `end`, and the next run overwrites what was
/// too much.
template <typename Unit>
Unit* copy_runs(const Unit* row, int64_t row_length, Unit* to, const Unit* end,
                const std::vector<std::pair<int64_t, int64_t>>& runs) {
  constexpr int64_t kWide = 48 / sizeof(Unit);
  for (const auto& [first, length] : runs) {
    if (length <= kWide && first + kWide <= row_length && end - to >= kWide) {
      std::memcpy(to, row + first, kWide * sizeof(Unit));
    } else {
      std::memcpy(to, row + first, length * sizeof(Unit));
    }
    to += length;
  }
  return to;
}

#ifdef __x86_64__
/// Every second, third or fourth of many: eight values from two to four loads, which the lanes of AVX2 bring together.
/// Returns how many were copied. Reads nothing behind the last of `count`.
template <int64_t step>
__attribute__((target("avx2"))) int64_t pick_by_avx2(const float* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 < count; i += 8, from += 8 * step) {
    const __m256 a = _mm256_loadu_ps(from), b = _mm256_loadu_ps(from + 8);
    __m256 picked;  // all eight, in some order
    __m256i order;
    if constexpr (step == 2) {
      picked = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0));
      order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
    } else if constexpr (step == 3) {  // lanes 0 3 6 of a, 1 4 7 of b, 2 5 of c
      picked = _mm256_blend_ps(_mm256_blend_ps(a, b, 0b10010010), _mm256_loadu_ps(from + 16), 0b00100100);
      order = _mm256_setr_epi32(0, 3, 6, 1, 4, 7, 2, 5);
    } else {
      const __m256 c = _mm256_loadu_ps(from + 16), d = _mm256_loadu_ps(from + 24);
      const __m256 ab = _mm256_shuffle_ps(a, b, 0), cd = _mm256_shuffle_ps(c, d, 0);
      picked = _mm256_shuffle_ps(ab, cd, _MM_SHUFFLE(2, 0, 2, 0));
      order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    }
    _mm256_storeu_ps(to + i, _mm256_permutevar8x32_ps(picked, order));
  }
  return i;
}

int64_t pick_by_avx2(const void* from, void* to, int64_t count, int64_t step) {
  static const bool supported = __builtin_cpu_supports("avx2");
  if (!supported || step < 2 || step > 4) return 0;
  const auto* source = static_cast<const float*>(from);
  auto* target = static_cast<float*>(to);
  if (step == 2) return pick_by_avx2<2>(source, target, count);
  return step == 3 ? pick_by_avx2<3>(source, target, count) : pick_by_avx2<4>(source, target, count);
}
#else
int64_t pick_by_avx2(const void*, void*, int64_t, int64_t) { return 0; }
#endif

/// Four loads and one store: the stores are what a core has least of.
template <typename Unit>
Unit* copy_steps(const Unit* from, Unit* to, int64_t count, int64_t step) {
  int64_t i = 0;
  if constexpr (sizeof(Unit) == 4) {
    i = pick_by_avx2(from, to, count, step);
    from += i * step;
    typedef Unit Four __attribute__((vector_size(16)));
    for (; i + 4 <= count; i += 4, from += 4 * step) {
      const Four four = {from[0], from[step], from[2 * step], from[3 * step]};
      std::memcpy(to + i, &four, sizeof four);
    }
  }
  for (; i < count; ++i, from += step) to[i] = *from;
  return to + count;
}

template <typename Unit>
void copy_listed(const char* from, char* to, const StagedSection& staged) {
  const auto* source = reinterpret_cast<const Unit*>(from);
  auto* target = reinterpret_cast<Unit*>(to);
  const int64_t row_length = staged.inner.back() + 1;
  const auto count = static_cast<int64_t>(staged.inner.size());
  const auto rows = static_cast<int64_t>(staged.outer.size());
  const Unit* const end = target + rows * count;
  const auto address = [&](int64_t row) { return reinterpret_cast<const char*>(source + staged.outer[row]); };
  for (int64_t a = 0; a < rows; ++a) {
    prefetch_after(a, rows, address, row_length * static_cast<int64_t>(sizeof(Unit)));
    const Unit* row = source + staged.outer[a];
    if (!staged.inner_runs.empty()) {
      target = copy_runs(row, row_length, target, end, staged.inner_runs);
    } else if (staged.inner_step != 0) {
      target = copy_steps(row + staged.inner[0], target, count, staged.inner_step);
    } else {
      for (const auto b : staged.inner) *target++ = row[b];
    }
  }
}

struct Sixteen {
  uint64_t words[2];
};

/// Of a box, `counts` elements in each dimension; those of the target lie `to_strides` apart.
template <typename Unit>
void copy_part_of_box(const Unit* from, Unit* to, const int64_t* counts, const int64_t* strides,
                      const int64_t* to_strides, size_t rank) {
  if (rank == 0) {
    *to = *from;
    return;
  }
  for (int64_t i = 0; i < counts[0]; ++i) {
    copy_part_of_box(from + i * strides[0], to + i * to_strides[0], counts + 1, strides + 1, to_strides + 1, rank - 1);
  }
}

template <typename Unit>
void copy_part(const Selection& selection, const std::vector<int64_t>& planned, const at::Tensor& tensor,
               const void* from, void* to) {
  const auto* source = static_cast<const Unit*>(from);
  auto* target = static_cast<Unit*>(to);
  const int64_t *sizes = tensor.sizes().data(), *strides = tensor.strides().data();
  if (!selection.box.empty()) {
    constexpr size_t kMaxRank = 64;
    int64_t counts[kMaxRank], steps[kMaxRank], to_strides[kMaxRank];
    const size_t rank = std::min(selection.box.size(), kMaxRank);
    int64_t to_stride = 1;
    for (size_t d = rank; d-- > 0;) {
      const Range& range = selection.box[d];
      counts[d] = present_count(range, sizes[d]);
      steps[d] = range.step * strides[d];
      to_strides[d] = to_stride;
      to_stride *= range.count;
      if (counts[d] > 0) source += range.start * strides[d];
      if (counts[d] == 0) return;
    }
    copy_part_of_box(source, target, counts, steps, to_strides, rank);
    return;
  }
  // Fewer of the first dimension alone, the usual case, need no division.
  bool first_alone = tensor.is_contiguous();
  int64_t elements = 1;
  for (size_t d = 0; d < planned.size(); ++d) {
    first_alone = first_alone && (d == 0 || sizes[d] == planned[d]);
    elements *= sizes[d];
  }
  for (const auto a : selection.outer) {
    for (const auto b : selection.inner) {
      const int64_t at = !first_alone ? place_of(a + b, planned, sizes, strides) : a + b < elements ? a + b : -1;
      if (at >= 0) *target = source[at];
      ++target;
    }
  }
}

}  // namespace

std::optional<BoxCopy> box_copy_of(const StagedSection& staged, int64_t item_size) {
  if (staged.box_sizes.empty()) return std::nullopt;
  BoxCopy copy;
  copy.offset = staged.box_offset * item_size;
  copy.item_size = item_size;
  for (size_t d = 0; d < staged.box_sizes.size(); ++d) {
    const int64_t count = staged.box_sizes[d], stride = staged.box_strides[d];
    if (count == 1) continue;
    if (copy.rank > 0 && copy.strides[copy.rank - 1] == stride * count) {
      copy.sizes[copy.rank - 1] *= count;
      copy.strides[copy.rank - 1] = stride;
      continue;
    }
    if (copy.rank == BoxCopy::kMostDims) return std::nullopt;
    copy.sizes[copy.rank] = count;
    copy.strides[copy.rank++] = stride;
  }
  return copy;
}

void copy_box(const BoxCopy& copy, const char* from, char* to) {
  copy_box(from + copy.offset, to, copy.sizes, copy.strides, copy.rank, copy.item_size);
}

void gather_part_on_cpu(const Selection& selection, const std::vector<int64_t>& planned, const at::Tensor& tensor,
                        const at::Tensor& target) {
  const void* from = values_of(tensor);
  void* to = target.data_ptr();
  switch (tensor.element_size()) {
    case 1: copy_part<uint8_t>(selection, planned, tensor, from, to); break;
    case 2: copy_part<uint16_t>(selection, planned, tensor, from, to); break;
    case 4: copy_part<uint32_t>(selection, planned, tensor, from, to); break;
    case 8: copy_part<uint64_t>(selection, planned, tensor, from, to); break;
    default: copy_part<Sixteen>(selection, planned, tensor, from, to); break;
  }
}

void gather_on_cpu(const StagedSection& staged, const at::Tensor& tensor, const at::Tensor& target) {
  const auto size = static_cast<int64_t>(tensor.element_size());
  const auto* from = values_of(tensor);
  auto* to = static_cast<char*>(target.data_ptr());
  if (!staged.box_sizes.empty()) {
    copy_box_merged(from + staged.box_offset * size, to, staged, size);
    return;
  }
  switch (size) {
    case 1: copy_listed<uint8_t>(from, to, staged); break;
    case 2: copy_listed<uint16_t>(from, to, staged); break;
    case 4: copy_listed<uint32_t>(from, to, staged); break;
    case 8: copy_listed<uint64_t>(from, to, staged); break;
    default: copy_listed<Sixteen>(from, to, staged); break;
  }
}

}  // namespace beholder
