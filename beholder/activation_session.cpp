#include "beholder/activation_session.h"

#include <algorithm>
#include <utility>

namespace beholder {
namespace {

std::string label_of(const std::string& name, int64_t nth) {
  return nth == 0 ? name : name + " #" + std::to_string(nth + 1);
}

const void* address_of(const at::Tensor* parameter) { return parameter ? parameter->unsafeGetTensorImpl() : nullptr; }

/// The gradient that a parameter has now, and how often it was written. A backward pass changes one of them.
std::pair<const void*, int64_t> gradient_of(const at::Tensor* parameter) {
  if (!parameter || !parameter->requires_grad() || !parameter->is_leaf()) return {nullptr, 0};
  const at::Tensor& gradient = parameter->grad();
  if (!gradient.defined() || gradient.is_inference()) return {nullptr, 0};
  return {gradient.unsafeGetTensorImpl(), gradient._version()};
}

}  // namespace

ActivationSession::ActivationSession(SlotLease lease, const GatherIndex* index, Refusals& refusals)
    : lease_(std::move(lease)), index_(index), refusals_(refusals) {
  if (!plan()) return;
  missing_ = index_->showable;
  modules_.reserve(plan()->tensors.size());
  entries_.reserve(plan()->tensors.size());
}

/// A tap may have the name of a module: whichever comes second is marked.
ActivationSession::Modules::value_type& ActivationSession::module_of(const std::string& name, bool tap) {
  const auto [found, is_new] = modules_.try_emplace(name);
  if (is_new) found->second.tap = tap;
  return found->second.tap == tap ? *found : module_of(name + (tap ? " (tap)" : " (module)"), tap);
}

bool ActivationSession::belongs_to_another_forward(Modules::value_type& named, const ActivationOutput& output) {
  auto& [name, module] = named;
  if (!output.grad_mode && module.with_grad) return true;  // an evaluation after the training's forward
  if (output.amended && output.call < module.calls) return module.ignored;
  if (!output.grad_mode && !without_grad_ended_) {
    if (first_without_grad_.empty()) {
      first_without_grad_ = name;
    } else if (name != first_without_grad_) {
      others_without_grad_ = true;
    } else {
      without_grad_ended_ = others_without_grad_;
    }
  }
  if (module.calls == 0) return false;
  if (!output.grad_mode) return without_grad_ended_;
  if (!module.with_grad) return false;  // its calls so far were an evaluation's
  if (output.backwards > module.backwards) return true;
  const auto now = gradient_of(output.parameter);
  for (const auto& [parameter, gradient] : module.gradients) {
    if (parameter == address_of(output.parameter)) return gradient != now;
  }
  // That of another module of the same name, a replica.
  module.gradients.emplace_back(address_of(output.parameter), now);
  return false;
}

void ActivationSession::set_captured(Entry& entry, bool captured) {
  if (entry.captured == captured) return;
  entry.captured = captured;
  missing_ += captured ? -1 : 1;
  if (!captured) (*lease_).present[static_cast<size_t>(entry.candidate)].came = false;
}

/// All entries up to `last` were an evaluation's. What came after it keeps its values where it keeps its name.
void ActivationSession::forget_evaluation(int64_t last) {
  std::vector<Entry> kept;
  for (auto& entry : entries_) {
    Module& module = entry.module->second;
    module.entries.fill(-1);
    if (entry.number <= last) module.base = std::max(module.base, entry.call + 1);
  }
  for (auto& entry : entries_) {
    auto& [name, module] = *entry.module;
    const int64_t nth = entry.call - module.base;
    const bool renamed = nth != entry.nth;
    if (entry.number <= last || renamed) set_captured(entry, false);
    if (entry.number <= last) continue;
    if (renamed) {
      entry.spec = spec_of(entry);
      entry.spec->name = label_of(name, nth);
      entry.candidate = -1;
      entry.stands_in = false;
      entry.nth = nth;
    }
    if (nth >= 0 && nth < kShownCalls) module.entries[static_cast<size_t>(nth)] = static_cast<int32_t>(kept.size());
    kept.push_back(std::move(entry));
  }
  entries_ = std::move(kept);
  first_without_grad_.clear();
  others_without_grad_ = without_grad_ended_ = false;
}

/// The place of a missing tap for one whose name the plan does not know; -1 where there is none.
int64_t ActivationSession::place_to_stand_in(const Candidate& candidate) const {
  constexpr int kTries = 64;  // that are more than a look
  if (candidate.refusal) return -1;
  const Settings& settings = plan()->settings;
  const bool wanted = matches_filter(settings.filter, *candidate.name);
  std::vector<bool> taken(plan()->tensors.size(), false);
  for (const auto& entry : entries_) {
    if (entry.candidate >= 0) taken[static_cast<size_t>(entry.candidate)] = true;
  }
  int64_t first = -1;
  for (size_t i = 0, tries = 0; i < taken.size() && tries < kTries; ++i) {
    const TensorSpec& spec = plan()->tensors[i];
    if (taken[i] || !spec.passing || !spec.tap || !spec.refusal.empty() || spec.name == settings.solo) continue;
    if (spec.dtype != candidate.tensor.scalar_type()) continue;
    ++tries;
    if (!is_gathered(fit(*plan(), *index_, i, candidate))) continue;
    if (matches_filter(settings.filter, spec.name) != wanted) continue;
    if (candidate.tensor.sizes() == c10::IntArrayRef(spec.sizes)) return static_cast<int64_t>(i);
    if (first < 0) first = static_cast<int64_t>(i);
  }
  return first;
}

/// What the plan means by this place comes after all.
void ActivationSession::clear_place(size_t planned) {
  for (auto& entry : entries_) {
    if (!entry.stands_in || entry.candidate != static_cast<int64_t>(planned)) continue;
    set_captured(entry, false);
    entry.candidate = -1;
    entry.stands_in = false;
  }
}

bool ActivationSession::add(const ActivationOutput& output) {
  auto& named = module_of(output.name, output.tap);
  auto& [name, module] = named;
  const bool another = belongs_to_another_forward(named, output);
  const bool begins_grad = output.grad_mode && !module.with_grad;
  if (begins_grad) {
    if (module.last_without_grad >= 0) forget_evaluation(module.last_without_grad);
    module.base = std::max(module.base, output.call);  // whatever it did before was not this forward
    module.with_grad = true;
    module.backwards = output.backwards;
    module.gradients.assign(1, {address_of(output.parameter), gradient_of(output.parameter)});
  }
  module.calls = std::max(module.calls, output.call + 1);
  module.ignored = another;
  if (another) return false;
  const int64_t nth = output.call - module.base;
  if (nth < 0 || nth >= kShownCalls) return false;
  std::string numbered;
  const std::string& label = nth == 0 ? name : numbered = label_of(name, nth);
  const at::Tensor& tensor = output.tensor;
  const Candidate candidate{&label,
                            nullptr,
                            Kind::Activation,
                            output.tap,
                            tensor,
                            /*expected=*/true,
                            /*may_vary=*/true,
                            find_refusal(refusals_, label, tensor)};
  int32_t& at = module.entries[static_cast<size_t>(nth)];
  if (at < 0) {
    at = static_cast<int32_t>(entries_.size());
    entries_.push_back({&named, output.call, nth, 0, -1, std::nullopt});
    if (plan()) {
      const auto planned = index_->by_name.find(label);
      if (planned != index_->by_name.end()) {
        if (some_stand_in_) clear_place(planned->second);
        entries_.back().candidate = static_cast<int64_t>(planned->second);
      } else if (output.tap && tensor.defined()) {
        entries_.back().candidate = place_to_stand_in(candidate);
        entries_.back().stands_in = entries_.back().candidate >= 0;
        some_stand_in_ = some_stand_in_ || entries_.back().stands_in;
      }
    }
  }
  Entry& entry = entries_[static_cast<size_t>(at)];
  entry.number = numbers_++;
  if (!output.grad_mode) module.last_without_grad = entry.number;
  const auto planned = static_cast<size_t>(entry.candidate);
  const Fit found_fit = entry.candidate < 0 ? Fit::Misfit : fit(*plan(), *index_, planned, candidate);
  const bool as_planned = found_fit == Fit::Whole && plan()->tensors[planned].tap == output.tap;
  if (as_planned && !entry.stands_in) {
    entry.spec.reset();
  } else {
    entry.spec = describe(candidate);
  }
  if (!plan()) return true;
  entry.misfit = entry.stands_in || beholder::needs_place(found_fit);
  if (!is_gathered(found_fit) || !plan()->tensors[planned].refusal.empty()) {
    set_captured(entry, false);  // an amended output counts as it is in the end
    return true;
  }
  try {
    gather(*plan(), *index_, *lease_, planned, tensor, found_fit);
  } catch (const std::exception& e) {
    set_captured(entry, false);
    entry.misfit = true;
    refuse(refusals_, label, tensor, unreadable(e));
    throw;
  }
  if (entry.stands_in) (*lease_).present[planned].name = label;
  record_filled(*lease_, tensor.device());
  set_captured(entry, true);
  return true;
}

bool ActivationSession::captured() const {
  return std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) { return entry.captured; });
}

bool ActivationSession::needs_place() const {
  return !plan() || std::any_of(entries_.begin(), entries_.end(), [](const Entry& e) { return e.misfit; });
}

std::vector<TensorSpec> ActivationSession::specs() const {
  std::vector<TensorSpec> out;
  for (const auto& entry : entries_) {
    out.push_back(spec_of(entry));
    if (!entry.stands_in) continue;  // else a place for the largest seen, by whichever name
    out.back() = place_for_both(plan()->tensors[static_cast<size_t>(entry.candidate)], std::move(out.back()));
  }
  return out;
}

}  // namespace beholder
