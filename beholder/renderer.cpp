#include "beholder/renderer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <unordered_map>
#include <utility>

#include "beholder/narrowing.h"
#include "beholder/presence.h"
#include "beholder/rendering.h"

namespace beholder {
namespace {

ColourRange range_of(const Settings& settings, Mode mode) {
  if (mode == Mode::Change) return ColourRange::Centred;
  switch (settings.scaling) {
    case Scaling::All: return ColourRange::All;
    case Scaling::ZeroCentred: return ColourRange::Centred;
    case Scaling::Section: break;
  }
  return ColourRange::Section;
}

/// A frame is the user's own picture: it has no history and is gray.
Mode mode_of(const Settings& settings) { return settings.values == Values::Frame ? Mode::Current : settings.mode; }

Colormap colormap_of(const Settings& settings) {
  if (settings.values == Values::Frame) return Colormap::Gray;
  return settings.mode == Mode::Change ? Colormap::Diverging : settings.colormap;
}

Statistics statistics_of(const SectionNumbers& numbers, int64_t count, bool moments) {
  Statistics s;
  s.count = count;
  s.nans = static_cast<int64_t>(numbers.nans);
  s.infs = static_cast<int64_t>(numbers.infs);
  s.beyond = static_cast<int64_t>(numbers.beyond);
  s.zeros = static_cast<int64_t>(numbers.zeros);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  s.count = count - static_cast<int64_t>(numbers.absent);
  const auto finite = static_cast<double>(s.count - s.nans - s.infs - s.beyond);
  const bool some = finite > 0;
  s.min = some ? numbers.min : nan;
  s.max = some ? numbers.max : nan;
  s.mean = some && moments ? numbers.sum / finite : nan;
  s.std = nan;
  if (some && moments) {
    const double variance = numbers.squares / finite - s.mean * s.mean;
    s.std = numbers.min == numbers.max ? 0 : std::sqrt(std::max(0.0, variance));
  }
  return s;
}

void describe(SectionInfo& info, const RenderTask& task, size_t i, const SectionNumbers& numbers, double all_min,
              double all_max) {
  info.statistics = statistics_of(numbers, info.statistics.count, task.statistics);
  const Scale scale = scale_of(task.range, numbers, all_min, all_max);
  if (scale.centred) {
    info.scale_high = scale.factor > 0 ? 127.0 / scale.factor : 0;
    info.scale_low = -info.scale_high;
  } else {
    info.scale_low = scale.low;
    info.scale_high = scale.factor > 0 ? scale.low + 255.0 / scale.factor : scale.low;
  }
  if (task.previous.defined() && numbers.previous_squares > 0 && task.statistics) {
    info.relative_change = std::sqrt(numbers.squares / numbers.previous_squares);
  }
  if (task.statistics && task.view.taps[i]) {
    info.dead_share = numbers.dead / static_cast<double>(task.view.tap_sizes[i][1]);
  }
}

/// What of the section's tensor came this time.
void tell_presence(SectionInfo& info, const Presence& present, const std::optional<int64_t>& absent_since) {
  info.absent_since = absent_since;
  if (!present.name.empty()) info.name = present.name;
  if (present.sizes.empty()) return;
  info.shape = present.sizes;
  info.values_total = 1;
  for (const auto size : info.shape) info.values_total *= size;
  info.complete = info.statistics.count == info.values_total;
}

std::string notice_of(const Settings& settings, const HistoryFacts& history, const Layout& layout) {
  std::string notice = layout.reduced;
  std::string collecting;
  if (mode_of(settings) == Mode::Variance && history.size < 2) {
    collecting = "collecting " + std::to_string(history.size) + "/" + std::to_string(settings.window_size);
  } else if (mode_of(settings) == Mode::Change && !history.previous.defined()) {
    collecting = "collecting 1/2";
  }
  if (!notice.empty() && !collecting.empty()) notice += "; ";
  return notice + collecting;
}

/// `settings` with those of `now` that need no other values.
Settings recoloured(Settings settings, const Settings& now) {
  settings.scaling = now.scaling;
  settings.colormap = now.colormap;
  settings.info = now.info;
  settings.fps = now.fps;
  settings.recording = now.recording;
  settings.window_size = now.window_size;
  return settings;
}

}  // namespace

std::shared_ptr<Picture> PixelPool::make(size_t bytes) {
  auto picture = std::make_unique<Picture>();
  {
    MutexLock lock(mutex_);
    for (auto& spare : spare_) {
      if (spare.size() != bytes) continue;
      picture->rgb = std::move(spare);
      std::swap(spare, spare_.back());
      spare_.pop_back();
      break;
    }
  }
  picture->account = bytes_;
  if (picture->rgb.size() != bytes) {
    picture->rgb.resize(bytes);
    bytes_->fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  }
  ++alive_;
  return {picture.release(), [pool = shared_from_this()](Picture* done) {
            --pool->alive_;
            {
              constexpr size_t kKept = 3, kKeptBytes = size_t{64} << 20;
              MutexLock lock(pool->mutex_);
              const size_t kept =
                  std::min(kKept, std::max(size_t{1}, kKeptBytes / std::max(size_t{1}, done->rgb.size())));
              while (pool->spare_.size() >= kept) {
                pool->bytes_->fetch_sub(static_cast<int64_t>(pool->spare_.front().size()), std::memory_order_relaxed);
                pool->spare_.erase(pool->spare_.begin());
              }
              pool->spare_.push_back(std::move(done->rgb));
            }
            delete done;
          }};
}

void PixelPool::drop_spares() {
  std::vector<std::vector<uint8_t>> spare;
  {
    MutexLock lock(mutex_);
    spare.swap(spare_);
  }
  for (const auto& one : spare) bytes_->fetch_sub(static_cast<int64_t>(one.size()), std::memory_order_relaxed);
}

at::Tensor ViewRenderer::take_values(const Slot& slot) {
  const ViewPlan& view = plan_->views[view_];
  at::Tensor values = history_.buffer(view.value_count, plan_->device);
  for (size_t g = 0; g < plan_->groups.size(); ++g) {
    const StagingGroup& group = plan_->groups[g];
    if (group.view != view_) continue;
    narrow_into(values.narrow(0, group.value_offset, group.count), slot.buffers[g]);
  }
  return values;
}

void ViewRenderer::render(std::shared_ptr<const Plan> plan, size_t view, const Slot& slot, const Capture& capture,
                          const Settings& now, bool statistics) {
  const at::NoGradGuard no_grad;
  follow(std::move(plan), view);
  settings_ = recoloured(this->view()->settings, now);
  capture_ = capture;
  statistics_ = statistics;
  frozen_.reset();
  const at::Tensor values = take_values(slot);
  const bool whole = take_presence(slot);
  keep_exact(slot, whole);
  if (!whole) {
    fill_absent(values);
    history_.backfill(values);
  }
  const auto& groups = plan_->groups;
  const bool beyond = std::any_of(groups.begin(), groups.end(), [](const auto& g) { return may_be_beyond(g.dtype); });
  shown_ = history_.push(values, capture.step, mode_of(settings_), settings_.window_size, beyond);
  if (!whole) blank_absent(values, shown_);
  paint();
}

/// Goes over to another plan: what it shows of the same values keeps its history.
void ViewRenderer::follow(std::shared_ptr<const Plan> plan, size_t view) {
  const ViewPlan& next = plan->views[view];
  const bool anew = !plan_ || clears_history(settings_, next.settings) || plan_->device != plan->device;
  if (!anew && this->view()->fingerprint == next.fingerprint) {
    plan_ = std::move(plan);
    view_ = view;
    return;
  }
  std::vector<Seen> seen(next.sections.size());
  if (anew) {
    history_.clear();
  } else {
    std::unordered_map<std::string, size_t> before;
    const ViewPlan& last = *this->view();
    for (size_t i = 0; i < last.sections.size(); ++i) before.emplace(last.section_fingerprints[i], i);
    std::vector<History::Moved> moved;
    for (size_t i = 0; i < next.sections.size(); ++i) {
      const auto found = before.find(next.section_fingerprints[i]);
      if (found == before.end()) continue;
      seen[i] = seen_[found->second];
      moved.push_back(
          {last.sections[found->second].value_offset, next.sections[i].value_offset, next.sections[i].count});
    }
    // Nothing is the same: a new history, which says that it collects.
    if (moved.empty()) {
      history_.clear();
    } else {
      history_.remap(next.value_count, moved);
    }
  }
  seen_ = std::move(seen);
  plan_ = std::move(plan);
  view_ = view;
}

/// Notes what came. True where nothing is absent, and nothing comes that was absent before.
bool ViewRenderer::take_presence(const Slot& slot) {
  const ViewPlan& view = *this->view();
  seen_.resize(view.sections.size());
  bool whole = true;
  for (size_t i = 0; i < seen_.size(); ++i) {
    Seen& seen = seen_[i];
    const Presence& present = slot.present[view.sections[i].candidate];
    const bool came = present.came, all = came && present.sizes.empty();
    if (came && seen.present.name != present.name && history_.latest().defined()) {
      // The past in this place is another tensor's.
      make_absent(history_.latest().narrow(0, view.sections[i].value_offset, view.sections[i].count));
      seen.before = false;
    }
    whole = whole && all && seen.before && !seen.part_before;
    if (came) {
      seen.present = present;
      seen.absent_since.reset();
      seen.part_before = !all;
      seen.before = true;
    } else {
      seen.present.came = false;
      if (!seen.absent_since) seen.absent_since = capture_.step;
    }
  }
  return whole;
}

/// Keeps the values that came as they are, for value_at(). In memory of its own: a frozen copy shares it.
void ViewRenderer::keep_exact(const Slot& slot, bool whole) {
  const ViewPlan& view = *this->view();
  std::vector<at::Tensor> copies(plan_->groups.size());
  for (size_t i = 0; i < seen_.size(); ++i) {
    const StagedSection& staged = view.sections[i];
    if (mode_of(settings_) != Mode::Current || !rounds(plan_->groups[staged.group].dtype)) {
      seen_[i].exact.reset();
    } else if (whole) {  // a copy for all sections of the group
      at::Tensor& copy = copies[staged.group];
      if (!copy.defined()) copy = slot.buffers[staged.group].clone();
      seen_[i].exact = copy.narrow(0, staged.group_offset, staged.count);
    } else if (seen_[i].present.came) {
      seen_[i].exact = slot.buffers[staged.group].narrow(0, staged.group_offset, staged.count).clone();
    }
  }
}

/// bool (count): the values of section `i` that a tensor of `sizes` does not have; on the values' device.
at::Tensor ViewRenderer::absent_mask(size_t i, const std::vector<int64_t>& sizes) const {
  const StagedSection& staged = view()->sections[i];
  const TensorSpec& spec = plan_->tensors[staged.candidate];
  const at::Tensor host = host_buffer(staged.count, plan_->device);
  auto* mask = static_cast<uint8_t*>(host.data_ptr());
  std::memset(mask, 0, static_cast<size_t>(staged.count));
  for_each_absent(view()->layout->sections[staged.section].selection, spec.sizes, sizes,
                  [&](int64_t first, int64_t count) { std::memset(mask + first, 1, static_cast<size_t>(count)); });
  return host.view(at::kBool).to(plan_->device, /*non_blocking=*/true);
}

/// Values that did not come are those that came last, and absent where none did.
void ViewRenderer::fill_absent(const at::Tensor& values) const {
  const ViewPlan& view = *this->view();
  at::Tensor last = history_.latest();
  if (!last.defined() || last.sizes() != values.sizes() || last.device() != values.device()) {
    last = at::empty_like(values);
    make_absent(last);
  }
  for (size_t i = 0; i < seen_.size(); ++i) {
    const Presence& present = seen_[i].present;
    if (present.came && present.sizes.empty()) continue;
    const StagedSection& staged = view.sections[i];
    const at::Tensor target = values.narrow(0, staged.value_offset, staged.count);
    const at::Tensor before = last.narrow(0, staged.value_offset, staged.count);
    if (present.came) {
      target.copy_(at::where(absent_mask(i, present.sizes), before, target));
    } else {
      target.copy_(before);
    }
  }
}

/// What never came, and what the tensor of this picture does not have, is background, whatever its past. (Arithmetic
/// with an absent value makes a NaN, which is an absent one by chance: devices have NaNs of their own.)
void ViewRenderer::blank_absent(const at::Tensor& values, const at::Tensor& shown) const {
  at::Tensor nothing = at::empty_like(shown);
  make_absent(nothing);
  shown.copy_(at::where(absent_in(values), nothing, shown));
  for (size_t i = 0; i < seen_.size(); ++i) {
    const Presence& present = seen_[i].present;
    if (!present.came || present.sizes.empty()) continue;
    const StagedSection& staged = view()->sections[i];
    const at::Tensor target = shown.narrow(0, staged.value_offset, staged.count);
    const at::Tensor blank = nothing.narrow(0, staged.value_offset, staged.count);
    target.copy_(at::where(absent_mask(i, present.sizes), blank, target));
  }
}

bool ViewRenderer::render_again(const Settings& settings, bool statistics) {
  if (!plan_ || !shown_.defined()) return false;
  const at::NoGradGuard no_grad;
  settings_ = recoloured(settings_, settings);
  statistics_ = statistics;
  paint();
  return true;
}

std::unique_ptr<ViewRenderer> ViewRenderer::frozen_copy() const {
  auto copy = std::make_unique<ViewRenderer>(pool_);
  copy->plan_ = plan_;
  copy->view_ = view_;
  copy->settings_ = settings_;
  copy->capture_ = capture_;
  copy->statistics_ = statistics_;
  copy->seen_ = seen_;
  if (shown_.defined()) copy->shown_ = shown_.clone();
  copy->frozen_ = history_facts();
  if (copy->frozen_->previous.defined()) copy->frozen_->previous = copy->frozen_->previous.clone();
  return copy;
}

HistoryFacts ViewRenderer::history_facts() const {
  return frozen_ ? *frozen_ : HistoryFacts{history_.size(), history_.change_steps(), history_.previous()};
}

void ViewRenderer::paint() {
  const ViewPlan& view = plan_->views[view_];
  const ColourTable table = colour_table(colormap_of(settings_), view.layout->separators);
  const bool centred = mode_of(settings_) == Mode::Change;
  const at::Tensor previous = centred ? history_facts().previous : at::Tensor();
  RenderTask task{view, shown_, previous, range_of(settings_, mode_of(settings_)), statistics_, table};
  picture_ = pool_->make(static_cast<size_t>(view.pixels()) * 3);
  numbers_.assign(view.sections.size() * kNumbers, 0);
  if (plan_->device.is_cpu()) {
    render_on_cpu(task, picture_->rgb.data(), reinterpret_cast<SectionNumbers*>(numbers_.data()));
    return;
  }
  upload(table);
  task.device_table = colours_;
  rendered_ = render_on_device(task);
  if (!host_.defined() || host_.numel() != rendered_.numel()) host_ = host_buffer(rendered_.numel(), plan_->device);
  host_.copy_(rendered_, /*non_blocking=*/true);
}

/// The colours change with the settings, not with each picture; and nobody waits for them.
void ViewRenderer::upload(const ColourTable& table) {
  const size_t bytes = sizeof(Rgb) * table.size();
  const bool there = colours_.defined() && colours_.device() == plan_->device;
  if (there && std::memcmp(host_colours_.data_ptr(), table.data(), bytes) == 0) return;
  host_colours_ = host_buffer(static_cast<int64_t>(bytes), plan_->device);
  std::memcpy(host_colours_.data_ptr(), table.data(), bytes);
  colours_ = host_colours_.view({kColours, 3}).to(plan_->device, at::kByte, /*non_blocking=*/true);
}

std::optional<ShownValue> ViewRenderer::value_at(int x, int y) const {
  if (!plan_ || !shown_.defined()) return std::nullopt;
  const ViewPlan& view = plan_->views[view_];
  for (size_t i = 0; i < view.sections.size(); ++i) {
    const StagedSection& staged = view.sections[i];
    const Section& section = view.layout->sections[staged.section];
    const int left = x - section.picture.x, down = y - section.picture.y;
    if (left < 0 || down < 0 || left >= section.picture.width || down >= section.picture.height) continue;
    const auto row = section.row_at[down], column = section.column_at[left];
    if (row < 0 || column < 0) return std::nullopt;
    if (!section.grid.row_length.empty() && column >= section.grid.row_length[row]) return std::nullopt;
    const int64_t position = section.grid.row_position[row] + section.grid.column_position[column];
    ShownValue shown;
    shown.section = i;
    shown.index = view.infos[i].shape;
    int64_t element = section.selection.element(position, view.infos[i].shape);
    for (size_t d = shown.index.size(); d-- > 0;) {
      const int64_t size = shown.index[d];
      shown.index[d] = element % size;
      element /= size;
    }
    const auto fetched = [](const at::Tensor& from, int64_t at) { return from.narrow(0, at, 1).to(at::kCPU); };
    const auto value = *static_cast<const float*>(fetched(shown_, staged.value_offset + position).data_ptr());
    if (is_absent(value)) return std::nullopt;
    shown.value = value;
    shown.text = exact_text(value);
    const bool current = mode_of(settings_) == Mode::Current;
    if (current && plan_->groups[staged.group].dtype == at::kBool) shown.text = value != 0 ? "true" : "false";
    if (!current || !seen_[i].exact.defined()) return shown;
    const at::Tensor exact = fetched(seen_[i].exact, position), narrow = at::empty({1}, at::kFloat);
    narrow_into(narrow, exact);
    // Of a place that has kept a value of before (an absent one) the exact value is not known.
    const auto again = *static_cast<const float*>(narrow.data_ptr());
    if (std::memcmp(&again, &value, sizeof value) != 0 && !(std::isnan(again) && std::isnan(value))) return shown;
    shown.text = exact_text(exact);
    shown.value = exact_value(exact).value_or(shown.value);
    return shown;
  }
  return std::nullopt;
}

std::shared_ptr<Picture> ViewRenderer::finish() {
  const ViewPlan& view = plan_->views[view_];
  if (!plan_->device.is_cpu()) {
    const auto* bytes = static_cast<const uint8_t*>(host_.data_ptr());
    std::memcpy(picture_->rgb.data(), bytes, picture_->rgb.size());
    std::copy_n(bytes + picture_bytes(view), numbers_.size() * sizeof(double),
                reinterpret_cast<uint8_t*>(numbers_.data()));
    rendered_ = at::Tensor();
  }
  const HistoryFacts history = history_facts();
  Picture& picture = *picture_;
  picture.step = capture_.step;
  picture.time = capture_.time;
  picture.settings = settings_;
  picture.live = view.live;
  picture.film = view.film;
  picture.width = view.layout->width;
  picture.height = view.layout->height;
  picture.layout = view.layout;
  picture.sections = view.infos;
  picture.names = plan_->names;
  picture.message = view.message;
  picture.history_size = mode_of(settings_) == Mode::Variance ? history.size : 0;
  picture.change_steps = mode_of(settings_) == Mode::Change ? history.change_steps : 0;
  picture.notice = notice_of(settings_, history, *view.layout);
  const ColourTable table = colour_table(colormap_of(settings_), view.layout->separators);
  for (int level = 0; level < kGrayLevels; ++level) {
    picture.colour_scale.insert(picture.colour_scale.end(), {table[level].r, table[level].g, table[level].b});
  }
  const auto* numbers = reinterpret_cast<const SectionNumbers*>(numbers_.data());
  double all_min = std::numeric_limits<double>::infinity(), all_max = -all_min;
  bool not_finite = false;
  for (size_t i = 0; i < view.sections.size(); ++i) {
    all_min = std::min(all_min, numbers[i].min);
    all_max = std::max(all_max, numbers[i].max);
    not_finite = not_finite || numbers[i].nans + numbers[i].infs + numbers[i].beyond > 0;
  }
  history_.note(not_finite);
  const bool change = mode_of(settings_) == Mode::Change;
  const RenderTask task{
      view,        shown_, change ? history.previous : at::Tensor(), range_of(settings_, mode_of(settings_)),
      statistics_, table};
  for (size_t i = 0; i < view.sections.size(); ++i) {
    describe(picture.sections[i], task, i, numbers[i], all_min, all_max);
    tell_presence(picture.sections[i], seen_[i].present, seen_[i].absent_since);
    if (mode_of(settings_) != Mode::Current) picture.sections[i].dead_share.reset();  // 0 is then "did not change"
  }
  return std::move(picture_);
}

}  // namespace beholder
