#include "beholder/tensors.h"

#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/rnn.h>

#include <algorithm>
#include <functional>
#include <unordered_set>
#include <utility>

#include "beholder/log.h"
#include "beholder/optimizer_states.h"

namespace beholder {
namespace {

template <typename... Modules>
bool is_any(const torch::nn::Module& module) {
  return (... || (dynamic_cast<const Modules*>(&module) != nullptr));
}

/// Walking 60 modules takes some 50 microseconds: once a second costs nothing.
constexpr auto kWalkEvery = std::chrono::seconds(1);

std::string joined(const std::string& module, const std::string& name) {
  return module.empty() || name.empty() ? module + name : module + '.' + name;
}

/// The first of name_2, name_3, ... (module2, ... where there is no name) that is not taken.
template <typename Taken>
std::string numbered(const std::string& name, const Taken& taken) {
  const std::string stem = name.empty() ? "module" : name + "_";
  int number = 2;
  while (taken(stem + std::to_string(number))) ++number;
  return stem + std::to_string(number);
}

}  // namespace

const std::string& refuse(Refusals& refusals, const std::string& name, const at::Tensor& tensor, std::string reason) {
  constexpr std::chrono::seconds kFirst(2), kLongest(300);
  const auto before = refusals.find(name);
  const auto pause = before == refusals.end() ? kFirst : std::min(2 * before->second.pause, kLongest);
  const auto [added, is_new] =
      refusals.insert_or_assign(name, Refusal{std::chrono::steady_clock::now() + pause, pause, std::move(reason),
                                              tensor.layout(), tensor.scalar_type(), tensor.device()});
  return added->second.reason;
}

void forget_old(Refusals& refusals) {
  constexpr size_t kMost = 1000;
  if (refusals.size() <= kMost) return;
  const auto now = std::chrono::steady_clock::now();
  for (auto it = refusals.begin(); it != refusals.end();) {
    it = it->second.again + it->second.pause < now ? refusals.erase(it) : std::next(it);
  }
}

const std::string* find_refusal(const Refusals& refusals, const std::string& name, const at::Tensor& tensor) {
  const auto found = refusals.find(name);
  if (found == refusals.end() || !tensor.defined()) return nullptr;
  const Refusal& refusal = found->second;
  const bool same =
      tensor.layout() == refusal.layout && tensor.scalar_type() == refusal.dtype && tensor.device() == refusal.device;
  return same && std::chrono::steady_clock::now() < refusal.again ? &refusal.reason : nullptr;
}

Kind parameter_kind(const torch::nn::Module& owner, const at::Tensor& parameter) {
  namespace nn = torch::nn;
  const auto rank = parameter.dim();
  if (rank <= 1) return Kind::Vector;
  if (is_any<nn::Conv1dImpl, nn::Conv2dImpl, nn::Conv3dImpl>(owner)) return Kind::ConvWeight;
  if (is_any<nn::ConvTranspose1dImpl, nn::ConvTranspose2dImpl, nn::ConvTranspose3dImpl>(owner)) {
    return Kind::ConvTransposeWeight;
  }
  if (is_any<nn::EmbeddingImpl, nn::EmbeddingBagImpl>(owner)) return Kind::EmbeddingWeight;
  // All of these hold (out, in) matrices and multiply with their transpose.
  if (rank == 2 && is_any<nn::LinearImpl, nn::RNNImpl, nn::LSTMImpl, nn::GRUImpl, nn::RNNCellImpl, nn::LSTMCellImpl,
                          nn::GRUCellImpl, nn::MultiheadAttentionImpl>(owner)) {
    return Kind::LinearWeight;
  }
  return Kind::OtherParameter;
}

void Tensors::attach(torch::nn::Module& module, std::weak_ptr<torch::nn::Module> owner, bool owned, std::string name) {
  detach(module);
  const auto taken = [this](const std::string& wished) {
    return std::any_of(roots_.begin(), roots_.end(),
                       [&](const Root& root) { return !root.expired() && root.name == wished; });
  };
  if (taken(name)) {
    const std::string unique = numbered(name, taken);
    log_warning((name.empty() ? std::string("a second module is attached without a name")
                              : "a second module is attached as '" + name + "'") +
                "; it is called " + unique + ": give each one a name, attach(model, \"name\")");
    name = unique;
  }
  roots_.push_back({&module, std::move(owner), owned, name, name});
  walk();
}

bool Tensors::detach(const torch::nn::Module& module) {
  const auto before = roots_.size();
  roots_.erase(std::remove_if(roots_.begin(), roots_.end(), [&](const Root& root) { return root.module == &module; }),
               roots_.end());
  if (roots_.size() == before) return false;
  walk();
  return true;
}

void Tensors::attach(const torch::optim::Optimizer& optimizer, std::weak_ptr<torch::optim::Optimizer> owner, bool owned,
                     std::string name) {
  detach(optimizer);
  optimizers_.push_back({&optimizer, std::move(owner), owned, std::move(name)});
}

bool Tensors::detach(const torch::optim::Optimizer& optimizer) {
  const auto before = optimizers_.size();
  optimizers_.erase(std::remove_if(optimizers_.begin(), optimizers_.end(),
                                   [&](const Optimizer& one) { return one.optimizer == &optimizer; }),
                    optimizers_.end());
  return optimizers_.size() != before;
}

bool Tensors::refresh(std::chrono::steady_clock::time_point now) {
  // The first look at them in an update().
  const auto some_gone = [](const std::vector<Owned>& all) {
    constexpr size_t kAhead = 8;
    for (size_t i = 0; i < all.size(); ++i) {
      if (i + kAhead < all.size()) prefetch_tensor(all[i + kAhead].tensor._unsafe_get_target());
      if (all[i].tensor.expired()) return true;
    }
    return false;
  };
  const bool gone = std::any_of(roots_.begin(), roots_.end(), [](const Root& root) { return root.expired(); }) ||
                    some_gone(parameters_) || some_gone(buffers_);
  if (!gone && now < next_walk_) return false;
  next_walk_ = now + kWalkEvery;
  const auto parameters = std::move(parameters_), buffers = std::move(buffers_);
  walk();
  const auto same = [](const std::vector<Owned>& before, const std::vector<Owned>& after) {
    return std::equal(before.begin(), before.end(), after.begin(), after.end(),
                      [](const Owned& a, const Owned& b) { return a.name == b.name && a.kind == b.kind; });
  };
  return !same(parameters, parameters_) || !same(buffers, buffers_);
}

void Tensors::walk() {
  parameters_.clear();
  buffers_.clear();
  by_address_.clear();
  for (auto& optimizer : optimizers_) optimizer.names.clear();
  roots_.erase(std::remove_if(roots_.begin(), roots_.end(), [](const Root& root) { return root.expired(); }),
               roots_.end());
  std::unordered_set<const c10::TensorImpl*> seen;            // a parameter under two names is shown under the first
  std::unordered_set<const torch::nn::Module*> seen_modules;  // likewise
  std::unordered_set<std::string> names;                      // of the modules of the roots before
  for (auto& root : roots_) {
    const auto keep = root.owner.lock();
    if (root.owned && !keep) continue;
    std::vector<std::pair<const torch::nn::Module*, std::string>>
        modules;  // those that are shown, with their names in the root
    const std::function<void(const torch::nn::Module&, const std::string&)> visit = [&](const torch::nn::Module& module,
                                                                                        const std::string& name) {
      if (!seen_modules.insert(&module).second) return;
      const bool shown =
          !module.named_parameters(/*recurse=*/false).is_empty() || !module.named_buffers(/*recurse=*/false).is_empty();
      if (shown) modules.emplace_back(&module, name);
      // Not named_modules(): it throws for a module on the stack.
      for (const auto& child : module.named_children()) {
        if (child.value()) visit(*child.value(), joined(name, child.key()));
      }
    };
    visit(*root.module, "");

    const auto taken = [&](const std::string& wished) {
      return std::any_of(modules.begin(), modules.end(),
                         [&](const auto& module) { return names.count(joined(wished, module.second)) != 0; });
    };
    std::string unique = taken(root.name) ? numbered(root.name, taken) : root.name;
    if (unique != root.unique_name && unique != root.name) {
      log_warning("names of the module attached " +
                  (root.name.empty() ? std::string("without a name") : "as '" + root.name + "'") +
                  " are those of another attached module's children; it is called " + unique);
    }
    root.unique_name = std::move(unique);

    for (const auto& [module, name_in_root] : modules) {
      const std::string name = joined(root.unique_name, name_in_root);
      names.insert(name);
      const auto add = [&, module = module](std::vector<Owned>& list, const std::string& key,
                                            const at::Tensor& tensor) {
        if (!tensor.defined() || !seen.insert(tensor.unsafeGetTensorImpl()).second) return;
        list.push_back({{joined(name, key), name, parameter_kind(*module, tensor)},
                        c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>(tensor.getIntrusivePtr())});
      };
      for (const auto& item : module->named_parameters(/*recurse=*/false)) add(parameters_, item.key(), item.value());
      for (const auto& item : module->named_buffers(/*recurse=*/false)) add(buffers_, item.key(), item.value());
    }
  }
}

void Tensors::parameters(bool gradients, std::vector<Candidate>& out) const {
  for (const auto& parameter : parameters_) {
    auto locked = parameter.tensor.lock();
    if (!locked) continue;
    at::Tensor tensor(std::move(locked));
    const bool expected = !gradients || tensor.requires_grad();
    if (gradients) {
      // grad() warns for tensors that are no leaves; a parameter may be one after an optimizer's trick.
      tensor = tensor.requires_grad() && tensor.is_leaf() ? tensor.grad() : at::Tensor();
    }
    out.push_back({&parameter.name, &parameter.module, parameter.kind, false, std::move(tensor), expected,
                   /*may_vary=*/false});
  }
}

void Tensors::buffers(std::vector<Candidate>& out) const {
  for (const auto& buffer : buffers_) {
    auto locked = buffer.tensor.lock();
    if (!locked) continue;
    out.push_back({&buffer.name, &buffer.module, buffer.kind, false, at::Tensor(std::move(locked))});
  }
}

const Tensors::Owned* Tensors::find_parameter(const at::Tensor& parameter) const {
  const auto found = by_address_.find(parameter.unsafeGetTensorImpl());
  return found == by_address_.end() ? nullptr : &parameters_[found->second];
}

void Tensors::optimizer_states(std::vector<Candidate>& out) {
  optimizers_.erase(std::remove_if(optimizers_.begin(), optimizers_.end(),
                                   [](const Optimizer& one) { return one.owned && one.owner.expired(); }),
                    optimizers_.end());
  if (optimizers_.empty()) return;
  if (by_address_.empty()) {
    for (size_t i = 0; i < parameters_.size(); ++i) by_address_.emplace(parameters_[i].tensor._unsafe_get_target(), i);
  }
  for (auto& optimizer : optimizers_) {
    const auto named = [&](const OptimizerField& field) -> const Named& {
      Named& known = optimizer.names[{field.parameter.unsafeGetTensorImpl(), field.name}];
      if (!known.name.empty()) return known;
      const Owned* const owner = field.of_all ? nullptr : find_parameter(field.parameter);
      // The field first: where there is room for the end of a name only, it says which parameter's it is.
      if (owner) {
        known.name = joined(field.name, owner->name);
      } else if (!field.of_all) {  // of no attached module
        known.name = joined(field.name, "group" + std::to_string(field.group) + ".param" + std::to_string(field.index));
      } else {
        known.name = optimizer.name.empty() ? joined("optimizer", field.name) : field.name;
      }
      known.name = joined(optimizer.name, known.name);
      known.module = joined(optimizer.name, owner ? owner->module : "");
      known.kind = field.tensor.dim() <= 1 ? Kind::Vector
                   : owner && !field.tensor.is_nested() && !field.parameter.is_nested() &&
                           field.tensor.sizes().equals(field.parameter.sizes())
                       ? owner->kind
                       : Kind::OtherParameter;
      return known;
    };
    const auto keep = optimizer.owner.lock();
    const int unknown = for_each_field(*optimizer.optimizer, [&](const OptimizerField& field) {
      const Named& names = named(field);
      out.push_back({&names.name, &names.module, names.kind, false, field.tensor});
    });
    if (unknown > 0 && !std::exchange(optimizer.said_unknown, true)) {
      log_warning("the states of " + std::to_string(unknown) +
                  " parameters in an attached optimizer are of a type that is not known here, and are not shown; known "
                  "are those of Adam, AdamW, SGD, RMSprop, Adagrad and LBFGS. Pass them as arrays: update(arrays)");
    }
  }
}

std::vector<std::pair<std::shared_ptr<torch::nn::Module>, std::string>> Tensors::modules() const {
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, std::string>> out;
  for (const auto& root : roots_) {
    if (root.owned) {
      if (auto module = root.owner.lock()) out.emplace_back(std::move(module), root.unique_name);
    } else {
      out.emplace_back(std::shared_ptr<torch::nn::Module>(std::shared_ptr<void>(), root.module), root.unique_name);
    }
  }
  return out;
}

}  // namespace beholder
