// The training thread's and the render thread's work on a list of tensors, without the threads: for benchmarks of each
// part alone.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "beholder/capture.h"
#include "beholder/named_tensor.h"
#include "beholder/plan.h"
#include "beholder/renderer.h"

namespace beholder::benchmarks {

inline Settings settings_of(LayoutKind layout, Mode mode = Mode::Current, int window_size = 15) {
  Settings settings;
  settings.layout = layout;
  settings.mode = mode;
  settings.window_size = window_size;
  return settings;
}

class BareWatch {
 public:
  BareWatch(Arrays tensors, const Settings& settings, int canvas_width = 1280, int canvas_height = 720)
      : tensors_(std::move(tensors)) {
    PlanRequest request;
    request.settings = settings;
    Options options;
    options.settings = settings;
    options.canvas_width = canvas_width;
    options.canvas_height = canvas_height;
    options.max_host_bytes = int64_t{4} << 30;
    for (const auto& t : tensors_) candidates_.push_back({&t.name, &t.module, t.kind, false, t.tensor});
    for (const auto& c : candidates_) request.tensors.push_back(describe(c));
    plan_ = make_plan(request, options);
    index_ = std::make_unique<GatherIndex>(*plan_);
  }

  /// What a due update() does once it has its list of tensors: is the plan still true, a slot, the gathers.
  Slot* capture() {
    for (size_t i = 0; i < candidates_.size(); ++i) {
      if (!plan_->tensors[i].still_true(candidates_[i]))
        throw std::logic_error("the plan is not true of its own tensors");
    }
    Slot* slot = acquire_slot(*plan_);
    for (size_t i = 0; i < candidates_.size(); ++i) gather(*plan_, *index_, *slot, i, candidates_[i].tensor);
    record_filled(*slot);
    finish(*slot);
    return slot;
  }

  /// What the render thread does with it.
  std::shared_ptr<Picture> render(Slot* slot) {
    renderer_.render(plan_, 0, *slot, {step_++, {}}, plan_->settings, /*statistics=*/true);
    abandon(*slot);
    return renderer_.finish();
  }

  /// As an optimizer would: every captured value changes a little.
  void train(Slot* slot) {
    for (auto& buffer : slot->buffers) {
      auto* values = static_cast<float*>(buffer.data_ptr());
      for (int64_t i = 0; i < buffer.numel(); ++i) {
        noise_ = noise_ * 1664525U + 1013904223U;
        values[i] += 1e-9F * static_cast<float>(static_cast<int32_t>(noise_)) * 1e-3F;
      }
    }
  }

  int64_t values() const {
    int64_t sum = 0;
    for (const auto& section : plan_->views[0].sections) sum += section.count;
    return sum;
  }
  int64_t picture_bytes() const { return 3 * plan_->views[0].pixels(); }

 private:
  Arrays tensors_;
  std::vector<Candidate> candidates_;
  std::shared_ptr<const Plan> plan_;
  std::unique_ptr<GatherIndex> index_;
  ViewRenderer renderer_{std::make_shared<PixelPool>()};
  int64_t step_ = 0;
  uint32_t noise_ = 1;
};

}  // namespace beholder::benchmarks
