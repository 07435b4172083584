// One picture's activations: from the forward hooks and taps of one forward into a slot. Training thread only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "beholder/capture.h"
#include "beholder/plan.h"

namespace beholder {

/// Follows the outputs of one forward. The first forward in grad mode wins (in a run without grad, the first), so that
/// an evaluation does not overwrite a training step. With a plan, outputs are copied into its slot as they come;
/// without one (or where they do not match it) they are only described, for a plan to be made.
class ActivationCapture {
 public:
  /// `plan` may be nullptr; `slot` is nullptr then.
  /// `refusals` outlives this object and learns of tensors that cannot be gathered.
  ActivationCapture(std::shared_ptr<const Plan> plan, const GatherIndex* index, Slot* slot, Refusals& refusals);

  /// A module's output (or a tap's). `call`: how often it was called since arming; `amended`: replaces what came before
  /// for this call.
  void add(const std::string& name, int64_t call, bool amended, bool grad_mode, bool tap, const at::Tensor& tensor);

  /// Every activation of the plan came, and nothing else: the slot holds a picture.
  bool complete() const;
  /// Nothing came at all.
  bool empty() const { return seen_.empty(); }
  /// What came, in order.
  const std::vector<TensorSpec>& specs() const { return specs_; }
  const std::shared_ptr<const Plan>& plan() const { return plan_; }
  Slot* slot() const { return slot_; }

 private:
  void start_over();
  const std::string& unique(const std::string& name, bool tap);
  bool belongs_to_another_forward(const std::string& name, int64_t call, bool amended);

  std::shared_ptr<const Plan> plan_;
  const GatherIndex* index_;
  Slot* slot_;
  Refusals& refusals_;
  std::unordered_map<std::string, size_t> planned_;  // name -> candidate
  std::unordered_map<std::string, size_t> seen_;     // name -> specs_
  std::vector<TensorSpec> specs_;
  std::vector<bool> captured_;                      // per candidate of the plan
  std::unordered_map<std::string, int64_t> calls_;  // of each module, up to now
  std::unordered_map<std::string, int64_t> base_;   // calls before the forward that counts
  std::string first_;                               // the module whose next call would be another forward
  bool several_ = false;                            // a second module was seen
  std::unordered_map<std::string, bool> is_tap_;    // of each name, its first owner
  std::string other_name_;
  std::unordered_set<std::string> misfits_;  // what came otherwise than planned
  bool grad_mode_ = false, done_ = false;
};

}  // namespace beholder
