#include "beholder/capture.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <stdexcept>

#include "beholder/gather_on_cpu.h"
#include "beholder/narrowing.h"
#include "beholder/presence.h"

namespace beholder {
namespace {

void gather_on_device(const StagedSection& staged, const at::Tensor& tensor, at::Tensor target) {
  if (!staged.box_sizes.empty()) {
    target.copy_(tensor.as_strided(staged.box_sizes, staged.box_strides, tensor.storage_offset() + staged.box_offset),
                 /*non_blocking=*/true);
    return;
  }
  // All of the tensor's memory as one row; the index counts in it.
  int64_t extent = 1;
  for (int64_t d = 0; d < tensor.dim(); ++d) extent += (tensor.size(d) - 1) * tensor.stride(d);
  target = selectable(target);
  at::index_select_out(target, selectable(tensor.as_strided({extent}, {1}, tensor.storage_offset())), 0, staged.index);
}

/// Of a box, what there is. (Of other selections a device gathers nothing but the whole.)
void gather_part_on_device(const Selection& selection, const at::Tensor& tensor, at::Tensor target) {
  std::vector<int64_t> counts, strides;
  int64_t offset = tensor.storage_offset();
  for (size_t d = 0; d < selection.box.size(); ++d) {
    const auto dim = static_cast<int64_t>(d);
    const Range& range = selection.box[d];
    counts.push_back(present_count(range, tensor.size(dim)));
    if (counts.back() == 0) return;
    strides.push_back(range.step * tensor.stride(dim));
    offset += range.start * tensor.stride(dim);
    target = target.narrow(dim, 0, counts.back());
  }
  target.copy_(tensor.as_strided(counts, strides, offset), /*non_blocking=*/true);
}

/// The box of a sparse or quantized tensor as a dense one. Only the part that is shown becomes dense.
at::Tensor densified(const at::Tensor& tensor, const Selection& selection) {
  at::Tensor part = tensor._is_zerotensor() ? at::zeros(tensor.sizes(), tensor.options()) : tensor.detach();
  for (size_t d = 0; d < selection.box.size(); ++d) {
    const Range& range = selection.box[d];
    const auto dim = static_cast<int64_t>(d);
    if (range.count == tensor.size(dim) && range.step == 1) continue;
    if (part.layout() == c10::kStrided) {
      part = part.slice(dim, range.start, range.start + range.step * (range.count - 1) + 1, range.step);
    } else {
      part = part.index_select(dim, at::arange(range.start, range.start + range.step * range.count, range.step,
                                               at::TensorOptions().dtype(at::kLong).device(part.device())));
    }
  }
  if (part.is_quantized()) part = part.dequantize();
  if (part.layout() != c10::kStrided) part = part.to_dense();
  return part.resolve_neg().contiguous();
}

/// The same for what cannot be cut before it is dense: compressed rows, channel-wise quantization, a vendor's blocks.
at::Tensor densified_whole(const at::Tensor& tensor, const Selection& selection) {
  at::Tensor whole = tensor.detach();
  if (whole.is_quantized()) whole = whole.dequantize();
  if (whole.layout() != c10::kStrided) whole = whole.to_dense();
  return densified(whole, selection);
}

at::Tensor dense_part(const at::Tensor& tensor, const Selection& selection) {
  try {
    return densified(tensor, selection);
  } catch (const std::exception&) {  // vendors throw what they like
    return densified_whole(tensor, selection);
  }
}

/// What there is of the selection, where the place is one of `planned` sizes.
void gather_part_densified(const Selection& selection, const std::vector<int64_t>& planned, const at::Tensor& tensor,
                           at::Tensor target) {
  if (selection.box.empty()) {  // on the CPU: see fit()
    gather_part_on_cpu(selection, planned, dense_part(tensor, selection), target);
    return;
  }
  Selection present = selection;
  for (size_t d = 0; d < present.box.size(); ++d) {
    const auto dim = static_cast<int64_t>(d);
    int64_t& count = present.box[d].count;
    count = present_count(selection.box[d], tensor.size(dim));
    if (count == 0) return;
    target = target.narrow(dim, 0, count);
  }
  target.copy_(dense_part(tensor, present));
}

void gather_densified(const StagedSection& staged, const Selection& selection, const at::Tensor& tensor,
                      at::Tensor target) {
  const at::Tensor dense = dense_part(tensor, selection);
  if (!selection.box.empty()) {
    target.copy_(dense.view(target.sizes()));
  } else if (dense.is_cpu()) {
    gather_on_cpu(staged, dense, target);
  } else {
    gather_on_device(staged, dense, target);
  }
}

void gather_section(const Plan& plan, Slot& slot, size_t view, size_t section, const at::Tensor& tensor, bool part) {
  const StagedSection& staged = plan.views[view].sections[section];
  const auto selection = [&]() -> const Selection& {
    return plan.views[view].layout->sections[staged.section].selection;
  };
  const at::Tensor& target = slot.targets[view][section];
  if (tensor.has_storage() && !tensor._is_zerotensor() && tensor.storage().nbytes() == 0)
    throw std::runtime_error("its memory was freed");
  const bool dense = plan.tensors[staged.candidate].dense;
  if (dense && tensor.is_cpu()) {  // a conjugate view is read as it lies: the magnitude is the same
    if (part) {
      gather_part_on_cpu(selection(), plan.tensors[staged.candidate].sizes, tensor, target);
    } else {
      gather_on_cpu(staged, tensor, target);
    }
    return;
  }
  // Below autograd: the copies are no part of anybody's graph, and skipping its dispatch halves their price.
  const at::NoGradGuard no_grad;
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  if (!dense && part) {
    gather_part_densified(selection(), plan.tensors[staged.candidate].sizes, tensor, target);
  } else if (!dense) {
    gather_densified(staged, selection(), tensor, target);
  } else if (part) {
    gather_part_on_device(selection(), tensor, target);
  } else {
    gather_on_device(staged, tensor, target);
  }
}

GatherIndex::Direct direct_of(const Plan& plan, const TensorSpec& spec, const std::vector<GatherIndex::Place>& places) {
  GatherIndex::Direct direct;
  const size_t rank = spec.sizes.size();
  if (!spec.refusal.empty() || !spec.dense || !spec.device.is_cpu() || rank > direct.sizes.size() ||
      places.size() > 1 || plan.slots.empty() || plan.slots.size() > direct.to.size()) {
    return direct;
  }
  direct.dtype = spec.dtype;
  direct.rank = static_cast<int64_t>(rank);
  std::copy(spec.sizes.begin(), spec.sizes.end(), direct.sizes.begin());
  std::copy(spec.strides.begin(), spec.strides.end(), direct.strides.begin());
  for (const auto& place : places) {
    const StagedSection& staged = plan.views[place.view].sections[place.section];
    const auto copy = box_copy_of(staged, static_cast<int64_t>(c10::elementSize(spec.dtype)));
    if (!copy) return direct;
    direct.copy = *copy;
    for (size_t slot = 0; slot < plan.slots.size(); ++slot) {
      direct.to[slot] = static_cast<char*>(plan.slots[slot]->targets[place.view][place.section].data_ptr());
    }
  }
  direct.possible = true;
  return direct;
}

}  // namespace

Slot* acquire_slot(const Plan& plan) {
  for (const auto& slot : plan.slots) {
    if (slot->state.load(std::memory_order_acquire) != Slot::State::Free) continue;
    // Also when it was filled and given back unseen: the next one may come on another stream.
    if (!slot->quiet()) continue;
    slot->state.store(Slot::State::Filling, std::memory_order_relaxed);
    for (auto& present : slot->present) present.came = false;
    return slot.get();
  }
  return nullptr;
}

GatherIndex::GatherIndex(const Plan& plan) : by_candidate(plan.tensors.size()) {
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    by_name.emplace(plan.tensors[i].name, i);
    showable += plan.tensors[i].refusal.empty() ? 1 : 0;
  }
  for (size_t view = 0; view < plan.views.size(); ++view) {
    for (size_t section = 0; section < plan.views[view].sections.size(); ++section) {
      by_candidate[plan.views[view].sections[section].candidate].push_back({view, section});
    }
  }
  for (size_t i = 0; i < plan.tensors.size(); ++i) direct.push_back(direct_of(plan, plan.tensors[i], by_candidate[i]));
}

bool GatherIndex::Direct::is_as_planned(const at::Tensor& tensor) const {
  if (!possible || !tensor.defined() || tensor.scalar_type() != dtype || !tensor.is_cpu() || !is_plain(tensor) ||
      tensor.dim() != rank) {
    return false;
  }
  const int64_t *sizes_now = tensor.sizes().data(), *strides_now = tensor.strides().data();
  return std::equal(sizes_now, sizes_now + rank, sizes.begin()) &&
         std::equal(strides_now, strides_now + rank, strides.begin());
}

Fit fit(const Plan& plan, const GatherIndex& index, size_t candidate, const Candidate& tensor) try {
  if (!tensor.refusal && index.direct[candidate].is_as_planned(tensor.tensor)) return Fit::Whole;
  const TensorSpec& spec = plan.tensors[candidate];
  const Fit fit = spec.fit(tensor);
  if ((fit != Fit::Part && fit != Fit::Larger) || spec.device.is_cpu()) return fit;
  const bool boxes =
      std::all_of(index.by_candidate[candidate].begin(), index.by_candidate[candidate].end(),
                  [&](const auto& place) { return !plan.views[place.view].sections[place.section].box_sizes.empty(); });
  return boxes ? fit : Fit::Misfit;
} catch (const std::exception&) {  // of a tensor that does not say how it lies: describe() tells of it
  return Fit::Misfit;
}

void gather(const Plan& plan, const GatherIndex& index, Slot& slot, size_t candidate, const at::Tensor& tensor,
            Fit fit) {
  Presence& present = slot.present[candidate];
  present.came = false;
  const GatherIndex::Direct& direct = index.direct[candidate];
  if (direct.possible && fit == Fit::Whole) {
    if (char* const to = direct.to[slot.number]) {
      if (tensor.storage().nbytes() == 0) throw std::runtime_error("its memory was freed");
      copy_box(direct.copy, values_of(tensor), to);
    }
    present.sizes.clear();
    present.name.clear();
    present.came = true;
    return;
  }
  for (const auto& place : index.by_candidate[candidate]) {
    gather_section(plan, slot, place.view, place.section, tensor, fit != Fit::Whole);
  }
  present.sizes.clear();
  if (fit != Fit::Whole && tensor.sizes() != c10::IntArrayRef(plan.tensors[candidate].sizes)) {
    present.sizes = tensor.sizes().vec();
  }
  present.name.clear();
  present.came = true;
}

SlotLease::SlotLease(std::shared_ptr<const Plan> plan) : plan_(std::move(plan)), slot_(acquire_slot(*plan_)) {}

SlotLease& SlotLease::operator=(SlotLease&& other) noexcept {
  if (this == &other) return *this;
  give_back();
  plan_ = std::move(other.plan_);
  slot_ = std::exchange(other.slot_, nullptr);
  return *this;
}

void SlotLease::give_back() noexcept {
  if (slot_) abandon(*std::exchange(slot_, nullptr));
}

void record_filled(Slot& slot) {
  for (auto& event : slot.filled) event.record();
}

void record_filled(Slot& slot, c10::Device device) {
  // An event of another device is not ours to record; one of the CPU needs none.
  for (auto& event : slot.filled) {
    if (event.device() == device) event.extend();
  }
}

void finish(Slot& slot) { slot.state.store(Slot::State::Filled, std::memory_order_release); }

void abandon(Slot& slot) { slot.state.store(Slot::State::Free, std::memory_order_release); }

}  // namespace beholder
