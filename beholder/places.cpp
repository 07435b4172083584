#include "beholder/places.h"

#include <algorithm>
#include <utility>

namespace beholder {
namespace {

/// In the classic layout the picture is as large as its frames, and with show_all as its other tensors, and a film has
/// pictures of one size: a place that has become too small gets a quarter more than it needs, so that it grows rarely.
TensorSpec roomy_place(const TensorSpec& older, TensorSpec newer, const Settings& settings) {
  TensorSpec place = place_for_both(older, std::move(newer));
  const bool sizes_picture = settings.layout == LayoutKind::Classic && (settings.show_all || place.kind == Kind::Frame);
  if (!sizes_picture || !older.refusal.empty() || !place.refusal.empty() || place.sizes.size() != older.sizes.size()) {
    return place;
  }
  std::vector<int64_t> sizes = place.sizes;
  double elements = 1;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] > older.sizes[d]) sizes[d] += sizes[d] / 4;
    elements *= static_cast<double>(sizes[d]);
  }
  if (sizes == place.sizes || elements > static_cast<double>(kMostElements)) return place;
  if (place.dense) place.strides = contiguous_strides(sizes);
  place.sizes = std::move(sizes);
  place.kind = resolve_kind(place.asked, place.sizes);
  return place;
}

}  // namespace

bool known_by_name(Values values) { return values == Values::Arrays || values == Values::Optimizer; }

void Places::follow(const Plan& plan) {
  if (plan.settings.values != values_) seen_.clear();
  values_ = plan.settings.values;
  compare_names_ = true;
  by_name_.clear();
  for (size_t i = 0; i < plan.tensors.size(); ++i) by_name_[plan.tensors[i].name].push_back(i);
  followed_ = &plan;
  of_one_size_.assign(plan.tensors.size(), false);
  for (const auto& view : plan.views) {
    for (const auto& staged : view.sections) {
      if (staged.box_sizes.empty() && !plan.tensors[staged.candidate].device.is_cpu())
        of_one_size_[staged.candidate] = true;
    }
  }
}

TensorSpec Places::place_for(const Plan& plan, size_t tensor, TensorSpec newer, const Settings& settings) const {
  // A larger place would never be filled.
  if (followed_ == &plan && of_one_size_[tensor]) return newer;
  return roomy_place(plan.tensors[tensor], std::move(newer), settings);
}

void Places::list_changed() {
  compare_names_ = true;
  seen_.clear();
}

bool Places::find(const Plan& plan, const GatherIndex& index, const std::vector<Candidate>& candidates,
                  const Settings& settings, bool nothing, const std::string& message) {
  places_.assign(candidates.size(), Place{});
  misfits_ = true;
  if (candidates.empty()) {
    misfits_ = !plan.tensors.empty() || plan.views.front().message != message;
    return !misfits_;
  }
  if (known_by_name(settings.values)) {
    find_by_name(plan, index, candidates, settings);
  } else if (!find_in_order(plan, index, candidates, /*whole=*/nothing)) {
    return false;
  }
  bool some = false;
  misfits_ = false;
  for (const Place& place : places_) {
    misfits_ = misfits_ || needs_place(place.fit) || place.renamed;
    some = some || (is_gathered(place.fit) && plan.tensors[place.tensor].refusal.empty());
  }
  return some || !misfits_;
}

/// False where the plan was made for another list.
bool Places::find_in_order(const Plan& plan, const GatherIndex& index, const std::vector<Candidate>& candidates,
                           bool whole) {
  if (plan.tensors.size() != candidates.size()) return false;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (compare_names_ && (plan.tensors[i].name != *candidates[i].name || !plan.tensors[i].same_kind(candidates[i]))) {
      return false;
    }
    prefetch_storage(candidates[i].tensor);
    places_[i] = {i, fit(plan, index, i, candidates[i])};
    if (whole && places_[i].fit != Fit::Whole) return false;
  }
  compare_names_ = false;  // they change only with the list
  return true;
}

void Places::find_by_name(const Plan& plan, const GatherIndex& index, const std::vector<Candidate>& candidates,
                          const Settings& settings) {
  std::vector<bool> taken(plan.tensors.size(), false);
  const auto take = [&](size_t candidate, size_t tensor) {
    if (taken[tensor] || !plan.tensors[tensor].same_kind(candidates[candidate])) return false;
    const Fit found = fit(plan, index, tensor, candidates[candidate]);
    if (found == Fit::Misfit) return false;
    places_[candidate] = {tensor, found};
    taken[tensor] = true;
    return true;
  };
  std::vector<size_t> strangers;
  for (size_t i = 0; i < candidates.size(); ++i) {
    // Usually they come as they came before.
    if (i < plan.tensors.size() && plan.tensors[i].name == *candidates[i].name && take(i, i)) continue;
    const auto found = by_name_.find(*candidates[i].name);
    if (found == by_name_.end()) {
      strangers.push_back(i);
      continue;
    }
    for (const size_t tensor : found->second) {
      if (take(i, tensor)) break;
    }
  }
  if (strangers.empty() || settings.values != Values::Arrays) return;
  std::vector<size_t> passing, others;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const TensorSpec& spec = plan.tensors[i];
    if (taken[i] || !spec.refusal.empty() || spec.name == settings.solo) continue;
    (spec.passing ? passing : others).push_back(i);
  }
  seat_strangers(plan, index, candidates, settings, strangers, passing);
  // Rather than nothing.
  const bool some = std::any_of(places_.begin(), places_.end(), [&](const Place& place) {
    return is_gathered(place.fit) && plan.tensors[place.tensor].refusal.empty();
  });
  if (!some) seat_strangers(plan, index, candidates, settings, strangers, others);
}

/// Each of the strangers takes one of the places: of its own sizes where there is one, else the first that it can.
void Places::seat_strangers(const Plan& plan, const GatherIndex& index, const std::vector<Candidate>& candidates,
                            const Settings& settings, const std::vector<size_t>& strangers,
                            std::vector<size_t> missing) {
  constexpr int kTries = 64;  // that are more than a look
  for (const size_t i : strangers) {
    const Candidate& candidate = candidates[i];
    if (!candidate.tensor.defined() || candidate.refusal) continue;
    const bool wanted = matches_filter(settings.filter, *candidate.name);
    size_t best = missing.size();
    Fit best_fit = Fit::Misfit;
    for (size_t m = 0, tries = 0; m < missing.size() && tries < kTries; ++m) {
      const TensorSpec& spec = plan.tensors[missing[m]];
      if (spec.dtype != candidate.tensor.scalar_type() || !spec.same_kind(candidate)) continue;
      ++tries;
      const Fit found = fit(plan, index, missing[m], candidate);
      if (!is_gathered(found) || wanted != matches_filter(settings.filter, spec.name)) continue;
      const bool same_sizes = candidate.tensor.sizes() == c10::IntArrayRef(spec.sizes);
      if (best < missing.size() && !same_sizes) continue;
      best = m;
      best_fit = found;
      if (same_sizes) break;
    }
    if (best == missing.size()) continue;
    places_[i] = {missing[best], best_fit, /*renamed=*/true};
    missing.erase(missing.begin() + static_cast<std::ptrdiff_t>(best));
  }
}

/// What came once, and not again for a while, was one of many names.
bool Places::keeps_place(const TensorSpec& absent) const {
  constexpr int64_t kAWhile = 3;
  const auto found = seen_.find(absent.name);
  return found != seen_.end() && (found->second.times > 1 || captures_ - found->second.last < kAWhile);
}

void Places::forget_some_names() {
  constexpr size_t kMostNames = 10000;
  constexpr int64_t kLongAgo = 1000;
  if (seen_.size() <= kMostNames) return;
  for (auto it = seen_.begin(); it != seen_.end();) {
    it = captures_ - it->second.last > kLongAgo ? seen_.erase(it) : std::next(it);
  }
}

std::vector<TensorSpec> Places::merged(const Plan* plan, const std::vector<Candidate>& candidates,
                                       const Settings& settings, bool nothing) const {
  std::vector<TensorSpec> specs;
  specs.reserve(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) {
    specs.push_back(describe(candidates[i]));
    // A place for the largest seen, by whichever name.
    if (plan && i < places_.size() && places_[i].renamed) {
      specs.back() = place_for(*plan, places_[i].tensor, std::move(specs.back()), settings);
    }
  }
  if (nothing) return specs;
  if (known_by_name(settings.values)) {
    return merged(plan && plan->settings.values == settings.values ? plan : nullptr, std::move(specs));
  }
  if (!plan || plan->settings.values != settings.values) return specs;
  if (plan->tensors.size() != specs.size()) return specs;
  for (size_t i = 0; i < specs.size(); ++i) {
    const bool keeps = candidates[i].tensor.defined() ? candidates[i].may_vary : candidates[i].expected;
    if (!keeps || plan->tensors[i].name != specs[i].name) continue;
    specs[i] = place_for(*plan, i, std::move(specs[i]), settings);
  }
  return specs;
}

std::vector<TensorSpec> Places::merged(const Plan* plan, std::vector<TensorSpec> outputs) const {
  if (!plan) return marked(std::move(outputs));
  // The n-th of a name is the n-th of that name.
  std::unordered_map<std::string, size_t> counts;
  const auto nth_of = [&](const std::string& name) { return name + '\0' + std::to_string(counts[name]++); };
  std::unordered_map<std::string, size_t> found;  // in `outputs`
  for (size_t i = 0; i < outputs.size(); ++i) found.emplace(nth_of(outputs[i].name), i);
  counts.clear();

  constexpr size_t kMostAbsent = 64;
  const size_t most_absent = kMostAbsent + 2 * outputs.size();
  std::vector<const TensorSpec*> absent;
  std::vector<TensorSpec> merged;
  // Those that stay stand in their old order, ...
  std::vector<std::pair<const TensorSpec*, int64_t>> old;
  for (const TensorSpec& spec : plan->tensors) {
    const auto here = found.find(nth_of(spec.name));
    if (here != found.end()) {
      old.emplace_back(&spec, static_cast<int64_t>(here->second));
    } else if (spec.refusal.empty() && keeps_place(spec) && absent.size() < most_absent) {
      absent.push_back(&spec);
      old.emplace_back(&spec, -1);
    }
  }
  std::vector<bool> known(outputs.size(), false);
  for (const auto& [spec, output] : old) {
    if (output >= 0) known[static_cast<size_t>(output)] = true;
  }
  // ... and new ones behind the one that they came after.
  const auto add_new_from = [&](size_t first) {
    for (size_t i = first; i < outputs.size() && !known[i]; ++i) {
      known[i] = true;
      merged.push_back(std::move(outputs[i]));
    }
  };
  add_new_from(0);
  for (const auto& [spec, output] : old) {
    if (output < 0) {
      merged.push_back(*spec);
      continue;
    }
    const auto at = static_cast<size_t>(output);
    const auto planned = static_cast<size_t>(spec - plan->tensors.data());
    merged.push_back(place_for(*plan, planned, std::move(outputs[at]), plan->settings));
    add_new_from(at + 1);
  }
  return marked(std::move(merged));
}

/// Says of each whether its name has come more than once.
std::vector<TensorSpec> Places::marked(std::vector<TensorSpec> specs) const {
  for (auto& spec : specs) {
    const auto found = seen_.find(spec.name);
    spec.passing = found == seen_.end() || found->second.times < 2;
  }
  return specs;
}

}  // namespace beholder
