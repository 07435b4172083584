// What there is to see: the attached modules' parameters, gradients and buffers, and the attached optimizers' states.
// (Activations come through forward hooks, arrays and frames from update().) Runs on the training thread only.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Layout.h>
#include <c10/core/ScalarType.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "beholder/named_tensor.h"

namespace torch {
namespace nn {
class Module;
}
namespace optim {
class Optimizer;
}
}  // namespace torch

namespace beholder {

/// A tensor that may be shown in this picture. Names live as long as the Tensors that made it is not changed.
struct Candidate {
  const std::string* name = nullptr;
  const std::string* module = nullptr;
  Kind kind = Kind::Array;
  bool tap = false;
  at::Tensor tensor;  ///< may be undefined (a gradient that does not exist)
  /// Undefined, it may come again (the gradient of a parameter that requires one): it keeps its place.
  bool expected = true;
  bool may_vary = true;                  ///< may have other sizes at each update; a parameter does not
  const std::string* refusal = nullptr;  ///< why it is not to be read, where a gather has failed before
};

/// Asks for what LibTorch knows of a tensor, while something else is done: after a training step it is in no cache.
inline void prefetch_tensor(const c10::TensorImpl* tensor) {
  const char* const bytes = reinterpret_cast<const char*>(tensor);
  for (size_t at = 0; at < sizeof(c10::TensorImpl); at += 64) __builtin_prefetch(bytes + at);
}

/// Why a tensor that LibTorch could not read is left out, and which layout, dtype and device it then had: another one
/// of its name may be shown again, and this one is tried again at growing intervals.
struct Refusal {
  std::chrono::steady_clock::time_point again;
  std::chrono::seconds pause;
  std::string reason;
  c10::Layout layout;
  c10::ScalarType dtype;
  c10::Device device;
};
/// By name: the others are shown without them.
using Refusals = std::unordered_map<std::string, Refusal>;

/// Adds a refusal of this defined tensor. Returns its reason, valid until `refusals` changes for this name.
const std::string& refuse(Refusals& refusals, const std::string& name, const at::Tensor& tensor, std::string reason);
/// Keeps them few where names change at each update: where there are many, those that ended a while ago go.
void forget_old(Refusals& refusals);
/// Why this tensor is refused, or nullptr; valid until `refusals` changes.
const std::string* find_refusal(const Refusals& refusals, const std::string& name, const at::Tensor& tensor);

/// The attached modules and optimizers. What is attached by pointer is held weakly; parameters and buffers too, so that
/// nothing of the user's is kept alive.
class Tensors {
 public:
  /// `owner`: empty for a module that the user promises to keep. A module attached before gets its new name; a name
  /// that another module has, attached or inside of one attached before, is made unique, with one line.
  void attach(torch::nn::Module& module, std::weak_ptr<torch::nn::Module> owner, bool owned, std::string name);
  /// Returns false where it was not attached.
  bool detach(const torch::nn::Module& module);

  /// The same for optimizers. `name` goes before the names of its tensors; it may be empty.
  void attach(const torch::optim::Optimizer& optimizer, std::weak_ptr<torch::optim::Optimizer> owner, bool owned,
              std::string name);
  bool detach(const torch::optim::Optimizer& optimizer);

  /// Forgets destroyed modules and, where enough time has passed or something looks changed, walks the others again:
  /// modules and parameters may be registered at any time. Returns true where names or kinds have changed.
  bool refresh(std::chrono::steady_clock::time_point now);

  /// All parameters (or their gradients, undefined where there is none), each once, in the order of registration.
  void parameters(bool gradients, std::vector<Candidate>& out) const;

  /// All buffers (BatchNorm's running statistics), likewise.
  void buffers(std::vector<Candidate>& out) const;

  /// What the optimizers keep for each parameter, "exp_avg.fc.weight", in the order of their parameters; nothing before
  /// their first step().
  void optimizer_states(std::vector<Candidate>& out);
  bool has_optimizers() const { return !optimizers_.empty(); }

  /// The living attached modules with their names.
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, std::string>> modules() const;
  bool empty() const { return roots_.empty(); }

 private:
  struct Root {
    torch::nn::Module* module;
    std::weak_ptr<torch::nn::Module> owner;
    bool owned;
    std::string name;         // as it was attached
    std::string unique_name;  // the same, unless another root's modules have such names

    bool expired() const { return owned && owner.expired(); }
  };
  struct Named {
    std::string name, module;
    Kind kind;
  };
  struct Owned : Named {  // by a module
    c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl> tensor;
  };
  struct Optimizer {
    const torch::optim::Optimizer* optimizer;
    std::weak_ptr<torch::optim::Optimizer> owner;
    bool owned;
    std::string name;
    bool said_unknown = false;
    std::map<std::pair<const c10::TensorImpl*, std::string>, Named> names = {};  // by parameter and field; until walk()
  };

  void walk();
  const Owned* find_parameter(const at::Tensor& parameter) const;

  std::vector<Root> roots_;
  std::vector<Owned> parameters_, buffers_;
  std::vector<Optimizer> optimizers_;
  std::unordered_map<const c10::TensorImpl*, size_t> by_address_;  // of parameters_
  std::chrono::steady_clock::time_point next_walk_{};
};

/// The kind of a parameter, known from the module that owns it.
Kind parameter_kind(const torch::nn::Module& owner, const at::Tensor& parameter);

}  // namespace beholder
