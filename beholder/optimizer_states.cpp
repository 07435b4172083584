#include "beholder/optimizer_states.h"

#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/lbfgs.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <sstream>
#include <string>
#include <type_traits>

namespace beholder {
namespace {

namespace optim = torch::optim;
using States = std::decay_t<decltype(std::declval<const optim::Optimizer&>().state())>;

/// LibTorch up to 2.0 looks states up by the text of the parameter's address, later ones by the address.
template <typename Key>
Key key_of(const at::Tensor& parameter) {
  if constexpr (std::is_pointer_v<Key>) {
    return parameter.unsafeGetTensorImpl();
  } else {
    std::ostringstream text;
    text << parameter.unsafeGetTensorImpl();
    return text.str();
  }
}

template <typename State, typename Visit>
bool visit_adam(const optim::OptimizerParamState& any, const Visit& visit) {
  const auto* state = dynamic_cast<const State*>(&any);
  if (!state) return false;
  visit("exp_avg", state->exp_avg());
  visit("exp_avg_sq", state->exp_avg_sq());
  visit("max_exp_avg_sq", state->max_exp_avg_sq());
  return true;
}

/// False where the type of the state is not known here.
template <typename Visit>
bool visit_state(const optim::OptimizerParamState& any, const Visit& visit) {
  if (visit_adam<optim::AdamParamState>(any, visit) || visit_adam<optim::AdamWParamState>(any, visit)) return true;
  if (const auto* sgd = dynamic_cast<const optim::SGDParamState*>(&any)) {
    visit("momentum_buffer", sgd->momentum_buffer());
    return true;
  }
  if (const auto* rmsprop = dynamic_cast<const optim::RMSpropParamState*>(&any)) {
    visit("square_avg", rmsprop->square_avg());
    visit("momentum_buffer", rmsprop->momentum_buffer());
    visit("grad_avg", rmsprop->grad_avg());
    return true;
  }
  if (const auto* adagrad = dynamic_cast<const optim::AdagradParamState*>(&any)) {
    visit("sum", adagrad->sum());
    return true;
  }
  return false;
}

/// The same, for states of all parameters together.
template <typename Visit>
bool visit_state_of_all(const optim::OptimizerParamState& any, const Visit& visit) {
  const auto* lbfgs = dynamic_cast<const optim::LBFGSParamState*>(&any);
  if (!lbfgs) return false;
  visit("d", lbfgs->d());
  visit("prev_flat_grad", lbfgs->prev_flat_grad());
  visit("H_diag", lbfgs->H_diag());
  return true;
}

}  // namespace

int for_each_field(const optim::Optimizer& optimizer, const std::function<void(const OptimizerField&)>& visit) {
  const States& states = optimizer.state();
  if (states.empty()) return 0;
  int unknown = 0;
  const auto& groups = optimizer.param_groups();
  for (size_t group = 0; group < groups.size(); ++group) {
    const auto& parameters = groups[group].params();
    for (size_t index = 0; index < parameters.size(); ++index) {
      const at::Tensor& parameter = parameters[index];
      const auto found = states.find(key_of<States::key_type>(parameter));
      if (found == states.end() || !found->second) continue;
      bool of_all = false;
      const auto show = [&](const char* name, const at::Tensor& tensor) {
        if (tensor.defined()) visit({group, index, parameter, of_all, name, tensor});
      };
      if (visit_state(*found->second, show)) continue;
      of_all = true;
      unknown += visit_state_of_all(*found->second, show) ? 0 : 1;
    }
  }
  return unknown;
}

}  // namespace beholder
