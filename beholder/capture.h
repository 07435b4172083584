// Gathers the values that will be shown into a staging slot. Runs on the training thread: no allocation on a device, no
// synchronisation, no lock. (Sparse and quantized tensors are the exception: they are made dense, which allocates.)
#pragma once

#include <vector>

#include "beholder/plan.h"
#include "beholder/tensors.h"

namespace beholder {

/// A free slot of the plan that no device still works on, marked Filling; nullptr where there is none.
Slot* acquire_slot(const Plan& plan);

/// The sections of each candidate, so that one activation can be gathered alone.
struct GatherIndex {
  struct Place {
    size_t view, section;
  };
  explicit GatherIndex(const Plan& plan);
  std::vector<std::vector<Place>> by_candidate;
};

/// Enqueues the gathers of one candidate (an index into plan.tensors), for every view, on the current stream of its
/// device. REQUIRES plan.tensors[candidate].still_true(...) of the tensor. Throws what LibTorch throws.
void gather(const Plan& plan, const GatherIndex& index, Slot& slot, size_t candidate, const at::Tensor& tensor);

/// Marks the values as filled on every device's current stream.
void record_filled(Slot& slot);
/// Marks the values that came from one device so far, on whichever streams: a forward may use several.
void record_filled(Slot& slot, c10::Device device);
/// Marks the slot as ready for the render thread.
void finish(Slot& slot);
/// Gives the slot back unused.
void abandon(Slot& slot);

}  // namespace beholder
