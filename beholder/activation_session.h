// One picture's activations: from the forward hooks and taps of one forward into a slot. Internal; training thread
// only.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "beholder/capture.h"
#include "beholder/plan.h"

namespace beholder {

/// What a module computed, or a tap was given.
struct ActivationOutput {
  const std::string& name;
  int64_t call = 0;      ///< how often it was called since arming, from 0
  bool amended = false;  ///< replaces what came before for this call
  bool grad_mode = true;
  bool tap = false;
  const at::Tensor& tensor;
  int64_t backwards = 0;                  ///< functions of backward passes that this thread has run since arming
  const at::Tensor* parameter = nullptr;  ///< one of the module's own; nullptr for a tap
};

/// Follows the outputs of one forward, from arming to the next update().
///
/// A forward ends with its backward pass: of a module that was seen before it, later calls belong to another forward,
/// and are not shown; a module that comes for the first time is. Until then a module's second call is shown as
/// "name #2". Outputs without grad are an evaluation's where the same module runs with grad later, and then all up to
/// its last one are forgotten; else they are shown (a frozen backbone, what runs inside an autograd::Function). Without
/// a backward pass, calls without grad end where the first module is called again after others.
///
/// With a plan, outputs are copied into its slot as they come. What has no place in it, or none as large, is described
/// for a plan to be made. A tap under a name that the plan does not know stands meanwhile where one of its rank and
/// dtype is missing whose name came once; it leaves where that comes after all.
class ActivationSession {
 public:
  /// `refusals` outlives this object and learns of tensors that cannot be gathered. Without a plan nothing is copied.
  ActivationSession(SlotLease lease, const GatherIndex* index, Refusals& refusals);

  /// Throws what LibTorch throws, when an output cannot be gathered; it is left out then. False where the output
  /// belongs to another forward.
  bool add(const ActivationOutput& output);

  /// Nothing came at all.
  bool empty() const { return entries_.empty(); }
  /// Some of it is in the slot.
  bool captured() const;
  /// Everything that the plan knows came: nothing else is waited for.
  bool complete() const { return plan() && missing_ == 0; }
  /// Something came that has no place in the plan.
  bool needs_place() const;
  /// What came, in order; what stands in a larger place with its sizes.
  std::vector<TensorSpec> specs() const;
  /// The same, each of them by visit(spec).
  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (const auto& entry : entries_) visit(spec_of(entry));
  }
  const std::shared_ptr<const Plan>& plan() const { return lease_.plan(); }
  SlotLease& lease() { return lease_; }

 private:
  /// A module called many times in one forward (a recurrent cell) shows its first calls.
  static constexpr int64_t kShownCalls = 8;

  struct Module {
    bool tap = false;
    int64_t base = 0;   // calls before the forward that counts
    int64_t calls = 0;  // up to now
    bool with_grad = false;
    bool ignored = false;            // its last call
    int64_t last_without_grad = -1;  // number of its newest entry
    int64_t backwards = 0;           // when it was called first
    // Of each parameter that it was called with, as of then: its gradient, and how often that was written.
    c10::SmallVector<std::pair<const void*, std::pair<const void*, int64_t>>, 1> gradients;
    std::array<int32_t, kShownCalls> entries{-1, -1, -1, -1, -1, -1, -1, -1};  // of each call that is shown
  };
  using Modules = std::unordered_map<std::string, Module>;
  struct Entry {
    Modules::value_type* module;
    int64_t call, nth, number;       // nth: of those that are shown
    int64_t candidate;               // of the plan, -1 where it has none of this name
    std::optional<TensorSpec> spec;  // nothing where it is as planned
    bool captured = false, misfit = false;
    bool stands_in = false;  // the plan knows the place by another name
  };

  Modules::value_type& module_of(const std::string& name, bool tap);
  bool belongs_to_another_forward(Modules::value_type& module, const ActivationOutput& output);
  void forget_evaluation(int64_t last);
  int64_t place_to_stand_in(const Candidate& candidate) const;
  void clear_place(size_t planned);
  void set_captured(Entry& entry, bool captured);
  const TensorSpec& spec_of(const Entry& entry) const {
    return entry.spec ? *entry.spec : plan()->tensors[static_cast<size_t>(entry.candidate)];
  }

  SlotLease lease_;
  const GatherIndex* index_;
  Refusals& refusals_;
  Modules modules_;             // by name
  std::vector<Entry> entries_;  // in the order in which they came
  std::string first_without_grad_;
  bool others_without_grad_ = false, without_grad_ended_ = false;
  bool some_stand_in_ = false;
  int64_t numbers_ = 0;
  int64_t missing_ = 0;  // tensors of the plan that can be shown and have not come
};

}  // namespace beholder
