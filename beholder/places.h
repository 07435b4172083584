// Which tensor of a plan each tensor of this update() is, and what the next plan must have a place for. Internal;
// training thread only.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "beholder/capture.h"
#include "beholder/plan.h"
#include "beholder/settings.h"
#include "beholder/tensors.h"

namespace beholder {

/// Known by their names; the others stand in order.
bool known_by_name(Values values);

/// Parameters, gradients, buffers and the frame stand in a plan as they stand in their list. Arrays, activations and
/// the states of optimizers are known by their names: what does not come keeps its place, what is new gets one. An
/// array under a name that the plan does not know stands meanwhile where one of its rank, dtype and kind is missing,
/// and where that name has come once (others keep their places, unless there would be nothing to show).
class Places {
 public:
  struct Place {
    size_t tensor = 0;  ///< of the plan; meaningless for a Misfit
    Fit fit = Fit::Misfit;
    bool renamed = false;  ///< the plan knows it by another name
  };

  /// Another plan from now on.
  void follow(const Plan& plan);
  /// The attached modules, or what they own, are others than before.
  void list_changed();

  /// Finds the places of the candidates. True where a picture can be made of them: with all of them, or with some where
  /// others need another plan. `nothing`: there is nothing to show, and `message` says why.
  bool find(const Plan& plan, const GatherIndex& index, const std::vector<Candidate>& candidates,
            const Settings& settings, bool nothing, const std::string& message);
  /// After find(): of each candidate.
  const Place& at(size_t candidate) const { return places_[candidate]; }
  /// After find(): some candidate needs another plan.
  bool misfits() const { return misfits_; }

  /// What the next plan is made for: the candidates, in places as large as they have been (`plan` may be nullptr), and
  /// what is missing now.
  std::vector<TensorSpec> merged(const Plan* plan, const std::vector<Candidate>& candidates, const Settings& settings,
                                 bool nothing) const;
  /// The same of activations.
  std::vector<TensorSpec> merged(const Plan* plan, std::vector<TensorSpec> outputs) const;

  /// A picture of these was captured.
  void captured(const std::vector<Candidate>& candidates) {
    ++captures_;
    for (const auto& candidate : candidates) {
      if (!candidate.refusal) see(*candidate.name);
    }
    forget_some_names();
  }
  /// The same of a session's activations.
  template <typename Session>
  void captured(const Session& session) {
    ++captures_;
    session.for_each([this](const TensorSpec& spec) { see(spec.name); });
    forget_some_names();
  }

 private:
  struct Seen {
    int64_t times = 0, last = 0;  // captures
  };

  void see(const std::string& name) {
    Seen& seen = seen_[name];
    ++seen.times;
    seen.last = captures_;
  }
  bool find_in_order(const Plan& plan, const GatherIndex& index, const std::vector<Candidate>& candidates, bool whole);
  void find_by_name(const Plan& plan, const GatherIndex& index, const std::vector<Candidate>& candidates,
                    const Settings& settings);
  void seat_strangers(const Plan& plan, const GatherIndex& index, const std::vector<Candidate>& candidates,
                      const Settings& settings, const std::vector<size_t>& strangers, std::vector<size_t> missing);
  /// As large as both, where a part of it can be filled.
  TensorSpec place_for(const Plan& plan, size_t tensor, TensorSpec newer, const Settings& settings) const;
  std::vector<TensorSpec> marked(std::vector<TensorSpec> specs) const;
  bool keeps_place(const TensorSpec& absent) const;
  void forget_some_names();

  std::vector<Place> places_;
  bool misfits_ = false;
  bool compare_names_ = true;                                     // of what stands in order
  std::unordered_map<std::string, std::vector<size_t>> by_name_;  // of the plan's tensors
  std::unordered_map<std::string, Seen> seen_;
  const Plan* followed_ = nullptr;      // only compared
  std::vector<bool> of_one_size_;       // of its tensors: on a device, a part of which is no box
  Values values_ = Values::Parameters;  // whose names these are
  int64_t captures_ = 0;
};

}  // namespace beholder
