// What LibTorch's optimizers keep for each parameter. Internal; training thread only.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace torch {
namespace optim {
class Optimizer;
}
}  // namespace torch

namespace beholder {

/// A tensor of an optimizer's state. Names are those of LibTorch: "exp_avg", "momentum_buffer", ...
struct OptimizerField {
  size_t group, index;          ///< of the parameter: its group, and its place there
  const at::Tensor& parameter;  ///< whose state it is; for LBFGS the first of all, for its state is of all together
  bool of_all;                  ///< of all parameters together
  const char* name;             ///< lives for ever
  const at::Tensor& tensor;     ///< defined
};

/// Calls `visit` with each tensor of the optimizer's state, in the order of its parameters; nothing where there is none
/// yet (it comes with the first step()). Knows the states of Adam, AdamW, SGD, RMSprop, Adagrad and LBFGS, and those
/// derived from them. Returns how many parameters have a state of another type.
int for_each_field(const torch::optim::Optimizer& optimizer, const std::function<void(const OptimizerField&)>& visit);

}  // namespace beholder
