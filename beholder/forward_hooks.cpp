// How it works. While armed, LibTorch calls us at the start and the end of every operator of the thread. At the start
// we may read the inputs: does one of them share bytes with a parameter? (Bytes, not tensors: Linear multiplies by a
// transposed view, and the weights of an RNN may be parts of one buffer. Where parameters lie elsewhere than when
// armed, the tensor itself is known, and they are looked up anew.) If so, nothing nested in this operator is looked at,
// and at its end we may read its output, which is the module's output unless
//   - it runs in backward,
//   - it reads nothing but parameters, single numbers and masks:       w.pow(2), w * 0.9, w.masked_select(mask)
//   - it also reads the parameter's gradient:                          grad + decay * w
//   - it is element-wise arithmetic of weights, see is_arithmetic():   lerp(average, w, 0.1)
//   - it moves values and computes none:                               snapshot.copy_(w)
//   - the output shares bytes with a parameter:                        w.t(), w.add_(...)
//   - the output is a view of another input:                           x.view_as(w)
//   - it is no tensor, a single number or not of floating type:        mse_loss(w, w0), w == w0
#include "beholder/forward_hooks.h"

#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <c10/core/Storage.h>
#include <c10/util/SmallVector.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/embedding.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "beholder/threads.h"

namespace beholder {
namespace {

/// Half-open; empty when begin == end.
struct ByteRange {
  uintptr_t begin = 0, end = 0;

  bool empty() const { return begin == end; }
  bool overlaps(const ByteRange& other) const { return begin < other.end && other.begin < end; }
  bool operator<(const ByteRange& other) const { return std::tie(begin, end) < std::tie(other.begin, other.end); }
  bool operator==(const ByteRange& other) const { return begin == other.begin && end == other.end; }
};

/// From the first to the last byte of a tensor's elements. Empty for tensors without memory: undefined, meta, sparse.
ByteRange byte_range(const at::Tensor& tensor) {
  if (!tensor.has_storage() || tensor.numel() == 0) return {};
  // Not tensor.data_ptr(): it would make a copy-on-write tensor copy itself.
  const void* storage = tensor.storage().data();
  if (storage == nullptr) return {};
  int64_t last_element = 0;
  const at::IntArrayRef sizes = tensor.sizes(), strides = tensor.strides();
  for (size_t i = 0; i < sizes.size(); ++i) last_element += (sizes[i] - 1) * strides[i];
  const auto item_size = static_cast<int64_t>(tensor.element_size());
  const uintptr_t begin =
      reinterpret_cast<uintptr_t>(storage) + static_cast<uintptr_t>(tensor.storage_offset() * item_size);
  return {begin, begin + static_cast<uintptr_t>((last_element + 1) * item_size)};
}

template <typename Visit>
void for_each_tensor(c10::ArrayRef<const c10::IValue> values, const Visit& visit) {
  for (const c10::IValue& value : values) {
    if (value.isTensor()) {
      if (value.toTensor().defined()) visit(value.toTensor());
    } else if (value.isTensorList() || value.isOptionalTensorList()) {  // the weights of an RNN, indices
      for (const c10::IValue& element : value.toListRef()) {
        if (element.isTensor() && element.toTensor().defined()) visit(element.toTensor());
      }
    }
  }
}

bool broadcasts_to(at::IntArrayRef shape, at::IntArrayRef target) {
  if (shape.size() > target.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    const int64_t size = shape[shape.size() - 1 - i];
    if (size != 1 && size != target[target.size() - 1 - i]) return false;
  }
  return true;
}

/// "aten::add_" -> "add".
std::string_view operator_name(const at::RecordFunction& function) {
  std::string_view name = function.name();
  const size_t scope = name.rfind(':');
  if (scope != std::string_view::npos) name.remove_prefix(scope + 1);
  if (!name.empty() && name.back() == '_') name.remove_suffix(1);
  return name;
}

/// Whether an element-wise operator works on weights rather than on data: the result has the weight's own shape, and
/// what is combined with the weight is either constant (a moving average, the weights of yesterday, a mask) or smaller
/// (its norm per row). Data that passes through a network in training requires grad; a bias or a scale has a smaller
/// shape than its result.
bool is_arithmetic(std::string_view name, const at::Tensor& weight, const at::Tensor& other) {
  static constexpr std::string_view kElementWise[] = {"add",   "sub",     "rsub",    "mul",     "div",     "lerp",
                                                      "where", "addcmul", "addcdiv", "maximum", "minimum", "mse_loss"};
  const bool is_element_wise =
      std::find(std::begin(kElementWise), std::end(kElementWise), name) != std::end(kElementWise);
  return is_element_wise && broadcasts_to(other.sizes(), weight.sizes()) &&
         (other.numel() < weight.numel() || !c10::GradMode::is_enabled() || !other.requires_grad());
}

/// "torch::nn::LinearImpl" -> "Linear".
std::string class_name(const torch::nn::Module& module) {
  std::string name = module.name();
  const size_t scope = name.rfind("::");
  if (scope != std::string::npos) name.erase(0, scope + 2);
  constexpr std::string_view kImpl = "Impl";
  if (name.size() > kImpl.size() && name.compare(name.size() - kImpl.size(), kImpl.size(), kImpl) == 0) {
    name.resize(name.size() - kImpl.size());
  }
  return name;
}

using Indices = c10::SmallVector<uint32_t, 4>;
using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

/// What a module has done since it was armed.
struct ModuleState {
  int64_t call = -1;                 // the one in progress
  Indices used;                      // its parameters that were used in it
  std::optional<WeakTensor> output;  // of it; weak: its address cannot be taken by another tensor

  bool computed(const at::Tensor& tensor) const {
    return output && output->_unsafe_get_target() == tensor.unsafeGetTensorImpl();
  }
};

/// The parameters that a module has registered itself. (named_parameters() would copy each with its name.)
const torch::OrderedDict<std::string, at::Tensor>& parameters_of(const torch::nn::Module& module) {
  struct Access : torch::nn::Module {
    static auto member() { return &Access::parameters_; }
  };
  return module.*Access::member();
}

/// What the inputs of an operator said: it may be computing a module's output.
struct ParameterUse {
  struct Other {
    const c10::TensorImpl* tensor;  // only compared, never followed
    ByteRange bytes;
  };
  Indices parameters;
  c10::SmallVector<Other, 4> others;  // the inputs that are no parameters
  bool is_embedding;                  // the operator is
};

}  // namespace

struct ForwardHooks::Subscriber {
  Hook hook;
  std::atomic<int64_t> errors{0};
  double seconds = 0;  // see take_seconds(); of the thread that arms
};

/// What a walk of the modules has found: it is kept from one arm() to the next as long as it is true. Keeps neither
/// modules nor parameters alive.
struct ForwardHooks::Found {
  struct Child {
    const torch::nn::Module* module;
    bool is_new;  // else it was reached before
  };
  struct Visit {
    size_t first_child, children, first_tensor, tensors;
  };
  struct Module {
    std::string name;
    const torch::nn::Module* address;
    bool is_embedding;
    bool named_by_class;  // a root without a name
  };
  struct Parameter {
    ByteRange bytes;
    uintptr_t highest_end;                  // of this and all parameters before it
    c10::SmallVector<uint32_t, 1> tensors;  // several where a weight is tied
    Indices owners;                         // their modules
  };

  /// What a look at the modules tells of their parameters, in the order of the walk.
  struct Look {
    std::vector<at::Tensor> tensors;
    std::vector<ByteRange> bytes;
  };
  static constexpr uint32_t kNowhere = std::numeric_limits<uint32_t>::max();

  // The walk.
  std::vector<Child> roots, children;
  std::vector<Visit> visits;
  std::vector<WeakTensor> tensors;  // weak: their addresses cannot be taken by others
  std::vector<ByteRange> bytes;     // of each
  std::vector<uint32_t> owners;     // likewise: a module

  std::vector<Module> modules;        // those that own parameters, in the order of registration
  std::vector<Parameter> parameters;  // by address
  std::vector<uintptr_t> begins;      // of each, close together: they are searched for each input of an operator
  std::vector<char> careful;          // for each: its report takes so long that CPU time is looked at
  std::vector<const c10::TensorImpl*> addresses;  // of `tensors`, hashed; a power of two, most of them null

  void visit(const torch::nn::Module& module, const std::string& path, bool is_root,
             std::set<const torch::nn::Module*>& seen) {
    const auto index = static_cast<uint32_t>(modules.size());
    Visit visit{0, 0, tensors.size(), 0};
    for (const auto& item : parameters_of(module)) {
      const at::Tensor& tensor = item.value();
      if (!tensor.defined()) continue;
      tensors.emplace_back(tensor.getIntrusivePtr());
      bytes.push_back(byte_range(tensor));
      owners.push_back(index);
      ++visit.tensors;
      if (modules.size() > index) continue;
      modules.push_back({is_root && path.empty() ? class_name(module) : path, &module,
                         dynamic_cast<const torch::nn::EmbeddingImpl*>(&module) != nullptr ||
                             dynamic_cast<const torch::nn::EmbeddingBagImpl*>(&module) != nullptr,
                         is_root && path.empty()});
    }
    // Not named_modules(): it throws for a root on the stack, which has no shared owner.
    const auto named = module.named_children();
    visit.first_child = children.size();
    visit.children = named.size();
    visits.push_back(visit);
    for (const auto& child : named) children.push_back({child.value().get(), false});
    size_t at = visit.first_child;
    for (const auto& child : named) {
      const bool is_new = child.value() != nullptr && seen.insert(child.value().get()).second;
      children[at++].is_new = is_new;
      if (is_new) this->visit(*child.value(), path.empty() ? child.key() : path + '.' + child.key(), false, seen);
    }
  }

  /// Two modules have two names. One that comes from a path stays, before one that is a class.
  void number_names() {
    std::set<std::string> taken;
    for (const bool by_class : {false, true}) {
      for (Module& module : modules) {
        if (module.named_by_class != by_class || taken.insert(module.name).second) continue;
        int number = 2;
        while (!taken.insert(module.name + '_' + std::to_string(number)).second) ++number;
        module.name += '_' + std::to_string(number);
      }
    }
  }

  /// After the walk.
  void finish() {
    number_names();
    size_t slots = 4;
    while (slots < 2 * tensors.size()) slots *= 2;
    addresses.assign(slots, nullptr);
    for (const WeakTensor& tensor : tensors)
      *slot_of(addresses, tensor._unsafe_get_target()) = tensor._unsafe_get_target();
    sort();
  }

  /// Sorts the parameters that have memory, and joins those that are one (tied weights).
  void sort() {
    std::vector<Parameter> sorted;
    sorted.reserve(bytes.size());
    for (uint32_t i = 0; i < bytes.size(); ++i) {
      if (!bytes[i].empty()) sorted.push_back({bytes[i], bytes[i].end, {i}, {owners[i]}});
    }
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
    parameters.clear();
    for (Parameter& parameter : sorted) {
      if (parameters.empty() || parameters.back().bytes < parameter.bytes) {
        if (!parameters.empty()) {
          parameter.highest_end = std::max(parameter.highest_end, parameters.back().highest_end);
        }
        parameters.push_back(std::move(parameter));
      } else {
        parameters.back().tensors.push_back(parameter.tensors[0]);
        parameters.back().owners.push_back(parameter.owners[0]);
      }
    }
    careful.assign(parameters.size(), 0);
    begins.clear();
    for (const Parameter& parameter : parameters) begins.push_back(parameter.bytes.begin);
  }

  /// The same parameters lie elsewhere. Returns which one each that was is now, kNowhere where it has no memory.
  std::vector<uint32_t> follow(std::vector<ByteRange> bytes_now) {
    const std::vector<Parameter> before = std::move(parameters);
    const std::vector<char> careful_before = std::move(careful);
    bytes = std::move(bytes_now);
    sort();
    std::vector<uint32_t> of_tensor(tensors.size(), kNowhere), now;
    for (uint32_t i = 0; i < parameters.size(); ++i) {
      for (const uint32_t tensor : parameters[i].tensors) of_tensor[tensor] = i;
    }
    for (size_t i = 0; i < before.size(); ++i) {
      now.push_back(of_tensor[before[i].tensors[0]]);
      if (now.back() != kNowhere) careful[now.back()] |= careful_before[i];
    }
    return now;
  }

  /// Where the address stands, else where it would.
  template <typename Addresses>
  static auto slot_of(Addresses& all, const c10::TensorImpl* tensor) -> decltype(all.data()) {
    const size_t last = all.size() - 1;
    size_t at = (reinterpret_cast<uintptr_t>(tensor) * uint64_t{0x9E3779B97F4A7C15}) >> 32;
    while (all[at & last] != nullptr && all[at & last] != tensor) ++at;
    return all.data() + (at & last);
  }
  /// The tensor is a parameter, wherever it lies.
  bool knows(const at::Tensor& tensor) const { return *slot_of(addresses, tensor.unsafeGetTensorImpl()) != nullptr; }

  /// Whether the modules and their parameters are as they were. Looks where these lie.
  bool still_true(const std::vector<const torch::nn::Module*>& roots_now, Look& look) const {
    if (roots_now.size() != roots.size()) return false;
    look.tensors.reserve(tensors.size());
    look.bytes.reserve(tensors.size());
    size_t at = 0;
    for (size_t i = 0; i < roots.size(); ++i) {
      if (roots_now[i] != roots[i].module || (roots[i].is_new && !still_true(*roots[i].module, at, look))) return false;
    }
    return true;
  }
  bool still_true(const torch::nn::Module& module, size_t& at, Look& look) const {
    const Visit& visit = visits[at++];
    const size_t end = visit.first_tensor + visit.tensors;
    for (const auto& item : parameters_of(module)) {
      const at::Tensor& tensor = item.value();
      if (!tensor.defined()) continue;
      const size_t i = look.tensors.size();
      if (i == end || tensors[i]._unsafe_get_target() != tensor.unsafeGetTensorImpl()) return false;
      look.tensors.push_back(tensor);
      look.bytes.push_back(byte_range(tensor));
    }
    if (look.tensors.size() != end) return false;
    const auto here = module.children();  // which are not followed before they are known to live
    if (here.size() != visit.children) return false;
    for (size_t i = 0; i < here.size(); ++i) {
      const Child& child = children[visit.first_child + i];
      if (here[i].get() != child.module || (child.is_new && !still_true(*here[i], at, look))) return false;
    }
    return true;
  }
};

/// What one arm() watches. Used by the thread that armed, but for `active`.
struct ForwardHooks::Arming {
  enum class Verdict { Foreign, NoActivation, Candidate };

  Arming(std::shared_ptr<Subscriber> owner, std::shared_ptr<Found> found_, std::vector<at::Tensor> tensors_)
      : subscriber(std::move(owner)),
        found(std::move(found_)),
        parameters(found->parameters),
        tensors(std::move(tensors_)),
        states(found->modules.size()) {
    keep_storages();
  }

  void keep_storages() {
    std::vector<c10::Storage> kept;
    kept.reserve(tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (!found->bytes[i].empty()) kept.push_back(tensors[i].storage());
    }
    storages = std::move(kept);
  }

  /// A parameter lies elsewhere than it did: looks up where all of them are.
  void follow() {
    const double begun = thread_cpu_seconds();
    std::vector<ByteRange> bytes;
    for (const at::Tensor& tensor : tensors) bytes.push_back(byte_range(tensor));
    const std::vector<uint32_t> now = found->follow(std::move(bytes));
    for (ModuleState& state : states) {
      Indices used;
      for (const uint32_t parameter : state.used) {
        if (now[parameter] != Found::kNowhere) used.push_back(now[parameter]);
      }
      state.used = std::move(used);
    }
    keep_storages();
    const double seconds = thread_cpu_seconds() - begun;
    subscriber->seconds += seconds;
    seconds_left -= seconds;
  }

  /// Shares bytes with the parameter's gradient, as of now.
  bool has_gradient_in(const Found::Parameter& parameter, const ByteRange& range) const {
    return std::any_of(parameter.tensors.begin(), parameter.tensors.end(), [&](uint32_t i) {
      if (!tensors[i].is_leaf()) return false;  // grad() would warn
      const at::Tensor& gradient = tensors[i].grad();
      return gradient.defined() && byte_range(gradient).overlaps(range);
    });
  }
  bool requires_grad(const Found::Parameter& parameter) const {
    return std::all_of(parameter.tensors.begin(), parameter.tensors.end(),
                       [&](uint32_t i) { return tensors[i].requires_grad(); });
  }

  /// Calls visit(index) for each parameter that shares bytes with the range. Returns whether there is one.
  template <typename Visit>
  bool find(const ByteRange& range, const Visit& visit) const {
    if (range.empty() || parameters.empty() || range.begin >= parameters.back().highest_end) return false;
    bool found = false;
    const auto& begins = this->found->begins;
    auto after = parameters.begin() + (std::lower_bound(begins.begin(), begins.end(), range.end) - begins.begin());
    while (after != parameters.begin() && (--after)->highest_end > range.begin) {
      if (!after->bytes.overlaps(range)) continue;
      found = true;
      visit(static_cast<uint32_t>(after - parameters.begin()));
    }
    return found;
  }

  /// Judges an operator by its inputs. Foreign: it touches no parameter.
  Verdict judge(const at::RecordFunction& function, ParameterUse& use) {
    bool touches_parameter = false, elsewhere = false;
    const at::Tensor* weight = nullptr;  // the largest parameter, as the operator sees it
    c10::SmallVector<const at::Tensor*, 4> others;
    for_each_tensor(function.inputs(), [&](const at::Tensor& input) {
      const ByteRange range = byte_range(input);
      const bool is_parameter = find(range, [&](uint32_t index) {
        touches_parameter = true;
        // Who detaches a weight does not want to train through it: not a forward.
        if (c10::GradMode::is_enabled() && !input.requires_grad() && requires_grad(parameters[index])) return;
        use.parameters.push_back(index);
        if (weight == nullptr || input.numel() > weight->numel()) weight = &input;
      });
      if (is_parameter) return;
      others.push_back(&input);
      elsewhere |= !range.empty() && found->knows(input);
    });
    if (elsewhere) {
      follow();  // after which there is none
      use = {};
      return judge(function, use);
    }
    if (!touches_parameter) return Verdict::Foreign;
    if (weight == nullptr) return Verdict::NoActivation;

    const std::string_view name = operator_name(function);
    if (name == "copy") return Verdict::NoActivation;
    bool reads_data = false;
    for (const at::Tensor* other : others) {
      const ByteRange bytes = byte_range(*other);
      for (const uint32_t index : use.parameters) {
        if (has_gradient_in(parameters[index], bytes)) return Verdict::NoActivation;
      }
      const bool is_number = other->dim() == 0;
      const bool is_mask = other->scalar_type() == at::kBool;
      reads_data |= !is_number && !is_mask && (!is_arithmetic(name, *weight, *other) || is_reported(*other));
      use.others.push_back({other->unsafeGetTensorImpl(), bytes});
    }
    if (!reads_data) return Verdict::NoActivation;
    use.is_embedding = name == "embedding" || name == "embedding_bag";
    return Verdict::Candidate;
  }

  /// Whether it is the latest output of a module: data, whatever its shape.
  bool is_reported(const at::Tensor& tensor) const {
    return std::any_of(states.begin(), states.end(), [&](const ModuleState& state) { return state.computed(tensor); });
  }

  /// At the end of a candidate: reports its output if it is a module's. REQUIRES that nobody is told of operators.
  void report(const ParameterUse& use, const std::vector<c10::IValue>& outputs) {
    if (outputs.empty() || !outputs[0].isTensor()) return;  // empty when the operator threw
    const at::Tensor& output = outputs[0].toTensor();
    if (!output.defined() || output.dim() == 0) return;
    if (at::isIntegralType(output.scalar_type(), /*includeBool=*/true)) return;
    const ByteRange bytes = byte_range(output);
    if (find(bytes, [](uint32_t) {})) return;
    for (const ParameterUse::Other& other : use.others) {
      const bool in_place = other.tensor == output.unsafeGetTensorImpl();
      if (!in_place && other.bytes.overlaps(bytes)) return;
    }

    const auto index = static_cast<uint32_t>(attribute(use, output));
    const Found::Module& module = found->modules[index];
    ModuleState& state = states[index];
    const auto is_used = [&](uint32_t parameter) {
      return std::find(state.used.begin(), state.used.end(), parameter) != state.used.end();
    };
    const bool begins_call = state.call < 0 || std::any_of(use.parameters.begin(), use.parameters.end(), is_used);
    if (begins_call) {
      ++state.call;
      state.used.clear();
    }
    state.used.append(use.parameters.begin(), use.parameters.end());
    state.output = WeakTensor(output.getIntrusivePtr());
    const uint32_t own = *std::find_if(use.parameters.begin(), use.parameters.end(),
                                       [&](uint32_t parameter) { return owns(index, parameter); });
    call_hook({module.name, module.address, state.call, !begins_call, c10::GradMode::is_enabled(), backwards,
               tensors[parameters[own].tensors[0]], output});
  }

  /// Whose output it is, an index of the modules. A tied weight has several owners, and the best is the one whose last
  /// output is being changed in place; else who owns most of the parameters that were read; else who is an embedding
  /// like the operator, or is none like it; else who was called least.
  size_t attribute(const ParameterUse& use, const at::Tensor& output) const {
    const auto rank = [&](uint32_t index) {
      const ModuleState& state = states[index];
      const auto owned =
          std::count_if(use.parameters.begin(), use.parameters.end(), [&](uint32_t p) { return owns(index, p); });
      return std::make_tuple(state.computed(output), owned, found->modules[index].is_embedding == use.is_embedding,
                             -state.call);
    };
    uint32_t best = parameters[use.parameters[0]].owners[0];
    for (const uint32_t parameter : use.parameters) {
      for (const uint32_t owner : parameters[parameter].owners) {
        if (owner != best && (rank(owner) > rank(best) || (rank(owner) == rank(best) && owner < best))) best = owner;
      }
    }
    return best;
  }

  bool owns(uint32_t module, uint32_t parameter) const {
    const Indices& owners = parameters[parameter].owners;
    return std::find(owners.begin(), owners.end(), module) != owners.end();
  }

  void call_hook(const Output& output) {
    const c10::AutoGradMode autograd_off(false);
    try {
      subscriber->hook(output);
    } catch (...) {
      ++subscriber->errors;
    }
  }

  const std::shared_ptr<Subscriber> subscriber;
  std::atomic<bool> active{true};  // cleared by any thread
  double seconds_left = std::numeric_limits<double>::infinity();
  int64_t operators_left = -1;  // not counted while it is below 0
  int64_t backwards = 0;
  const std::shared_ptr<Found> found;
  const std::vector<Found::Parameter>& parameters;  // of it
  const std::vector<at::Tensor> tensors;            // all that it has, alive
  std::vector<c10::Storage> storages;               // keep the bytes from being reused before follow()
  std::vector<ModuleState> states;                  // of each module
};

/// The armings of one thread, and the callbacks that serve them. LibTorch hands thread-local callbacks on to the
/// threads of autograd, whose own list is empty, so that they see nothing.
struct ForwardHooksThread {
  using Arming = ForwardHooks::Arming;

  /// What an operator's start tells its end. It exists for each outermost operator that touches a parameter; where it
  /// has no candidates it only keeps the nested operators from being looked at.
  struct OperatorContext : at::ObserverContext {
    c10::SmallVector<std::pair<std::shared_ptr<Arming>, ParameterUse>, 1> candidates;
  };

  /// nullptr when the thread has destroyed it already: a Beholder may be a static object, which ends after those of the
  /// main thread.
  static ForwardHooksThread* current() {
    if (destroyed) return nullptr;
    thread_local ForwardHooksThread thread;
    return &thread;
  }
  ~ForwardHooksThread() { destroyed = true; }

  void add(std::shared_ptr<Arming> arming) {
    forget_inactive();
    armings.push_back(std::move(arming));
    if (armings.size() > 1) return;
    using Callback = at::RecordFunctionCallback;
    operator_callback = at::addThreadLocalCallback(Callback(operator_start, operator_end)
                                                       .needsInputs(true)
                                                       .needsOutputs(true)
                                                       .scopes({at::RecordScope::FUNCTION}));
    backward_callback =
        at::addThreadLocalCallback(Callback(backward_start, backward_end).scopes({at::RecordScope::BACKWARD_FUNCTION}));
  }

  void forget_inactive() {
    const auto is_inactive = [](const std::shared_ptr<Arming>& arming) { return !arming->active; };
    armings.erase(std::remove_if(armings.begin(), armings.end(), is_inactive), armings.end());
    if (!armings.empty()) return;
    // Where it was done inside a backward pass, autograd has put back the callbacks that it found before it.
    for (const at::CallbackHandle handle : {operator_callback, backward_callback}) {
      const auto& installed = at::get_record_function_tls_().sorted_tls_callbacks_;
      const auto is_ours = [&](const at::RecordFunctionCallbacksEntry& entry) { return entry.handle_ == handle; };
      if (std::any_of(installed.begin(), installed.end(), is_ours)) at::removeCallback(handle);
    }
  }

  /// What LibTorch takes for each operator to collect its inputs and outputs and to call us, and what looking at the
  /// clock does. Measured: 0.17 to 0.35 microseconds, more on some days than on others; rather too much than too
  /// little, since max_overhead is a promise.
  static constexpr double kTellingSeconds = 0.4e-6;
  /// No look at an operator's inputs takes as long: the thread was interrupted, which is not ours to pay for.
  static constexpr double kLookingSeconds = 20e-6;

  /// To all who watch this thread.
  void bill(double seconds) {
    for (const std::shared_ptr<Arming>& arming : armings) {
      arming->subscriber->seconds += seconds;
      arming->seconds_left -= seconds;
      if (arming->seconds_left < 0) arming->active = false;
    }
  }

  /// Looking at the inputs of each operator, every eighth of which stands for those after it; in wall time, since the
  /// clock of a thread's CPU time takes longer than that.
  struct LookingMeter {
    using Clock = std::chrono::steady_clock;
    static constexpr uint32_t kOneOf = 8;
    ForwardHooksThread& thread;
    const bool measures = thread.looks++ % kOneOf == 0;
    const Clock::time_point begun = measures ? Clock::now() : Clock::time_point{};
    ~LookingMeter() {
      if (measures) {
        const double looked = std::chrono::duration<double>(Clock::now() - begun).count();
        thread.look_seconds = std::min(looked, kLookingSeconds);
      }
      thread.bill(kTellingSeconds + thread.look_seconds);
    }
  };

  /// The hook, which copies. The clock of a thread's CPU time may take longer than that, so it is looked at only for
  /// reports that took long the last time: an interruption is not ours to pay for.
  struct ReportingMeter {
    using Clock = LookingMeter::Clock;
    static constexpr double kLong = 50e-6;
    ForwardHooksThread& thread;
    const std::shared_ptr<ForwardHooks::Found> found;
    char& careful;
    const Clock::time_point begun = Clock::now();
    const double cpu = careful ? thread_cpu_seconds() : 0;

    ReportingMeter(ForwardHooksThread& thread_, const Arming& arming, uint32_t parameter)
        : thread(thread_), found(arming.found), careful(found->careful[parameter]) {}
    ~ReportingMeter() {
      double seconds = 0;
      if (careful) {
        seconds = std::max(0.0, thread_cpu_seconds() - cpu);
      } else {
        seconds = std::chrono::duration<double>(Clock::now() - begun).count();
      }
      thread.bill(careful ? seconds : std::min(seconds, kLong));
      careful = seconds > kLong;
    }
  };

  /// Nobody else listens to operators.
  static bool listens_alone() { return at::getStepCallbacks(at::RecordScope::FUNCTION).callbacks_.size() == 1; }

  /// Which operators of LibTorch itself call others. Not to be told of these costs about as much as being told of one
  /// of them, so it is done where there are some. By the address of the name, which is the operator's own; where two
  /// share a place, the later one has it.
  class Habits {
   public:
    struct Habit {
      const char* name = nullptr;
      bool nests = false;
    };
    /// Of the operator; one that is not known yet is watched once.
    Habit& of(const char* name) {
      Habit& habit = habits_[(reinterpret_cast<uintptr_t>(name) >> 4) % habits_.size()];
      if (habit.name != name) habit = {name, false};
      return habit;
    }

   private:
    std::array<Habit, 512> habits_{};
  };

  /// What is nested in an operator of LibTorch itself is not looked at, whether it touches a parameter or not: so it
  /// need not be told of, as long as nobody else listens. Nor what is done for the report of one that `reports`.
  void hush_nested(const at::RecordFunction& function, bool reports) {
    constexpr std::string_view kOwn = "aten::";
    const char* const name = function.name();
    if (std::string_view(name).substr(0, kOwn.size()) != kOwn || std::strcmp(name, "aten::_backward") == 0) return;
    Habits::Habit& habit = habits.of(name);
    if ((!habit.nests && !reports) || !listens_alone()) {
      watched = &habit;
      return;
    }
    at::enableRecordFunction(false);
    hushed = true;
  }

  static std::unique_ptr<at::ObserverContext> operator_start(const at::RecordFunction& function) {
    ForwardHooksThread* const mine = current();
    if (mine == nullptr) return nullptr;
    ForwardHooksThread& thread = *mine;
    if (thread.armings.empty()) {
      thread.forget_inactive();
      return nullptr;
    }
    if (Habits::Habit* const outer = std::exchange(thread.watched, nullptr)) outer->nests = true;
    const LookingMeter meter{thread};
    if (thread.backward_depth > 0 || thread.in_operator) return nullptr;
    std::unique_ptr<OperatorContext> context;
    bool has_inactive = false;
    for (const std::shared_ptr<Arming>& arming : thread.armings) {
      if (!arming->active) {
        has_inactive = true;
        continue;
      }
      if (arming->operators_left >= 0 && arming->operators_left-- == 0) {
        arming->active = false;
        has_inactive = true;
        continue;
      }
      ParameterUse use;
      const Arming::Verdict verdict = arming->judge(function, use);
      if (verdict == Arming::Verdict::Foreign) continue;
      if (!context) context = std::make_unique<OperatorContext>();
      if (verdict == Arming::Verdict::Candidate) context->candidates.emplace_back(arming, std::move(use));
    }
    if (has_inactive) thread.forget_inactive();  // disarmed by another thread
    thread.in_operator = context != nullptr;
    if (!thread.armings.empty()) thread.hush_nested(function, context && !context->candidates.empty());
    return context;
  }

  static void operator_end(const at::RecordFunction& function, at::ObserverContext* context) {
    ForwardHooksThread* const thread = current();
    if (thread == nullptr) return;
    thread->watched = nullptr;
    struct Hush {
      const bool on;
      ~Hush() {
        if (on) at::enableRecordFunction(true);
      }
    } const hush{std::exchange(thread->hushed, false)};
    if (context == nullptr) return;
    thread->in_operator = false;
    auto& candidates = static_cast<OperatorContext*>(context)->candidates;
    if (candidates.empty()) return;
    std::optional<at::RecordFunctionGuard> unseen;
    if (!hush.on) unseen.emplace(/*is_enabled=*/false);
    const ReportingMeter meter{*thread, *candidates[0].first, candidates[0].second.parameters[0]};
    for (auto& [arming, use] : candidates) {
      if (arming->active) arming->report(use, function.outputs());
    }
  }

  static std::unique_ptr<at::ObserverContext> backward_start(const at::RecordFunction&) {
    if (auto* thread = current()) {
      if (++thread->backward_depth == 1 && listens_alone()) {  // its operators are not looked at
        at::enableRecordFunction(false);
        thread->hushed_backward = true;
      }
      for (const std::shared_ptr<Arming>& arming : thread->armings) ++arming->backwards;
    }
    return nullptr;
  }
  static void backward_end(const at::RecordFunction&, at::ObserverContext*) {
    auto* const thread = current();
    if (thread == nullptr || --thread->backward_depth > 0) return;
    if (std::exchange(thread->hushed_backward, false)) at::enableRecordFunction(true);
  }

  std::vector<std::shared_ptr<Arming>> armings;
  at::CallbackHandle operator_callback = at::INVALID_CALLBACK_HANDLE;
  at::CallbackHandle backward_callback = at::INVALID_CALLBACK_HANDLE;
  int backward_depth = 0;
  bool in_operator = false;                      // inside an operator that has an OperatorContext
  bool hushed = false, hushed_backward = false;  // inside an operator, a backward, of which nothing is told
  Habits habits;
  Habits::Habit* watched = nullptr;  // of the operator that has just begun, if it shall be seen whether it nests others
  uint32_t looks = 0;
  double look_seconds = 0;  // of the last look that was measured
  static thread_local bool
      destroyed;  // of a type that needs no destructor, so it can be asked until the thread is gone
};

thread_local bool ForwardHooksThread::destroyed = false;

ForwardHooks::ForwardHooks(Hook hook) : subscriber_(std::make_shared<Subscriber>()) {
  subscriber_->hook = std::move(hook);
}

ForwardHooks::~ForwardHooks() { disarm(); }

void ForwardHooks::add(const torch::nn::Module& root, std::string name) {
  roots_.push_back({&root, {}, std::move(name)});
  found_.reset();
}

void ForwardHooks::add(const std::shared_ptr<const torch::nn::Module>& root, std::string name) {
  const bool has_owner = root.use_count() > 0;
  roots_.push_back({has_owner ? nullptr : root.get(), root, std::move(name)});
  found_.reset();
}

void ForwardHooks::clear() {
  disarm();
  roots_.clear();
  found_.reset();
}

ForwardHooks::LivingRoots ForwardHooks::living_roots() const {
  LivingRoots living;
  for (const Root& root : roots_) {
    living.owners.push_back(root.watched.lock());
    living.modules.push_back(root.borrowed != nullptr ? root.borrowed : living.owners.back().get());
  }
  return living;
}

void ForwardHooks::arm(double most_seconds) {
  disarm();
  const LivingRoots living = living_roots();
  const auto& roots = living.modules;
  Found::Look look;
  if (found_ && found_->still_true(roots, look)) {
    if (look.bytes != found_->bytes) {
      found_ = std::make_shared<Found>(*found_);  // not that of a report that is going on
      found_->follow(std::move(look.bytes));
    }
  } else {
    found_ = std::make_shared<Found>();
    std::set<const torch::nn::Module*> seen;
    for (size_t i = 0; i < roots.size(); ++i) {
      const bool is_new = roots[i] != nullptr && seen.insert(roots[i]).second;
      found_->roots.push_back({roots[i], is_new});
      if (is_new) found_->visit(*roots[i], roots_[i].name, /*is_root=*/true, seen);
    }
    found_->finish();
    look.tensors.clear();
    for (const auto& tensor : found_->tensors) look.tensors.emplace_back(tensor.lock());
  }
  auto arming = std::make_shared<Arming>(subscriber_, found_, std::move(look.tensors));
  arming->seconds_left = most_seconds;
  ForwardHooksThread* const thread = ForwardHooksThread::current();
  if (thread == nullptr) return;
  thread->add(arming);
  arming_ = std::move(arming);
}

void ForwardHooks::disarm() {
  if (!arming_) return;
  arming_->active = false;
  arming_.reset();
  if (auto* thread = ForwardHooksThread::current()) thread->forget_inactive();
}

void ForwardHooks::allow(double seconds) {
  if (arming_) arming_->seconds_left = seconds;
}

void ForwardHooks::disarm_soon() {
  constexpr int64_t kOperators = 16;
  if (arming_ && arming_->operators_left < 0) arming_->operators_left = kOperators;
}

bool ForwardHooks::armed() const { return arming_ != nullptr && arming_->active; }

bool ForwardHooks::moved() const {
  if (!arming_) return false;
  const LivingRoots living = living_roots();
  Found::Look look;
  return !arming_->found->still_true(living.modules, look) || look.bytes != arming_->found->bytes;
}

int64_t ForwardHooks::backwards() const { return arming_ ? arming_->backwards : 0; }

double ForwardHooks::take_seconds() { return std::exchange(subscriber_->seconds, 0.0); }

double ForwardHooks::seconds() const { return subscriber_->seconds; }

int64_t ForwardHooks::hook_errors() const { return subscriber_->errors; }

}  // namespace beholder
