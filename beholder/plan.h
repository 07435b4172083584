// A plan: which values of which tensors go where, decided once and used for many pictures. Made on the render thread
// (it allocates and uploads), published as an immutable value, followed by the training thread (which does neither).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "beholder/device_work.h"
#include "beholder/layout.h"
#include "beholder/options.h"
#include "beholder/picture.h"
#include "beholder/settings.h"
#include "beholder/tensor_spec.h"
#include "beholder/tensors.h"

namespace beholder {

/// What the training thread asks for.
struct PlanRequest {
  Settings settings;
  uint64_t revision = 0;
  uint64_t list = 0;                ///< grows with each change of what is attached
  std::vector<TensorSpec> tensors;  ///< all candidates, shown or not, in their order
  std::string nothing;              ///< why `tensors` is empty or holds nothing to show, in words for the picture
};

/// How one tensor's shown values come into a slot.
struct StagedSection {
  size_t candidate = 0;      ///< index into Plan::tensors
  size_t section = 0;        ///< index into ViewPlan::layout->sections
  size_t group = 0;          ///< index into Plan::groups
  int64_t group_offset = 0;  ///< first element in the group's buffer
  int64_t value_offset = 0;  ///< first value in the view's values, a multiple of kChunk
  int64_t count = 0;         ///< values
  // A box: one strided copy, in elements from the tensor's own first element.
  std::vector<int64_t> box_sizes, box_strides;
  int64_t box_offset = 0;
  // Or (box_sizes empty) element outer[a] + inner[b], in elements of the storage.
  std::vector<int64_t> outer, inner;
  /// `inner` as (first, length) of its runs of neighbours; empty where they are not worth it.
  std::vector<std::pair<int64_t, int64_t>> inner_runs;
  int64_t inner_step = 0;  ///< between neighbours of `inner`, where it is the same for all; else 0
  at::Tensor index;        ///< the same for other devices: int64, (count), on the tensor's device; undefined on the CPU
};

/// Values of one view from one device with one dtype.
struct StagingGroup {
  size_t view = 0;
  c10::Device device = c10::Device(c10::kCPU);
  c10::ScalarType dtype = c10::kFloat;
  int64_t count = 0;         ///< elements
  int64_t value_offset = 0;  ///< the group is contiguous in the view's values too
};

/// Sections start at multiples of this many values, so that devices can reduce whole rows of a matrix.
constexpr int64_t kChunk = 64;

/// One View: what is shown and where.
struct ViewPlan {
  bool live = true, film = true;
  Settings settings;
  std::shared_ptr<const Layout> layout;
  std::vector<StagedSection> sections;
  std::vector<SectionInfo> infos;               ///< the constant part of what viewers are told
  std::vector<bool> taps;                       ///< per section: a tap of rank 2 or 4
  std::vector<std::vector<int64_t>> tap_sizes;  ///< (samples, channels) or (samples, channels, height, width), as shown
  /// Of a tap whose values are no box: the channel of each value, counted from 0 as shown. (CPU)
  std::vector<std::vector<int32_t>> tap_channels;
  int64_t value_count = 0;  ///< with padding to kChunk
  std::string message;
  std::vector<std::string> section_fingerprints;  ///< the same of each section
  std::string fingerprint;  ///< equal fingerprints: values stand at the same places, the history stays true
  /// Per section and pixel column: the value's position within its row, -1 = gap. (CPU)
  std::vector<std::vector<int32_t>> pixel_columns;
  // For other devices, on Plan::device:
  at::Tensor pixel_map;      ///< int32 (height * width): the value shown by each pixel, value_count = background
  at::Tensor channel_steps;  ///< int32 (height * width): from a pixel's first value to the value of its next channel;
                             ///< 0: it has one value. Undefined where no section has three channels
  at::Tensor padding;        ///< bool (value_count): true where no section has a value
  at::Tensor chunk_section;  ///< int64 (value_count / kChunk): the section of each chunk

  int64_t pixels() const { return int64_t{layout->width} * layout->height; }
};

/// What came of one tensor of a plan.
struct Presence {
  bool came = false;
  std::vector<int64_t> sizes;  ///< of what came; empty: as planned
  std::string name;            ///< another name than planned (arrays whose names change), else empty
};

/// A place for the values of one picture, on the devices of the tensors. While it is Filling it belongs to the training
/// thread, while Filled to the render thread, while Free to the one that makes it Filling.
struct Slot {
  enum class State : int { Free, Filling, Filled };
  std::atomic<State> state{State::Free};
  size_t number = 0;  ///< of Plan::slots
  /// One per StagingGroup: (count), its dtype, its device.
  std::vector<at::Tensor> buffers;
  /// views[i]: the part of buffers[...] for sections of the plan, in the order of Plan::staged().
  std::vector<std::vector<at::Tensor>> targets;  // per view, per section; shaped like the box, for other devices
  std::vector<Presence> present;                 ///< per tensor of the plan
  std::vector<DeviceEvent> filled;               ///< per device of Plan::devices, recorded by the training thread
  std::vector<DeviceEvent> drained;  ///< likewise, recorded by the render thread; first when the plan was made

  /// True when no device works on it any more. Does not wait.
  bool quiet() const;
};

struct Plan {
  uint64_t revision = 0;  ///< of the settings
  uint64_t list = 0;      ///< of the request
  Settings settings;
  std::vector<TensorSpec> tensors;
  std::vector<ViewPlan> views;
  std::vector<StagingGroup> groups;
  std::vector<c10::Device> devices;                  ///< those with values
  c10::Device device = c10::Device(c10::kCPU);       ///< where pictures are rendered
  mutable std::vector<std::unique_ptr<Slot>> slots;  ///< contents change, the vector does not
  std::vector<std::pair<std::string, std::string>> not_shown;
  std::shared_ptr<const std::vector<std::string>> names;  ///< see Picture::names
  int64_t device_bytes = 0, host_bytes = 0;               ///< estimates, slots and rendering included, pictures not

  /// True when no device works on the slots any more: they can be freed. Does not wait.
  bool quiet() const;
};

/// Slots of a plan: one being filled while another is rendered.
constexpr int kSlots = 2;

/// Makes a plan. Allocates on the devices, waits for its uploads; may throw (out of memory, ...). `slots` = kSlots, or
/// 1 for still pictures.
std::shared_ptr<const Plan> make_plan(const PlanRequest& request, const Options& options, int slots = kSlots);

}  // namespace beholder
