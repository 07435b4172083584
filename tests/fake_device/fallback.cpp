// Every operator that kernels.cpp does not write by hand: the CPU's kernel runs on host views of the tensors, at once,
// and the schema says what it reads, writes and returns.
//
// (at::native::cpu_fallback copies tensors to the host and back instead: it would show synchronisations that are none,
// and loses what operators write into slices.)
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/enum_tag.h>
#include <ATen/ops/isnan.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <limits>
#include <set>
#include <string>
#include <vector>

#include "fake_device.h"
#include "host_views.h"
#include "operation.h"

namespace fake_device {
namespace {

using torch::jit::Stack;

// Operators whose CUDA kernels read a size or a value back although neither their tags nor their schema say so.
const std::set<std::string> kReadBack{"aten::_unique2",      "aten::bincount",    "aten::equal",
                                      "aten::histc",         "aten::linalg_eigh", "aten::nonzero",
                                      "aten::masked_select", "aten::_linalg_svd"};

// These take indices from the CPU, and upload them; all others want their tensors on one device, as with CUDA.
const std::set<std::string> kUploadIndices{"aten::index.Tensor", "aten::index.Tensor_out", "aten::_index_put_impl_"};

// Arithmetic, in all its variants (sub.out, sub_.Tensor): where the result is no number, a real device gives a NaN of
// its own, while the CPU hands one of the arguments' NaN on.
const std::set<std::string> kArithmetic{"add", "sub", "rsub", "mul", "div", "pow", "square", "sum", "mean", "abs"};

bool is_arithmetic(const std::string& name) {
  const size_t begin = name.find("::") + 2;
  std::string base = name.substr(begin, name.find('.', begin) - begin);
  if (base.back() == '_') base.pop_back();
  return kArithmetic.count(base) > 0;
}

void make_one_nan(const at::Tensor& result) {
  if (!result.defined() || result.scalar_type() != c10::kFloat || result.layout() != c10::kStrided) return;
  result.masked_fill_(result.isnan(), std::numeric_limits<float>::quiet_NaN());
}

bool on_device(const at::Tensor& tensor) { return tensor.defined() && tensor.device().type() == kType; }

// The tensors in a value: itself, or a list's.
std::vector<at::Tensor> tensors_in(const c10::IValue& value) {
  if (value.isTensor()) return {value.toTensor()};
  if (value.isTensorList()) return value.toTensorVector();
  std::vector<at::Tensor> tensors;
  if (value.isOptionalTensorList()) {
    for (const auto& tensor : value.toOptionalTensorVector()) {
      if (tensor) tensors.push_back(*tensor);
    }
  }
  return tensors;
}

// `value` with `change` applied to each tensor in it.
template <class Change>
c10::IValue with_tensors(const c10::IValue& value, Change change) {
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> changed;
    for (const at::Tensor& tensor : value.toTensorVector()) changed.push_back(change(tensor));
    return changed;
  }
  if (value.isOptionalTensorList()) {
    c10::List<c10::optional<at::Tensor>> changed;
    for (const auto& tensor : value.toOptionalTensorVector()) {
      changed.push_back(tensor ? c10::optional<at::Tensor>(change(*tensor)) : c10::nullopt);
    }
    return changed;
  }
  return value;
}

class BoxedCall {
 public:
  BoxedCall(const c10::OperatorHandle& op, Stack& stack)
      : op_(op),
        schema_(op.schema()),
        name_(toString(op.operator_name())),
        stack_(stack),
        arguments_(stack.end() - static_cast<std::ptrdiff_t>(schema_.arguments().size()), stack.end()),
        device_(find_device()) {}

  void run() {
    const c10::DeviceGuard guard(device_);  // results live where the arguments do
    Operation operation(name_, device_);
    pass_arguments(operation);
    if (reads_back()) operation.synchronize(&Counts::operator_synchronizations);
    op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
    if (is_arithmetic(name_)) {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;
      for (size_t i = stack_.size() - schema_.returns().size(); i < stack_.size(); ++i) {
        for (const at::Tensor& result : tensors_in(stack_[i])) make_one_nan(result);
      }
    }
    for (const auto& [tensor, view] : written_) follow_resize(tensor, view);
    pass_results(operation);
  }

 private:
  // Where the operator runs. Throws when its tensors are on several devices.
  c10::Device find_device() const {
    c10::optional<c10::Device> found;
    for (const at::Tensor& tensor : tensors()) {
      if (!on_device(tensor)) continue;
      TORCH_CHECK(!found || *found == tensor.device(), name_, ": Expected all tensors to be on the same device, found ",
                  *found, " and ", tensor.device());
      found = tensor.device();
    }
    if (found) return *found;
    for (const c10::IValue& value : arguments_) {  // what creates a tensor is told where
      if (value.isDevice() && value.toDevice().has_index()) return value.toDevice();
    }
    return device(this_thread().device);
  }

  std::vector<at::Tensor> tensors() const {
    std::vector<at::Tensor> all;
    for (const c10::IValue& value : arguments_) {
      for (at::Tensor& tensor : tensors_in(value)) all.push_back(std::move(tensor));
    }
    return all;
  }

  void pass_arguments(Operation& operation) {
    const size_t first = stack_.size() - arguments_.size();
    for (size_t i = 0; i < arguments_.size(); ++i) {
      c10::IValue& value = stack_[first + i];
      if (value.isDevice() && value.toDevice().type() == kType) value = c10::Device(c10::kCPU);
      value = with_tensors(value, [&](const at::Tensor& tensor) { return pass(tensor, i, operation); });
    }
  }

  at::Tensor pass(const at::Tensor& tensor, size_t argument, Operation& operation) {
    if (!on_device(tensor)) {
      // A CPU scalar travels in the kernel's arguments; anything else would have to be copied.
      if (!tensor.defined() || tensor.dim() == 0 || tensor.numel() == 0) return tensor;
      TORCH_CHECK(kUploadIndices.count(name_), name_, ": Expected all tensors to be on the same device, ", device_,
                  ", found argument '", schema_.arguments()[argument].name(), "' on ", tensor.device());
      operation.synchronize(&Counts::blocking_copies_to_device);
      return tensor;
    }
    const at::Tensor view = views_.of(tensor);
    if (writes(argument)) {
      operation.writes(tensor);
      written_.emplace_back(tensor, view);
    } else if (!schema_.arguments()[argument].alias_info()) {  // a view operator touches no bytes
      operation.reads(tensor);
    }
    return view;
  }

  bool writes(size_t argument) const {
    const c10::Argument& declared = schema_.arguments()[argument];
    if (declared.alias_info() && declared.alias_info()->isWrite()) return true;
    // The one schema that keeps quiet about what it changes.
    const bool running = declared.name() == "running_mean" || declared.name() == "running_var";
    return running && name_ == "aten::native_batch_norm" && argument_named("training").toBool();
  }

  const c10::IValue& argument_named(const std::string& name) const {
    const auto index = schema_.argumentIndexWithName(name);
    TORCH_CHECK(index, name_, " has no argument ", name);
    return arguments_[*index];
  }

  bool reads_back() const {
    if (name_ == "aten::index.Tensor" || name_ == "aten::index.Tensor_out") return has_mask();
    if (name_ == "aten::_index_put_impl_") {  // one value under a mask is a masked_fill
      return has_mask() && argument_named("values").toTensor().numel() > 1;
    }
    if (name_ == "aten::repeat_interleave.Tensor") return argument_named("output_size").isNone();
    for (const c10::Argument& result : schema_.returns()) {
      const auto kind = result.type()->kind();
      if (kind != c10::TypeKind::TensorType && kind != c10::TypeKind::ListType) return true;
    }
    return op_.hasTag(at::Tag::dynamic_output_shape) || op_.hasTag(at::Tag::data_dependent_output) ||
           kReadBack.count(name_);
  }

  // Whether an index is a mask, whose number of true values has to be known.
  bool has_mask() const {
    for (const at::Tensor& index : tensors_in(argument_named("indices"))) {
      if (index.scalar_type() == c10::kBool || index.scalar_type() == c10::kByte) return true;
    }
    return false;
  }

  void pass_results(Operation& operation) {
    const auto& returns = schema_.returns();
    const size_t first = stack_.size() - returns.size();
    for (size_t i = 0; i < returns.size(); ++i) {
      c10::IValue& value = stack_[first + i];
      if (const c10::IValue* argument = argument_returned_as(returns[i])) {
        value = *argument;
        continue;
      }
      value = with_tensors(value, [&](const at::Tensor& result) {
        bool is_new = false;
        at::Tensor tensor = views_.to_device(result, &is_new);
        if (is_new) operation.writes(tensor);
        return tensor;
      });
    }
  }

  // In-place and out variants return the very tensor that they were given.
  const c10::IValue* argument_returned_as(const c10::Argument& result) const {
    if (!result.alias_info() || !result.alias_info()->isWrite()) return nullptr;
    for (size_t i = 0; i < arguments_.size(); ++i) {
      const auto* alias = schema_.arguments()[i].alias_info();
      if (alias && *alias == *result.alias_info()) return &arguments_[i];
    }
    return nullptr;
  }

  const c10::OperatorHandle& op_;
  const c10::FunctionSchema& schema_;
  const std::string name_;
  Stack& stack_;
  const std::vector<c10::IValue> arguments_;  // as they were given
  const c10::Device device_;
  HostViews views_;
  std::vector<std::pair<at::Tensor, at::Tensor>> written_;  // tensors and their views
};

void fallback(const c10::OperatorHandle& op, Stack* stack) { BoxedCall(op, *stack).run(); }

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

// For these LibTorch has kernels of its own for any device: the first two look for a backend and find none, the norms
// round otherwise than the CPU's, and the last would look at a mask twice.
TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  for (const char* name :
       {"convolution", "convolution_backward", "native_layer_norm", "native_group_norm", "index.Tensor"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
  }
}

}  // namespace
}  // namespace fake_device
