#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>

#include "beholder/narrowing.h"
#include "beholder/rendering.h"

namespace beholder {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

/// Reductions of (chunks, kChunk) to (sections): the same handful of operators for one section and for a thousand.
struct Reducer {
  const at::Tensor& chunk_section;
  int64_t sections;

  at::Tensor sum(const at::Tensor& values) const {
    return at::zeros({sections}, values.options().dtype(at::kDouble))
        .index_add_(0, chunk_section, values.sum({1}, /*keepdim=*/false, at::kDouble));
  }
  at::Tensor minimum(const at::Tensor& values) const { return extreme(values.amin({1}), "amin", kInf); }
  at::Tensor maximum(const at::Tensor& values) const { return extreme(values.amax({1}), "amax", -kInf); }

 private:
  at::Tensor extreme(const at::Tensor& of_chunks, const char* which, double start) const {
    return at::full({sections}, start, of_chunks.options())
        .scatter_reduce(0, chunk_section, of_chunks, which, /*include_self=*/true)
        .to(at::kDouble);
  }
};

struct DeviceScale {
  at::Tensor low, factor;  // float64 (sections)
};

DeviceScale scale_of(ColourRange range, const at::Tensor& min, const at::Tensor& max) {
  const auto zeros = at::zeros_like(min);
  const auto some = max.ge(min);
  if (range == ColourRange::Centred) {
    const auto reach = at::where(some, at::maximum(min.abs(), max.abs()), zeros);
    return {zeros, at::where(reach.gt(0), at::full_like(reach, 127.0).div_(reach), zeros)};
  }
  auto low = min, high = max;
  if (range == ColourRange::All) {
    low = min.amin().expand_as(min);
    high = max.amax().expand_as(max);
  }
  const auto width = high.sub(low);
  const auto usable = width.gt(0).logical_and_(high.ge(low));
  return {at::where(high.ge(low), low, zeros), at::where(usable, at::full_like(width, 255.0).div_(width), zeros)};
}

/// The colour index (colormaps.h) of each value, int32 (value_count + 1): the last one is the background.
at::Tensor colour_indices(const RenderTask& task, const at::Tensor& chunks, const at::Tensor& finite,
                          const DeviceScale& scale) {
  const auto& map = task.view.chunk_section;
  const auto of_chunks = [&](const at::Tensor& per_section) { return per_section.index_select(0, map).unsqueeze(1); };
  auto level = chunks.to(at::kDouble);
  if (task.range == ColourRange::Centred) {
    level = level.mul_(of_chunks(scale.factor)).round_().add_(128.0);
  } else {
    level = level.sub_(of_chunks(scale.low)).mul_(of_chunks(scale.factor));
  }
  level = at::where(finite, level, at::full_like(level, kNanIndex));
  level = at::where(finite, level.clamp(0.0, 255.0), level);
  level.masked_fill_(chunks.eq(kInf), kPositiveInfIndex).masked_fill_(chunks.eq(-kInf), kNegativeInfIndex);
  level.masked_fill_(absent_in(chunks), kBackgroundIndex);
  level.masked_fill_(above_in(chunks), kGrayLevels - 1).masked_fill_(below_in(chunks), 0);
  auto out = at::empty({task.view.value_count + 1}, chunks.options().dtype(at::kInt));
  out.narrow(0, 0, task.view.value_count).copy_(level.view({-1}));  // truncates
  out.narrow(0, task.view.value_count, 1).fill_(kBackgroundIndex);
  return out;
}

/// Where some pixels show three values, each of them is its channel's level; the others' one value has a colour.
void paint_channels(const ViewPlan& view, const at::Tensor& indices, const at::Tensor& table,
                    const at::Tensor& pixels) {
  const auto rgb = view.channel_steps.gt(0);
  for (int64_t channel = 0; channel < 3; ++channel) {
    const auto index = indices.index_select(0, view.pixel_map.add(view.channel_steps, channel));
    const auto colour = table.select(1, channel).contiguous().index_select(0, index);
    const auto is_level = rgb.logical_and(index.lt(kGrayLevels));
    pixels.select(1, channel).copy_(at::where(is_level, index.to(at::kByte), colour));
  }
}

at::Tensor dead_counts(const RenderTask& task, const at::Tensor& zeros) {
  auto dead = zeros;
  for (size_t i = 0; i < task.view.sections.size(); ++i) {
    if (!task.statistics || !task.view.taps[i]) continue;
    const auto& staged = task.view.sections[i];
    const auto values = task.values.narrow(0, staged.value_offset, staged.count);
    auto alive = values.ne(0).logical_and_(absent_in(values).logical_not_()).view(task.view.tap_sizes[i]);
    while (alive.dim() > 2) alive = alive.any(alive.dim() - 1);
    dead = dead.clone();
    dead.narrow(0, static_cast<int64_t>(i), 1).copy_(alive.any(0).logical_not().sum().view({1}));
  }
  return dead;
}

at::Tensor numbers_of(const RenderTask& task, const Reducer& reduce, const at::Tensor& chunks, const at::Tensor& finite,
                      const at::Tensor& min, const at::Tensor& max) {
  const auto padding = task.view.padding.view({-1, kChunk});
  const auto clean = at::where(finite, chunks, at::zeros_like(chunks)).to(at::kDouble);
  const auto zeros = at::zeros_like(min);
  const auto absent = absent_in(chunks);
  const auto beyond = beyond_in(chunks);
  const auto nans =
      reduce.sum(chunks.isnan().logical_and_(padding.logical_or(absent).logical_or_(beyond).logical_not_()));
  const auto infs = reduce.sum(chunks.abs().eq(kInf));
  at::Tensor before = zeros;
  if (task.previous.defined()) {
    const auto past = task.previous.view({-1, kChunk});
    const auto good = past.abs().lt(kInf).logical_and_(padding.logical_not());
    before = reduce.sum(at::where(good, past, at::zeros_like(past)).to(at::kDouble).square_());
  }
  return at::stack({min, max, reduce.sum(clean), reduce.sum(clean.square()), reduce.sum(chunks.eq(0)), nans, infs,
                    reduce.sum(beyond), reduce.sum(absent), dead_counts(task, zeros), before},
                   1);
}

}  // namespace

void make_absent(const at::Tensor& values) { values.view(at::kInt).fill_(kAbsentBits); }

at::Tensor absent_in(const at::Tensor& values) { return values.view(at::kInt).eq(kAbsentBits); }

int64_t picture_bytes(const ViewPlan& view) { return (view.pixels() * 3 + 7) / 8 * 8; }

at::Tensor render_on_device(const RenderTask& task) {
  const ViewPlan& view = task.view;
  const auto sections = static_cast<int64_t>(view.sections.size());
  const int64_t bytes = picture_bytes(view);
  auto out = at::empty({bytes + sections * kNumbers * 8}, task.values.options().dtype(at::kByte));
  auto pixels = out.narrow(0, 0, view.pixels() * 3).view({-1, 3});
  const auto& table = task.device_table;
  if (sections == 0) {
    pixels.copy_(table[kBackgroundIndex].expand_as(pixels));
    return out;
  }
  // Padding counts as NaN: it takes no part in anything.
  const auto chunks =
      task.values.masked_fill(view.padding, std::numeric_limits<double>::quiet_NaN()).view({-1, kChunk});
  const auto finite = chunks.abs().lt(kInf);
  const Reducer reduce{view.chunk_section, sections};
  const auto min = reduce.minimum(at::where(finite, chunks, at::full_like(chunks, kInf)));
  const auto max = reduce.maximum(at::where(finite, chunks, at::full_like(chunks, -kInf)));
  const auto indices = colour_indices(task, chunks, finite, scale_of(task.range, min, max));
  if (view.channel_steps.defined()) {
    paint_channels(view, indices, table, pixels);
  } else {
    at::index_select_out(pixels, table.index_select(0, indices), 0, view.pixel_map);
  }
  const auto numbers = numbers_of(task, reduce, chunks, finite, min, max).contiguous();
  out.narrow(0, bytes, sections * kNumbers * 8).view(at::kDouble).copy_(numbers.view({-1}));
  return out;
}

}  // namespace beholder
