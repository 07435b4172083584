#include "beholder/plan.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <tuple>

#include "beholder/history.h"
#include "beholder/narrowing.h"
#include "beholder/numbers.h"

namespace beholder {
namespace {

int64_t rounded_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// The storage offset, relative to the tensor's first element, of C-order element `index`.
int64_t storage_offset(int64_t index, const TensorSpec& spec) {
  int64_t offset = 0;
  for (size_t d = spec.sizes.size(); d-- > 0;) {
    offset += index % spec.sizes[d] * spec.strides[d];
    index /= spec.sizes[d];
  }
  return offset;
}

c10::ScalarType dense_dtype(const TensorSpec& spec) {
  return c10::isQIntType(spec.dtype) ? c10::ScalarType::Float : spec.dtype;
}

/// (first, length) of each run of neighbours; nothing where the runs are too short to be copied as such.
std::vector<std::pair<int64_t, int64_t>> runs_of(const std::vector<int64_t>& offsets) {
  std::vector<std::pair<int64_t, int64_t>> runs;
  for (const auto offset : offsets) {
    if (!runs.empty() && runs.back().first + runs.back().second == offset) {
      ++runs.back().second;
    } else {
      runs.emplace_back(offset, 1);
    }
  }
  if (runs.size() * 4 > offsets.size()) runs.clear();
  return runs;
}

/// The distance of neighbours where it is the same for all, else 0.
int64_t step_of(const std::vector<int64_t>& offsets) {
  if (offsets.size() < 2) return 0;
  const int64_t step = offsets[1] - offsets[0];
  for (size_t i = 2; i < offsets.size(); ++i) {
    if (offsets[i] - offsets[i - 1] != step) return 0;
  }
  return step;
}

StagedSection stage(const Section& section, const TensorSpec& spec) {
  StagedSection staged;
  staged.count = section.selection.size();
  const Selection& selection = section.selection;
  const TensorSpec dense = [&] {
    TensorSpec s = spec;
    if (!s.dense) s.strides = contiguous_strides(s.sizes);
    return s;
  }();
  if (!selection.box.empty()) {
    for (size_t d = 0; d < selection.box.size(); ++d) {
      const Range& range = selection.box[d];
      staged.box_sizes.push_back(range.count);
      staged.box_strides.push_back(dense.strides[d] * range.step);
      staged.box_offset += dense.strides[d] * range.start;
    }
    return staged;
  }
  for (auto element : selection.outer) staged.outer.push_back(storage_offset(element, dense));
  for (auto element : selection.inner) staged.inner.push_back(storage_offset(element, dense));
  if (staged.inner.size() == 1) {  // a vector: one long row rather than many of one value
    for (auto& offset : staged.outer) offset += staged.inner[0];
    staged.inner = std::exchange(staged.outer, {0});
  }
  staged.inner_runs = runs_of(staged.inner);
  staged.inner_step = step_of(staged.inner);
  return staged;
}

/// Everything that decides which values a section shows, and in which order.
std::string fingerprint_of(const TensorSpec& spec, const Section& section) {
  PlainStream text;
  text << spec.name << ' ' << static_cast<int>(spec.kind) << ' ' << section.selection.size();
  for (auto size : spec.sizes) text << ',' << size;
  for (const auto& range : section.selection.box) text << ';' << range.start << ':' << range.step << ':' << range.count;
  uint64_t listed = 0;  // which elements, where they are no box
  for (const auto* list : {&section.selection.outer, &section.selection.inner}) {
    for (auto element : *list) listed = listed * 1099511628211U + static_cast<uint64_t>(element) + 1;
  }
  text << ' ' << listed;
  return text.str();
}

/// Sets what of the view tells whether a later one shows the same values at the same places.
void set_fingerprints(ViewPlan& view, const std::vector<TensorSpec>& tensors) {
  PlainStream text;
  const Settings& s = view.settings;
  text << to_string(s.values) << ' ' << view.layout->width << 'x' << view.layout->height << ' ' << s.show_all
       << to_string(s.layout) << s.filter << '\n';
  for (const auto& staged : view.sections) {
    view.section_fingerprints.push_back(
        fingerprint_of(tensors[staged.candidate], view.layout->sections[staged.section]));
    text << view.section_fingerprints.back() << ' ' << staged.value_offset << '\n';
  }
  view.fingerprint = text.str();
}

SectionInfo describe_section(const TensorSpec& spec, const Section& section) {
  SectionInfo info;
  info.name = spec.name;
  info.kind = spec.kind;
  info.shape = spec.sizes;
  info.dtype = c10::toString(spec.dtype);
  std::transform(info.dtype.begin(), info.dtype.end(), info.dtype.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  static const std::map<std::string, std::string> usual = {{"float", "float32"},
                                                           {"double", "float64"},
                                                           {"half", "float16"},
                                                           {"long", "int64"},
                                                           {"int", "int32"},
                                                           {"short", "int16"},
                                                           {"char", "int8"},
                                                           {"byte", "uint8"},
                                                           {"complexfloat", "complex64"},
                                                           {"complexdouble", "complex128"},
                                                           {"complexhalf", "complex32"}};
  const auto found = usual.find(info.dtype);
  if (found != usual.end()) info.dtype = found->second;
  if (c10::isComplexType(spec.dtype)) info.shown_as = "magnitude of complex";
  info.device = spec.device.str();
  info.values_total = spec.numel();
  info.statistics.count = section.selection.size();
  info.complete = section.complete;
  info.sampled = section.sampled;
  return info;
}

/// The original's column has no end. As many of the first sections as `max_bytes` of picture allow, at least one.
Layout bounded_classic(std::vector<TensorShape> shapes, bool show_all, int64_t max_values, int64_t max_bytes) {
  const auto total = static_cast<int64_t>(shapes.size());
  constexpr int64_t kSmallest = 3 * 768 * 133;  // of a section with its separator
  const auto bytes_of = [](const Layout& layout) { return 3 * int64_t{layout.width} * layout.height; };
  const auto keep = [&](int64_t count) { shapes.erase(shapes.begin() + std::max<int64_t>(1, count), shapes.end()); };
  const bool frames = std::any_of(shapes.begin(), shapes.end(), [](const auto& s) { return s.kind == Kind::Frame; });
  if (!frames && total > 1 && total * kSmallest > max_bytes + kSmallest) keep(max_bytes / kSmallest);
  Layout layout = classic_layout(shapes, show_all, max_values);
  while (bytes_of(layout) > max_bytes && shapes.size() > 1) {
    const auto count = static_cast<int64_t>(shapes.size());
    keep(std::min(count - 1, count * max_bytes / bytes_of(layout)));
    layout = classic_layout(shapes, show_all, max_values);
  }
  layout.total_sections = static_cast<size_t>(total);
  if (static_cast<int64_t>(shapes.size()) < total) {
    layout.reduced += (layout.reduced.empty() ? "" : "; ") + std::string("the first ") + std::to_string(shapes.size()) +
                      " of " + std::to_string(total) + " sections, to keep within " + std::to_string(max_bytes >> 20) +
                      " MiB";
  }
  return layout;
}

/// "none of 2 arrays can be shown: a (empty), b (undefined)".
std::string none_can_be_shown(const PlanRequest& request, const Settings& settings) {
  if (request.tensors.empty()) return std::string("no ") + to_string(settings.values) + " to show";
  std::string text;
  constexpr size_t kNamed = 3;
  for (size_t i = 0; i < std::min(kNamed, request.tensors.size()); ++i) {
    text += (i > 0 ? ", " : "") + request.tensors[i].name + " (" + request.tensors[i].refusal + ")";
  }
  if (request.tensors.size() > kNamed) text += ", ...";
  const std::string what = to_string(settings.values);
  return (settings.values == Values::Frame
              ? "the frame cannot be shown: "
              : "none of " + std::to_string(request.tensors.size()) + " " + what + " can be shown: ") +
         text;
}

/// The channel of each value of a tap of rank 2 or 4 whose values are no box, counted from 0 in the order of channels.
std::vector<int32_t> channels_of(const Selection& selection, const std::vector<int64_t>& shape, int64_t* channels) {
  const int64_t area = shape.size() == 4 ? shape[2] * shape[3] : 1;
  std::map<int64_t, int32_t> numbers;
  std::vector<int64_t> channel(static_cast<size_t>(selection.size()));
  for (size_t i = 0; i < channel.size(); ++i) {
    channel[i] = selection.element(static_cast<int64_t>(i), shape) / area % shape[1];
    numbers[channel[i]] = 0;
  }
  int32_t next = 0;
  for (auto& entry : numbers) entry.second = next++;
  *channels = next;
  std::vector<int32_t> out;
  out.reserve(channel.size());
  for (auto one : channel) out.push_back(numbers[one]);
  return out;
}

bool is_wanted(const TensorSpec& spec, const Settings& settings) {
  return spec.refusal.empty() && matches_filter(settings.filter, spec.name);
}

/// The layout of one view, and the index among all candidates of each tensor it was made for.
std::pair<Layout, std::vector<size_t>> lay_out(const PlanRequest& request, const Settings& settings,
                                               const Options& options, int64_t max_values, int64_t max_picture_bytes,
                                               std::string* message) {
  std::vector<TensorShape> shapes;
  std::vector<size_t> candidates;
  size_t showable = 0;
  for (size_t i = 0; i < request.tensors.size(); ++i) {
    const TensorSpec& spec = request.tensors[i];
    showable += spec.refusal.empty() ? 1 : 0;
    if (!is_wanted(spec, settings)) continue;
    shapes.push_back({spec.name, spec.kind, spec.sizes, spec.module});
    candidates.push_back(i);
  }
  *message = request.nothing;
  if (shapes.empty() && message->empty()) {
    *message = showable > 0 ? "the filter '" + settings.filter + "' matches none of " + std::to_string(showable) + " " +
                                  to_string(settings.values)
                            : none_can_be_shown(request, settings);
  }
  const int width = options.canvas_width, height = options.canvas_height;
  if (shapes.empty()) {
    Layout empty = settings.layout == LayoutKind::Classic ? classic_layout({}, settings.show_all)
                                                          : fit_layout({}, width, height, settings.show_all);
    return {std::move(empty), {}};
  }
  if (!settings.solo.empty()) {
    for (size_t i = 0; i < shapes.size(); ++i) {
      if (shapes[i].name != settings.solo) continue;
      return {solo_layout(shapes[i], width, height, settings.show_all, settings.zoom, settings.pan_x, settings.pan_y,
                          max_values),
              {candidates[i]}};
    }
    // The section has gone: all of them, until it comes back or the viewer leaves solo.
  }
  if (settings.layout == LayoutKind::Classic) {
    return {bounded_classic(std::move(shapes), settings.show_all, max_values, max_picture_bytes),
            std::move(candidates)};
  }
  return {fit_layout(shapes, width, height, settings.show_all, settings.page, max_values), std::move(candidates)};
}

std::shared_ptr<const std::vector<std::string>> names_of(const PlanRequest& request) {
  std::vector<std::string> names;
  for (const auto& spec : request.tensors) {
    if (is_wanted(spec, request.settings)) names.push_back(spec.name);
  }
  return std::make_shared<const std::vector<std::string>>(std::move(names));
}

/// The device that holds most of the values.
c10::Device main_device(const std::vector<TensorSpec>& tensors) {
  std::map<std::string, std::pair<int64_t, c10::Device>> by_device;
  for (const auto& spec : tensors) {
    if (!spec.refusal.empty()) continue;
    auto& entry = by_device.try_emplace(spec.device.str(), 0, spec.device).first->second;
    entry.first += spec.numel();
  }
  auto best = std::max_element(by_device.begin(), by_device.end(), [](const auto& a, const auto& b) {
    // Any accelerator rather than the CPU: pictures of its values are rendered where they are.
    return std::make_pair(!a.second.second.is_cpu(), a.second.first) <
           std::make_pair(!b.second.second.is_cpu(), b.second.first);
  });
  return best == by_device.end() ? c10::Device(c10::kCPU) : best->second.second;
}

/// Orders the view's sections into groups of one device and dtype, and gives each value its place.
void assign_places(Plan& plan, size_t view_index) {
  ViewPlan& view = plan.views[view_index];
  std::vector<size_t> order(view.sections.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto key = [&](size_t i) {
    const TensorSpec& spec = plan.tensors[view.sections[i].candidate];
    return std::make_tuple(spec.device.type(), spec.device.index(), dense_dtype(spec));
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
  int64_t next_value = 0;
  for (size_t n = 0; n < order.size(); ++n) {
    StagedSection& staged = view.sections[order[n]];
    const TensorSpec& spec = plan.tensors[staged.candidate];
    if (n == 0 || key(order[n]) != key(order[n - 1])) {
      StagingGroup group;
      group.view = view_index;
      group.device = spec.device;
      group.dtype = dense_dtype(spec);
      group.value_offset = next_value;
      plan.groups.push_back(group);
    }
    StagingGroup& group = plan.groups.back();
    staged.group = plan.groups.size() - 1;
    staged.group_offset = group.count;
    staged.value_offset = next_value;
    group.count += rounded_up(staged.count, kChunk);
    next_value += rounded_up(staged.count, kChunk);
  }
  view.value_count = next_value;
}

/// For the CPU: the value of each pixel column of each section.
void make_pixel_columns(ViewPlan& view) {
  for (const auto& staged : view.sections) {
    const Section& section = view.layout->sections[staged.section];
    std::vector<int32_t> columns;
    columns.reserve(section.column_at.size());
    for (auto column : section.column_at) {
      columns.push_back(column < 0 ? -1 : static_cast<int32_t>(section.grid.column_position[column]));
    }
    view.pixel_columns.push_back(std::move(columns));
  }
}

template <typename T>
at::Tensor upload(const std::vector<T>& values, c10::ScalarType dtype, c10::Device device) {
  auto host = at::empty({static_cast<int64_t>(values.size())}, at::TensorOptions().dtype(dtype));
  if (!values.empty()) std::memcpy(host.data_ptr(), values.data(), values.size() * sizeof(T));
  return device.is_cpu() ? host : host.to(device);
}

/// For other devices: the value of each pixel, and what reductions need.
void upload_maps(Plan& plan, ViewPlan& view) {
  std::vector<int32_t> map(view.pixels(), static_cast<int32_t>(view.value_count));
  std::vector<uint8_t> padding(view.value_count, 1);
  std::vector<int64_t> chunk_section(view.value_count / kChunk, 0);
  const auto& all = view.layout->sections;
  const bool rgb = std::any_of(all.begin(), all.end(), [](const Section& one) { return one.channel_stride > 0; });
  std::vector<int32_t> steps(rgb ? map.size() : 0, 0);
  for (size_t i = 0; i < view.sections.size(); ++i) {
    const StagedSection& staged = view.sections[i];
    const Section& section = view.layout->sections[staged.section];
    std::fill_n(padding.begin() + staged.value_offset, staged.count, uint8_t{0});
    std::fill_n(chunk_section.begin() + staged.value_offset / kChunk, rounded_up(staged.count, kChunk) / kChunk,
                static_cast<int64_t>(i));
    for (int y = 0; y < section.picture.height; ++y) {
      const auto row = section.row_at[y];
      if (row < 0) continue;
      const auto length = section.grid.row_length.empty() ? section.grid.columns() : section.grid.row_length[row];
      const int64_t first = int64_t{section.picture.y + y} * view.layout->width + section.picture.x;
      for (int x = 0; x < section.picture.width; ++x) {
        const auto column = section.column_at[x];
        if (column < 0 || column >= length) continue;
        map[first + x] = static_cast<int32_t>(staged.value_offset + section.grid.row_position[row] +
                                              section.grid.column_position[column]);
        if (rgb) steps[first + x] = static_cast<int32_t>(section.channel_stride);
      }
    }
  }
  view.pixel_map = upload(map, at::kInt, plan.device);
  if (rgb) view.channel_steps = upload(steps, at::kInt, plan.device);
  view.padding = upload(padding, at::kBool, plan.device);
  view.chunk_section = upload(chunk_section, at::kLong, plan.device);
}

void upload_indices(ViewPlan& view, const std::vector<TensorSpec>& tensors) {
  for (auto& staged : view.sections) {
    const TensorSpec& spec = tensors[staged.candidate];
    if (!staged.box_sizes.empty() || spec.device.is_cpu()) continue;
    std::vector<int64_t> index;
    index.reserve(staged.count);
    for (auto a : staged.outer) {
      for (auto b : staged.inner) index.push_back(a + b);
    }
    staged.index = upload(index, at::kLong, spec.device);
  }
}

void allocate_slots(Plan& plan, int count) {
  for (int i = 0; i < count; ++i) {
    auto slot = std::make_unique<Slot>();
    slot->number = plan.slots.size();
    for (const auto& group : plan.groups) {
      const auto bytes = group.count * static_cast<int64_t>(c10::elementSize(group.dtype));
      // Values of the CPU that are rendered on a device travel from pinned memory: the render thread does not wait.
      slot->buffers.push_back(
          group.device.is_cpu()
              ? host_buffer(bytes, plan.device).zero_().view(group.dtype)
              : at::zeros({bytes}, at::TensorOptions().dtype(at::kByte).device(group.device)).view(group.dtype));
    }
    for (const auto& view : plan.views) {
      std::vector<at::Tensor> targets;
      for (const auto& staged : view.sections) {
        auto target = slot->buffers[staged.group].narrow(0, staged.group_offset, staged.count);
        if (!staged.box_sizes.empty()) target = target.view(staged.box_sizes);
        targets.push_back(std::move(target));
      }
      slot->targets.push_back(std::move(targets));
    }
    slot->present.resize(plan.tensors.size());
    for (const auto& device : plan.devices) {
      slot->filled.emplace_back(device);
      slot->drained.emplace_back(device).record();  // after the zeros and the uploads
    }
    plan.slots.push_back(std::move(slot));
  }
}

/// Devices load a kernel when it is launched for the first time, which takes tenths of a second: here, on the render
/// thread, rather than in the first update().
void load_gather_kernels(const Plan& plan) {
  for (const auto& group : plan.groups) {
    if (group.device.is_cpu()) continue;
    const auto values = at::TensorOptions().dtype(group.dtype).device(group.device);
    const auto from = at::zeros({64}, values);
    at::empty({4, 4}, values).copy_(from.as_strided({4, 4}, {16, 2}), /*non_blocking=*/true);
    for (const auto& view : plan.views) {
      for (const auto& staged : view.sections) {
        if (!staged.index.defined() || &plan.groups[staged.group] != &group) continue;
        at::index_select(selectable(from), 0, at::zeros_like(staged.index));
        break;  // one of this dtype will do
      }
    }
  }
}

/// Bytes that one shown value costs: staging, values, history, and the renderer's own.
int64_t bytes_per_value(const Settings& settings, bool on_cpu) {
  const int64_t running = settings.window_size > History::kExactEntries ? 13 : 0;  // origin, mean, squares, and a byte
  const int64_t history = settings.mode == Mode::Variance ? 4 * (settings.window_size + 5) + running
                          : settings.mode == Mode::Change ? 8
                                                          : 0;
  return kSlots * 8 + 8 + history + (on_cpu ? 4 : 64);
}

/// What LibTorch cannot convert is known before it is a part of anything.
PlanRequest without_what_does_not_narrow(PlanRequest request) {
  std::vector<c10::Device> devices;
  for (const auto& spec : request.tensors) {
    if (spec.refusal.empty() && std::find(devices.begin(), devices.end(), spec.device) == devices.end())
      devices.push_back(spec.device);
  }
  const SideStreams side(devices);
  refuse_what_does_not_narrow(request.tensors);
  // Values of the CPU are converted where the picture is made, or here: narrow_into() knows.
  const c10::Device device = main_device(request.tensors);
  for (const auto& spec : request.tensors) {
    if (spec.refusal.empty() && spec.device != device && !c10::isQIntType(spec.dtype)) can_narrow(spec.dtype, device);
  }
  return request;
}

}  // namespace

bool Slot::quiet() const {
  const auto over = [](const DeviceEvent& event) { return event.query(); };
  return std::all_of(drained.begin(), drained.end(), over) && std::all_of(filled.begin(), filled.end(), over);
}

bool Plan::quiet() const {
  return std::all_of(slots.begin(), slots.end(), [](const auto& slot) { return slot->quiet(); });
}

std::shared_ptr<const Plan> make_plan(const PlanRequest& asked, const Options& options, int slots) {
  const PlanRequest request = without_what_does_not_narrow(asked);
  const bool rounded = std::any_of(request.tensors.begin(), request.tensors.end(),
                                   [](const TensorSpec& spec) { return rounds(spec.dtype); });
  const int64_t exact = rounded ? 16 : 0;  // bytes of a value as it is, for those who ask for it
  auto plan = std::make_shared<Plan>();
  plan->revision = request.revision;
  plan->list = request.list;
  plan->settings = request.settings;
  plan->tensors = request.tensors;
  plan->device = main_device(plan->tensors);
  plan->names = names_of(request);
  for (const auto& spec : plan->tensors) {
    if (!spec.refusal.empty())
      plan->not_shown.emplace_back(spec.name, spec.refusal);
    else if (std::find(plan->devices.begin(), plan->devices.end(), spec.device) == plan->devices.end())
      plan->devices.push_back(spec.device);
  }

  const bool on_cpu = plan->device.is_cpu();
  const Settings film = request.settings.film();
  std::vector<std::pair<Settings, std::pair<bool, bool>>> views;  // settings, (live, film)
  Settings live = request.settings;
  live.paused = false;  // a paused live view is held by the pipeline; it needs no other values
  if (film == live) {
    views.push_back({film, {true, true}});
  } else {
    views.push_back({film, {false, true}});
    views.push_back({live, {true, false}});
  }
  const int64_t budget =
      (on_cpu ? host_shares(options).values : options.max_device_bytes) / static_cast<int64_t>(views.size());
  for (const auto& [settings, kind] : views) {
    ViewPlan view;
    view.settings = settings;
    view.live = kind.first;
    view.film = kind.second;
    const int64_t max_values = std::max<int64_t>(1, budget / (bytes_per_value(settings, on_cpu) + exact));
    const int64_t max_picture_bytes = (on_cpu ? options.max_host_bytes : options.max_device_bytes) / 8;
    auto [layout, candidates] = lay_out(request, settings, options, max_values, max_picture_bytes, &view.message);
    view.layout = std::make_shared<const Layout>(std::move(layout));
    for (size_t i = 0; i < view.layout->sections.size(); ++i) {
      const Section& section = view.layout->sections[i];
      const size_t candidate = candidates[section.tensor];
      const TensorSpec& spec = plan->tensors[candidate];
      StagedSection staged = stage(section, spec);
      staged.candidate = candidate;
      staged.section = i;
      view.sections.push_back(std::move(staged));
      view.infos.push_back(describe_section(spec, section));
      const bool box = !section.selection.box.empty();
      const bool tap = spec.tap && (spec.sizes.size() == 2 || spec.sizes.size() == 4) && (box || on_cpu);
      view.taps.push_back(tap);
      view.tap_sizes.push_back(tap && box ? view.sections.back().box_sizes : std::vector<int64_t>{1, 0});
      view.tap_channels.emplace_back();
      if (tap && !box) view.tap_channels[i] = channels_of(section.selection, spec.sizes, &view.tap_sizes[i][1]);
    }
    plan->views.push_back(std::move(view));
    assign_places(*plan, plan->views.size() - 1);
  }
  SideStreams side(plan->devices);  // nothing of ours on the user's streams
  for (auto& view : plan->views) {
    set_fingerprints(view, plan->tensors);
    upload_indices(view, plan->tensors);
    if (on_cpu) {
      make_pixel_columns(view);
    } else {
      upload_maps(*plan, view);
    }
    const int64_t bytes = view.value_count * (bytes_per_value(view.settings, on_cpu) + exact);
    const int64_t bytes_per_pixel = on_cpu ? 0 : view.channel_steps.defined() ? 12 : 8;
    (on_cpu ? plan->host_bytes : plan->device_bytes) += bytes + bytes_per_pixel * view.pixels();
    if (!on_cpu) plan->host_bytes += HostBytesPerPixel::kPicture * view.pixels();  // where the device copies it to
  }
  allocate_slots(*plan, slots);
  load_gather_kernels(*plan);
  side.synchronize();
  return plan;
}

}  // namespace beholder
