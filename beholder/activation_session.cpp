#include "beholder/activation_session.h"

#include <algorithm>
#include <utility>

namespace beholder {
namespace {

/// A module called many times in one forward (a recurrent cell) shows its first calls.
constexpr int64_t kShownCalls = 8;

std::string label_of(const std::string& name, int64_t nth) {
  return nth == 0 ? name : name + " #" + std::to_string(nth + 1);
}

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
  for (size_t i = 0; i < plan()->tensors.size(); ++i) {
    planned_.emplace(plan()->tensors[i].name, i);
    missing_ += plan()->tensors[i].refusal.empty() ? 1 : 0;
  }
}

/// A tap may have the name of a module: whichever comes second is marked.
const std::string& ActivationSession::unique(const std::string& name, bool tap) {
  if (is_tap_.emplace(name, tap).first->second == tap) return name;
  other_name_ = name + (tap ? " (tap)" : " (module)");
  return other_name_;
}

bool ActivationSession::belongs_to_another_forward(Module& module, const std::string& name,
                                                   const ActivationOutput& output) {
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
  return output.backwards > module.backwards ||
         gradient_of(output.parameter) != std::make_pair(module.gradient, module.gradient_version);
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
    if (entry.number > last) continue;
    Module& module = modules_[entry.module];
    module.base = std::max(module.base, entry.call + 1);
  }
  for (auto& entry : entries_) {
    const std::string label = label_of(entry.module, entry.call - modules_[entry.module].base);
    if (entry.number <= last || entry.spec.name != label) set_captured(entry, false);
    if (entry.number <= last) continue;
    if (entry.spec.name != label) {
      entry.spec.name = label;
      entry.candidate = -1;
    }
    kept.push_back(std::move(entry));
  }
  entries_ = std::move(kept);
  by_label_.clear();
  for (size_t i = 0; i < entries_.size(); ++i) by_label_.emplace(entries_[i].spec.name, i);
  first_without_grad_.clear();
  others_without_grad_ = without_grad_ended_ = false;
}

bool ActivationSession::add(const ActivationOutput& output) {
  const std::string& name = unique(output.name, output.tap);
  Module& module = modules_[name];
  const bool another = belongs_to_another_forward(module, name, output);
  const bool begins_grad = output.grad_mode && !module.with_grad;
  if (begins_grad) {
    if (module.last_without_grad >= 0) forget_evaluation(module.last_without_grad);
    module.base = std::max(module.base, output.call);  // whatever it did before was not this forward
    module.with_grad = true;
    module.backwards = output.backwards;
    std::tie(module.gradient, module.gradient_version) = gradient_of(output.parameter);
  }
  module.calls = std::max(module.calls, output.call + 1);
  module.ignored = another;
  if (another) return false;
  const int64_t nth = output.call - module.base;
  if (nth < 0 || nth >= kShownCalls) return false;
  const std::string label = label_of(name, nth);
  const at::Tensor& tensor = output.tensor;
  const Candidate candidate{&label,
                            nullptr,
                            Kind::Activation,
                            output.tap,
                            tensor,
                            /*expected=*/true,
                            /*may_vary=*/true,
                            find_refusal(refusals_, label, tensor)};
  const auto [found, is_new] = by_label_.emplace(label, entries_.size());
  if (is_new) entries_.push_back({name, output.call, 0, {}});
  Entry& entry = entries_[found->second];
  entry.number = numbers_++;
  if (!output.grad_mode) module.last_without_grad = entry.number;
  entry.spec = describe(candidate);
  if (!plan()) return true;
  const auto planned = planned_.find(label);
  entry.candidate = planned == planned_.end() ? -1 : static_cast<int64_t>(planned->second);
  const Fit found_fit = planned == planned_.end() ? Fit::Misfit : fit(*plan(), *index_, planned->second, candidate);
  entry.misfit = beholder::needs_place(found_fit);
  if (!is_gathered(found_fit) || !plan()->tensors[planned->second].refusal.empty()) {
    set_captured(entry, false);  // an amended output counts as it is in the end
    return true;
  }
  try {
    gather(*plan(), *index_, *lease_, planned->second, tensor, found_fit);
  } catch (const std::exception& e) {
    set_captured(entry, false);
    entry.misfit = true;
    refuse(refusals_, label, tensor, unreadable(e));
    throw;
  }
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
  for (const auto& entry : entries_) out.push_back(entry.spec);
  return out;
}

}  // namespace beholder
