#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "beholder/narrowing.h"
#include "beholder/rendering.h"

namespace beholder {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int kLanes = 8;  // independent accumulators: what a compiler can put into vector registers

bool all_finite(const float* v, int64_t n) {
  uint32_t lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    uint32_t bits[kLanes];
    std::memcpy(bits, v + i, sizeof bits);
    // The exponent's bits as a number below 2^31: signed comparison is the one that vector units have.
    for (int j = 0; j < kLanes; ++j) lanes[j] |= ((bits[j] & 0x7f800000U) + 0x00800000U) & 0x80000000U;
  }
  uint32_t any = 0;
  for (auto lane : lanes) any |= lane;
  for (; i < n; ++i) any |= is_finite_bits(v[i]) ? 0U : 1U;
  return any == 0;
}

void min_max(const float* v, int64_t n, float& low, float& high) {
  float lows[kLanes], highs[kLanes];
  std::fill_n(lows, kLanes, kInf);
  std::fill_n(highs, kLanes, -kInf);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lows[j] = v[i + j] < lows[j] ? v[i + j] : lows[j];
    for (int j = 0; j < kLanes; ++j) highs[j] = v[i + j] > highs[j] ? v[i + j] : highs[j];
  }
  for (; i < n; ++i) {
    lows[0] = std::min(lows[0], v[i]);
    highs[0] = std::max(highs[0], v[i]);
  }
  low = *std::min_element(lows, lows + kLanes);
  high = *std::max_element(highs, highs + kLanes);
}

void moments(const float* v, int64_t n, SectionNumbers& out) {
  double sums[kLanes] = {}, squares[kLanes] = {};
  int32_t zeros[kLanes] = {};
  int64_t i = 0, counted = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const double x = v[i + j];
      sums[j] += x;
      squares[j] += x * x;
    }
    for (int j = 0; j < kLanes; ++j) zeros[j] += v[i + j] == 0.0F ? 1 : 0;
    if ((i & 0x3fffffff) == 0x3fffffff - kLanes + 1) {  // before a lane's counter could overflow
      for (auto& zero : zeros) counted += std::exchange(zero, 0);
    }
  }
  for (int j = 0; j < kLanes; ++j) {
    out.sum += sums[j];
    out.squares += squares[j];
    counted += zeros[j];
  }
  for (; i < n; ++i) {
    out.sum += v[i];
    out.squares += static_cast<double>(v[i]) * v[i];
    counted += v[i] == 0.0F ? 1 : 0;
  }
  out.zeros = static_cast<double>(counted);
}

/// All numbers where some value is NaN or infinite.
void careful_numbers(const float* v, int64_t n, SectionNumbers& out) {
  for (int64_t i = 0; i < n; ++i) {
    if (is_absent(v[i])) {
      ++out.absent;
    } else if (beyond_sign(v[i]) != 0) {
      ++out.beyond;
    } else if (std::isnan(v[i])) {
      ++out.nans;
    } else if (std::isinf(v[i])) {
      ++out.infs;
    } else {
      out.min = std::min<double>(out.min, v[i]);
      out.max = std::max<double>(out.max, v[i]);
      out.sum += v[i];
      out.squares += static_cast<double>(v[i]) * v[i];
      out.zeros += v[i] == 0.0F ? 1 : 0;
    }
  }
}

bool is_alive(float value) { return value != 0.0F && !is_absent(value); }

/// Channels of a tap, (N, C) or (N, C, H, W), that are 0 in every sample and place.
double dead_channels(const float* v, const std::vector<int64_t>& sizes) {
  const int64_t samples = sizes[0], channels = sizes[1], area = sizes.size() == 4 ? sizes[2] * sizes[3] : 1;
  double dead = 0;
  for (int64_t c = 0; c < channels; ++c) {
    bool alive = false;
    for (int64_t n = 0; n < samples && !alive; ++n) {
      const float* map = v + (n * channels + c) * area;
      alive = std::any_of(map, map + area, is_alive);
    }
    dead += alive ? 0 : 1;
  }
  return dead;
}

/// The same where the values are no box: `channel` of each value.
double dead_channels(const float* v, const std::vector<int32_t>& channel, int64_t channels) {
  std::vector<bool> alive(static_cast<size_t>(channels), false);
  for (size_t i = 0; i < channel.size(); ++i) {
    if (is_alive(v[i])) alive[channel[i]] = true;
  }
  return static_cast<double>(std::count(alive.begin(), alive.end(), false));
}

SectionNumbers numbers_of(const RenderTask& task, size_t i) {
  const StagedSection& staged = task.view.sections[i];
  const float* v = static_cast<const float*>(task.values.data_ptr()) + staged.value_offset;
  SectionNumbers out{kInf, -kInf, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  if (all_finite(v, staged.count)) {
    float low, high;
    min_max(v, staged.count, low, high);
    out.min = low;
    out.max = high;
    if (task.statistics) moments(v, staged.count, out);
  } else {
    careful_numbers(v, staged.count, out);
  }
  if (task.statistics && task.view.taps[i]) {
    const auto& channels = task.view.tap_channels[i];
    const auto& sizes = task.view.tap_sizes[i];
    out.dead = channels.empty() ? dead_channels(v, sizes) : dead_channels(v, channels, sizes[1]);
  }
  if (task.previous.defined()) {
    const float* before = static_cast<const float*>(task.previous.data_ptr()) + staged.value_offset;
    for (int64_t k = 0; k < staged.count; ++k) {
      if (is_finite_bits(before[k])) out.previous_squares += static_cast<double>(before[k]) * before[k];
    }
  }
  return out;
}

/// A colour as four bytes, so that one store writes a pixel (and the next pixel overwrites the fourth byte).
using Packed = uint32_t;

std::vector<Packed> packed(const ColourTable& table) {
  std::vector<Packed> out(table.size());
  for (size_t i = 0; i < table.size(); ++i) {
    const uint8_t bytes[4] = {table[i].r, table[i].g, table[i].b, 0};
    std::memcpy(&out[i], bytes, 4);
  }
  return out;
}

int colour_index(float value, const Scale& scale) {
  if (!is_finite_bits(value)) {
    if (is_absent(value)) return kBackgroundIndex;
    if (const int sign = beyond_sign(value)) return sign > 0 ? kGrayLevels - 1 : 0;
    return std::isnan(value) ? kNanIndex : value > 0 ? kPositiveInfIndex : kNegativeInfIndex;
  }
  const double x = value;
  const double level = scale.centred ? 128.0 + std::nearbyint(x * scale.factor) : (x - scale.low) * scale.factor;
  return static_cast<int>(std::min(255.0, std::max(0.0, level)));
}

/// The colours of one section's values.
void colour(const float* v, int64_t n, const Scale& scale, bool finite, const Packed* table, Packed* out) {
  if (!finite || scale.centred) {
    for (int64_t i = 0; i < n; ++i) out[i] = table[colour_index(v[i], scale)];
    return;
  }
  // The usual case without a branch: 0 <= (x - low) * factor < 256 by construction of the scale.
  constexpr int64_t kBlock = 512;
  int32_t levels[kBlock];
  for (int64_t block = 0; block < n; block += kBlock) {
    const int64_t count = std::min(kBlock, n - block);
    for (int64_t i = 0; i < count; ++i) {
      levels[i] = static_cast<int32_t>((static_cast<double>(v[block + i]) - scale.low) * scale.factor);
    }
    for (int64_t i = 0; i < count; ++i) out[block + i] = table[levels[i]];
  }
}

void fill_background(const Layout& layout, Packed background, uint8_t* rgb) {
  const int64_t pixels = int64_t{layout.width} * layout.height;
  if (pixels == 0) return;
  // A row by hand, then whole rows.
  for (int x = 0; x < layout.width; ++x) std::memcpy(rgb + 3 * x, &background, 3);
  const int64_t row = 3 * int64_t{layout.width};
  for (int y = 1; y < layout.height; ++y) std::memcpy(rgb + y * row, rgb, row);
}

/// Classic sections span the whole width: only the separators between them are background.
void fill_separators(const Layout& layout, Packed background, uint8_t* rgb) {
  const int64_t row = 3 * int64_t{layout.width};
  std::vector<uint8_t> line(row);
  for (int x = 0; x < layout.width; ++x) std::memcpy(line.data() + 3 * x, &background, 3);
  int y = 0;
  for (const auto& section : layout.sections) {
    for (; y < section.picture.y; ++y) std::memcpy(rgb + y * row, line.data(), row);
    y = section.picture.y + section.picture.height;
  }
  for (; y < layout.height; ++y) std::memcpy(rgb + y * row, line.data(), row);
}

bool spans_width(const Layout& layout) {
  return layout.separators && std::all_of(layout.sections.begin(), layout.sections.end(), [&](const Section& section) {
           return section.picture.x == 0 && section.picture.width == layout.width;
         });
}

/// One pixel row of a section, from the colours of its values.
void compose_row(const std::vector<int32_t>& columns, const std::vector<int32_t>& column_at, int32_t row_length,
                 const Packed* colours, Packed background, uint8_t* out) {
  const auto width = static_cast<int64_t>(columns.size());
  const auto pixel = [&](int64_t x) {
    return columns[x] < 0 || column_at[x] >= row_length ? background : colours[columns[x]];
  };
  // Four bytes each, all but the last pixel, whose fourth byte would lie outside.
  for (int64_t x = 0; x + 1 < width; ++x) {
    const Packed colour = pixel(x);
    std::memcpy(out + 3 * x, &colour, 4);
  }
  if (width > 0) {
    const Packed last = pixel(width - 1);
    std::memcpy(out + 3 * (width - 1), &last, 3);
  }
}

/// The same where every pixel of the row shows a value.
void compose_full_row(const std::vector<int32_t>& columns, const Packed* colours, uint8_t* out) {
  const auto width = static_cast<int64_t>(columns.size());
  for (int64_t x = 0; x + 1 < width; ++x) std::memcpy(out + 3 * x, &colours[columns[x]], 4);
  if (width > 0) std::memcpy(out + 3 * (width - 1), &colours[columns[width - 1]], 3);
}

/// A pixel row of an RGB frame: three values a pixel, each the level of its channel, whatever the colormap.
void compose_rgb_row(const Section& section, const std::vector<int32_t>& columns, int32_t row_length,
                     const float* row_values, const Scale& scale, const ColourTable& table, uint8_t* out) {
  const auto level = [&](float value, uint8_t Rgb::*channel) {
    const int index = colour_index(value, scale);
    return index < kGrayLevels ? static_cast<uint8_t>(index) : table[index].*channel;
  };
  const Rgb background = table[kBackgroundIndex];
  for (size_t x = 0; x < columns.size(); ++x) {
    Rgb pixel = background;
    if (columns[x] >= 0 && section.column_at[x] < row_length) {
      const float* v = row_values + columns[x];
      pixel.r = level(v[0], &Rgb::r);
      pixel.g = level(v[section.channel_stride], &Rgb::g);
      pixel.b = level(v[2 * section.channel_stride], &Rgb::b);
    }
    out[3 * x] = pixel.r;
    out[3 * x + 1] = pixel.g;
    out[3 * x + 2] = pixel.b;
  }
}

void compose(const RenderTask& task, size_t i, const Scale& scale, const Packed* colours, Packed background,
             uint8_t* rgb) {
  const StagedSection& staged = task.view.sections[i];
  const Section& section = task.view.layout->sections[staged.section];
  const auto& columns = task.view.pixel_columns[i];
  const int64_t stride = 3 * int64_t{task.view.layout->width}, row_bytes = 3 * int64_t{section.picture.width};
  const bool full = section.grid.row_length.empty() &&
                    std::none_of(columns.begin(), columns.end(), [](int32_t column) { return column < 0; });
  for (int y = 0; y < section.picture.height; ++y) {
    uint8_t* out = rgb + (section.picture.y + y) * stride + 3 * int64_t{section.picture.x};
    const auto row = section.row_at[y];
    if (y > 0 && row == section.row_at[y - 1]) {
      std::memcpy(out, out - stride, row_bytes);
      continue;
    }
    if (row < 0) {
      for (int x = 0; x < section.picture.width; ++x) std::memcpy(out + 3 * x, &background, 3);
      continue;
    }
    const int64_t position = section.grid.row_position[row];
    const auto length = section.grid.row_length.empty() ? section.grid.columns() : section.grid.row_length[row];
    if (section.channel_stride > 0) {
      const float* values = static_cast<const float*>(task.values.data_ptr()) + staged.value_offset;
      compose_rgb_row(section, columns, length, values + position, scale, task.table, out);
    } else if (full) {
      compose_full_row(columns, colours + position, out);
    } else {
      compose_row(columns, section.column_at, length, colours + position, background, out);
    }
  }
}

}  // namespace

void render_on_cpu(const RenderTask& task, uint8_t* rgb, SectionNumbers* numbers) {
  const auto table = packed(task.table);
  const Packed background = table[kBackgroundIndex];
  const Layout& layout = *task.view.layout;
  if (spans_width(layout)) {
    fill_separators(layout, background, rgb);
  } else {
    fill_background(layout, background, rgb);
  }
  double all_min = kInf, all_max = -kInf;
  for (size_t i = 0; i < task.view.sections.size(); ++i) {
    numbers[i] = numbers_of(task, i);
    all_min = std::min(all_min, numbers[i].min);
    all_max = std::max(all_max, numbers[i].max);
  }
  std::vector<Packed> colours;
  for (size_t i = 0; i < task.view.sections.size(); ++i) {
    const StagedSection& staged = task.view.sections[i];
    const float* v = static_cast<const float*>(task.values.data_ptr()) + staged.value_offset;
    const Scale scale = scale_of(task.range, numbers[i], all_min, all_max);
    const bool finite = numbers[i].nans + numbers[i].infs + numbers[i].beyond + numbers[i].absent == 0;
    if (static_cast<int64_t>(colours.size()) < staged.count) colours.resize(staged.count);
    if (layout.sections[staged.section].channel_stride == 0) {
      colour(v, staged.count, scale, finite, table.data(), colours.data());
    }
    compose(task, i, scale, colours.data(), background, rgb);
  }
}

Scale scale_of(ColourRange range, const SectionNumbers& section, double all_min, double all_max) {
  Scale scale;
  if (range == ColourRange::Centred) {
    const double reach = std::max(std::abs(section.min), std::abs(section.max));
    scale.centred = true;
    scale.factor = section.max >= section.min && reach > 0 ? 127.0 / reach : 0;
    return scale;
  }
  const double low = range == ColourRange::All ? all_min : section.min;
  const double high = range == ColourRange::All ? all_max : section.max;
  if (!(high >= low)) return scale;  // nothing finite
  scale.low = low;
  scale.factor = high > low ? 255.0 / (high - low) : 0;
  return scale;
}

}  // namespace beholder
