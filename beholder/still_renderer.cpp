#include "beholder/still_renderer.h"

#include <chrono>
#include <deque>
#include <exception>
#include <thread>
#include <utility>

#include "beholder/capture.h"
#include "beholder/plan.h"
#include "beholder/renderer.h"

namespace beholder {
namespace {

constexpr std::chrono::microseconds kLook(50);

}  // namespace

struct StillRenderer::State {
  Options options;
  std::shared_ptr<PixelPool> pool = std::make_shared<PixelPool>();
  ViewRenderer renderer{pool};
  std::shared_ptr<const Plan> plan;
  std::unique_ptr<GatherIndex> index;
  std::vector<std::pair<std::string, std::string>> not_shown;
  uint64_t sequence = 0;

  void make_plan_for(const std::vector<Candidate>& candidates) {
    bool good = plan && plan->settings == options.settings && plan->tensors.size() == candidates.size();
    for (size_t i = 0; good && i < candidates.size(); ++i) {
      const TensorSpec& spec = plan->tensors[i];
      good = spec.name == *candidates[i].name && spec.still_true(candidates[i]) &&
             (!spec.refusal.empty() || spec.kind == resolve_kind(candidates[i].kind, spec.sizes));
    }
    if (good) return;
    PlanRequest request;
    request.settings = options.settings;
    for (const auto& candidate : candidates) request.tensors.push_back(describe(candidate));
    plan = make_plan(request, options, /*slots=*/1);
    index = std::make_unique<GatherIndex>(*plan);
    not_shown = plan->not_shown;
  }
};

StillRenderer::StillRenderer(Options options) : state_(std::make_unique<State>()) {
  check(options);
  state_->options = std::move(options);
  // One view, whatever the settings say about pausing.
  state_->options.settings.paused = false;
}

StillRenderer::~StillRenderer() = default;

void StillRenderer::set_settings(const Settings& settings) {
  Options next = state_->options;
  next.settings = settings;
  next.settings.paused = false;
  check(next);
  state_->options = std::move(next);
}

const std::vector<std::pair<std::string, std::string>>& StillRenderer::not_shown() const { return state_->not_shown; }

std::shared_ptr<const Picture> StillRenderer::render(const std::vector<NamedTensor>& tensors, int64_t step) {
  std::vector<Candidate> candidates;
  for (const auto& named : tensors) {
    if (state_->options.settings.values == Values::Frame && named.kind != Kind::Frame) continue;
    candidates.push_back({&named.name, &named.module, named.kind, false, named.tensor});
  }
  std::deque<std::string> refusals;
  SlotLease slot;
  for (;;) {  // again without a tensor that LibTorch cannot read
    state_->make_plan_for(candidates);
    while (!(slot = SlotLease(state_->plan))) std::this_thread::sleep_for(kLook);  // a device still works on it
    size_t i = 0;
    try {
      for (; i < candidates.size(); ++i) {
        if (state_->plan->tensors[i].refusal.empty())
          gather(*state_->plan, *state_->index, *slot, i, candidates[i].tensor);
      }
      break;
    } catch (const std::exception& e) {
      record_filled(*slot);
      slot.give_back();
      refusals.push_back(unreadable(e));
      candidates[i].refusal = &refusals.back();
    }
  }
  const auto& plan = state_->plan;
  record_filled(*slot);
  {
    SideStreams side(plan->devices);
    for (auto& event : slot->filled) {
      for (const auto& device : plan->devices) event.block_current_stream(device);
    }
    // The last view is the live one: with solo, page, zoom and pan.
    state_->renderer.render(plan, plan->views.size() - 1, *slot, {step, std::chrono::system_clock::now()},
                            plan->settings,
                            /*statistics=*/true);
    side.synchronize();
  }
  slot.give_back();
  auto picture = state_->renderer.finish();
  picture->sequence = ++state_->sequence;
  return picture;
}

}  // namespace beholder
