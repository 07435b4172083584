#include "beholder/activations.h"

#include <algorithm>
#include <utility>

namespace beholder {
namespace {

/// A module called many times in one forward (a recurrent cell) shows its first calls.
constexpr int64_t kShownCalls = 8;

}  // namespace

ActivationCapture::ActivationCapture(std::shared_ptr<const Plan> plan, const GatherIndex* index, Slot* slot,
                                     Refusals& refusals)
    : plan_(std::move(plan)), index_(index), slot_(slot), refusals_(refusals) {
  if (!plan_) return;
  for (size_t i = 0; i < plan_->tensors.size(); ++i) planned_.emplace(plan_->tensors[i].name, i);
  captured_.assign(plan_->tensors.size(), false);
}

void ActivationCapture::start_over() {
  seen_.clear();
  specs_.clear();
  std::fill(captured_.begin(), captured_.end(), false);
  base_ = calls_;
  first_.clear();
  misfits_.clear();
  several_ = done_ = false;
}

/// A tap may have the name of a module: whichever comes second is marked.
const std::string& ActivationCapture::unique(const std::string& name, bool tap) {
  if (is_tap_.emplace(name, tap).first->second == tap) return name;
  other_name_ = name + (tap ? " (tap)" : " (module)");
  return other_name_;
}

bool ActivationCapture::belongs_to_another_forward(const std::string& name, int64_t call, bool amended) {
  if (done_) return true;
  if (first_.empty()) {
    first_ = name;
    return false;
  }
  several_ = several_ || name != first_;
  // The first module is called again after others were: a new forward. (A network that calls its first module twice
  // with others in between shows what came before.)
  done_ = several_ && name == first_ && !amended && call > base_[name];
  return done_;
}

void ActivationCapture::add(const std::string& given, int64_t call, bool amended, bool grad_mode, bool tap,
                            const at::Tensor& tensor) {
  const std::string& name = unique(given, tap);
  auto& calls = calls_[name];
  if (!grad_mode && grad_mode_) return;
  if (grad_mode && !grad_mode_) {
    grad_mode_ = true;
    start_over();
  }
  calls = std::max(calls, call + 1);
  if (belongs_to_another_forward(name, call, amended)) return;
  const auto base = base_.find(name);
  const int64_t nth = call - (base == base_.end() ? 0 : base->second);
  if (nth < 0 || nth >= kShownCalls) return;
  const std::string label = nth == 0 ? name : name + " #" + std::to_string(nth + 1);
  const Candidate candidate{&label, nullptr, Kind::Activation, tap, tensor, find_refusal(refusals_, label, tensor)};

  const auto seen = seen_.find(label);
  if (seen == seen_.end()) {
    seen_.emplace(label, specs_.size());
    specs_.push_back(describe(candidate));
  } else {
    specs_[seen->second] = describe(candidate);
  }
  if (!plan_) return;
  const auto planned = planned_.find(label);
  if (planned == planned_.end() || !plan_->tensors[planned->second].still_true(candidate)) {
    misfits_.insert(label);
    return;
  }
  misfits_.erase(label);  // an amended output counts as it is in the end
  if (plan_->tensors[planned->second].refusal.empty()) {
    try {
      gather(*plan_, *index_, *slot_, planned->second, tensor);
    } catch (const std::exception& e) {
      misfits_.insert(label);
      refuse(refusals_, label, tensor, unreadable(e));
      throw;
    }
    record_filled(*slot_, tensor.device());
  }
  captured_[planned->second] = true;
}

bool ActivationCapture::complete() const {
  return plan_ && misfits_.empty() && !captured_.empty() &&
         std::all_of(captured_.begin(), captured_.end(), [](bool c) { return c; });
}

}  // namespace beholder
