// Values -> numbers and pixels, in two ways with the same result: loops for the CPU, tensor operators for any other
// device. Private to the renderer (renderer.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "beholder/colormaps.h"
#include "beholder/plan.h"
#include "beholder/settings.h"

namespace beholder {

/// What stands for a value that the tensor of this picture does not have: a NaN of its own. It is painted as background
/// and takes no part in any number.
constexpr int32_t kAbsentBits = 0x7fc0ab5e;
inline bool is_absent(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits == kAbsentBits;
}
/// Makes float32 `values` of any device absent.
void make_absent(const at::Tensor& values);
/// bool, of the same shape.
at::Tensor absent_in(const at::Tensor& values);

/// What one section's shown values amount to. NaN, infinities and what is beyond float32 (narrowing.h) are counted and
/// left out of the rest.
struct SectionNumbers {
  double min, max;      ///< +inf, -inf where nothing is finite
  double sum, squares;  ///< of the finite values
  double zeros, nans, infs, beyond;
  double absent;            ///< see kAbsentBits
  double dead;              ///< of a tap: channels that are 0 in all samples shown
  double previous_squares;  ///< mode change: of the values before
};
constexpr int64_t kNumbers = sizeof(SectionNumbers) / sizeof(double);

/// How values become gray levels: trunc((value - low) * factor), or 128 + round(value * factor) where centred.
struct Scale {
  double low = 0, factor = 0;
  bool centred = false;
};

/// Which formula scales the colours.
enum class ColourRange { Section, All, Centred };

struct RenderTask {
  const ViewPlan& view;
  const at::Tensor& values;    ///< float32 (view.value_count): what is shown
  const at::Tensor& previous;  ///< the same before the change; may be undefined
  ColourRange range;
  bool statistics;  ///< sum, squares, zeros, dead are wanted
  const ColourTable& table;
  at::Tensor device_table{};  ///< for render_on_device(): the same there, uint8 (kColours, 3)
};

/// Fills `rgb` (height x width x 3) and one entry of `numbers` per section.
void render_on_cpu(const RenderTask& task, uint8_t* rgb, SectionNumbers* numbers);

/// Enqueues the same on the current stream of the values' device. Returns uint8 on that device: the picture
/// (height x width x 3), padded to a multiple of 8, then the SectionNumbers of each section.
at::Tensor render_on_device(const RenderTask& task);
/// Bytes of the picture in that buffer, padding included.
int64_t picture_bytes(const ViewPlan& view);

/// The scale of one section. `all_min`, `all_max`: over all sections.
Scale scale_of(ColourRange range, const SectionNumbers& section, double all_min, double all_max);

}  // namespace beholder
