// Gathers the values that will be shown into a staging slot. Runs on the training thread: no allocation on a device, no
// synchronisation, no lock. (Sparse and quantized tensors are the exception: they are made dense, which allocates.)
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "beholder/gather_on_cpu.h"
#include "beholder/plan.h"
#include "beholder/tensors.h"

namespace beholder {

/// Asks for where its values lie, while something else is done. See prefetch_tensor().
inline void prefetch_storage(const at::Tensor& tensor) {
  if (tensor.defined() && tensor.has_storage()) __builtin_prefetch(tensor.storage().unsafeGetStorageImpl());
}

/// A free slot of the plan that no device still works on, marked Filling; nullptr where there is none.
Slot* acquire_slot(const Plan& plan);

/// A slot that is being filled or drawn from: given back when this ends.
class SlotLease {
 public:
  SlotLease() = default;
  /// A free slot of the plan, if there is one.
  explicit SlotLease(std::shared_ptr<const Plan> plan);
  SlotLease(SlotLease&& other) noexcept : plan_(std::move(other.plan_)), slot_(std::exchange(other.slot_, nullptr)) {}
  SlotLease& operator=(SlotLease&& other) noexcept;
  ~SlotLease() { give_back(); }

  explicit operator bool() const { return slot_ != nullptr; }
  Slot* operator->() const { return slot_; }
  Slot& operator*() const { return *slot_; }
  const std::shared_ptr<const Plan>& plan() const { return plan_; }
  /// Unused; what was begun on devices is still waited for.
  void give_back() noexcept;

 private:
  std::shared_ptr<const Plan> plan_;
  Slot* slot_ = nullptr;
};

/// The sections of each candidate, so that one activation can be gathered alone.
struct GatherIndex {
  struct Place {
    size_t view, section;
  };
  /// What it takes to compare a tensor of this process's memory with the plan and to copy it, close together: after a
  /// training step nothing of the plan is in the caches. Tensors of many dimensions, and those that are shown in
  /// several places or as no box, take the long way.
  struct Direct {
    static constexpr int64_t kMostDims = 5;
    bool possible = false;
    c10::ScalarType dtype = c10::ScalarType::Undefined;
    int64_t rank = 0;
    std::array<int64_t, kMostDims> sizes{}, strides{};
    std::array<char*, kSlots> to{};  ///< in each slot; nullptr where nothing is shown of it
    BoxCopy copy;

    /// It is exactly as planned. False may also mean that it takes the long way.
    bool is_as_planned(const at::Tensor& tensor) const;
  };
  explicit GatherIndex(const Plan& plan);
  std::vector<Direct> direct;  ///< of each candidate
  std::vector<std::vector<Place>> by_candidate;
  std::unordered_map<std::string, size_t> by_name;  ///< the first of each name
  int64_t showable = 0;                             ///< candidates that can be shown
};

/// How a tensor fits the place that the plan has for it, and whether its device can gather it there.
Fit fit(const Plan& plan, const GatherIndex& index, size_t candidate, const Candidate& tensor);

/// Enqueues the gathers of one candidate (an index into plan.tensors), for every view, on the current stream of its
/// device, and notes in the slot what came. REQUIRES is_gathered(fit). Throws what LibTorch throws.
void gather(const Plan& plan, const GatherIndex& index, Slot& slot, size_t candidate, const at::Tensor& tensor,
            Fit fit = Fit::Whole);

/// Asks for the first values of a candidate that fits as a Whole.
inline void prefetch_values(const GatherIndex& index, size_t candidate, const at::Tensor& tensor) {
  const GatherIndex::Direct& direct = index.direct[candidate];
  // (What has none of its own is refused by gather().)
  if (direct.possible && direct.to[0] && tensor.has_storage())
    __builtin_prefetch(values_of(tensor) + direct.copy.offset);
}

/// Marks the values as filled on every device's current stream.
void record_filled(Slot& slot);
/// Marks the values that came from one device so far, on whichever streams: a forward may use several.
void record_filled(Slot& slot, c10::Device device);
/// Marks the slot as ready for the render thread.
void finish(Slot& slot);
/// Gives the slot back unused.
void abandon(Slot& slot);

}  // namespace beholder
