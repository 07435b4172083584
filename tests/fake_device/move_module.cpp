// Module::to(device) for this device type.
#include <torch/csrc/autograd/variable.h>
#include <torch/nn/module.h>

#include "fake_device.h"

namespace fake_device {
namespace {

// Tensor::set_data refuses to change a tensor's type of device. Replacing the contents of its TensorImpl does the same:
// whoever holds the tensor sees it move.
void move(at::Tensor& tensor, c10::Device device) {
  if (!tensor.defined()) return;
  const bool requires_grad = tensor.requires_grad();
  tensor.unsafeGetTensorImpl()->shallow_copy_from(tensor.detach().to(device).getIntrusivePtr());
  tensor.set_requires_grad(requires_grad);
  // A tensor that was used already has an accumulator of gradients, which expects those of the former device.
  if (auto* autograd = torch::autograd::impl::get_autograd_meta(tensor)) autograd->grad_accumulator_.reset();
}

}  // namespace

void move_module(torch::nn::Module& module, c10::Device device) {
  const torch::NoGradGuard no_grad;
  for (at::Tensor& parameter : module.parameters()) {
    move(parameter, device);
    if (parameter.grad().defined()) parameter.mutable_grad() = parameter.grad().to(device);
  }
  for (at::Tensor& buffer : module.buffers()) move(buffer, device);
}

}  // namespace fake_device
