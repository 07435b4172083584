// How it works. While armed, LibTorch calls us at the start and the end of every operator of the thread. At the start
// we may read the inputs: does one of them share bytes with a parameter? (Bytes, not tensors: Linear multiplies by a
// transposed view, and the weights of an RNN may be parts of one buffer.) If so, nothing nested in this operator is
// looked at, and at its end we may read its output, which is the module's output unless
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
};

/// From the first to the last byte of a tensor's elements. Empty for tensors without memory: undefined, meta, sparse.
ByteRange byte_range(const at::Tensor& tensor) {
  if (!tensor.has_storage() || tensor.numel() == 0) return {};
  // Not tensor.data_ptr(): it would make a copy-on-write tensor copy itself.
  const void* storage = tensor.storage().data();
  if (storage == nullptr) return {};
  int64_t last_element = 0;
  for (int64_t i = 0; i < tensor.dim(); ++i) last_element += (tensor.size(i) - 1) * tensor.stride(i);
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

struct WatchedModule {
  std::string name;
  const torch::nn::Module* address;
  bool is_embedding;

  // Of the call in progress.
  int64_t call = -1;
  Indices used = {};                                // its parameters that were used
  std::optional<WeakTensor> output = std::nullopt;  // weak: its address cannot be taken by another tensor

  bool computed(const at::Tensor& tensor) const {
    return output && output->_unsafe_get_target() == tensor.unsafeGetTensorImpl();
  }
};

struct WatchedParameter {
  ByteRange bytes;
  uintptr_t highest_end;                    // of this and all parameters before it
  c10::SmallVector<at::Tensor, 1> tensors;  // several where a weight is tied
  Indices owners;                           // their modules
  c10::Storage storage;                     // keeps the bytes from being reused when the parameter moves elsewhere

  /// Shares bytes with the parameter's gradient, as of now.
  bool has_gradient_in(const ByteRange& range) const {
    return std::any_of(tensors.begin(), tensors.end(), [&](const at::Tensor& tensor) {
      return tensor.is_leaf() && byte_range(tensor.grad()).overlaps(range);  // grad() of a non-leaf would warn
    });
  }
  bool requires_grad() const {
    return std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) { return tensor.requires_grad(); });
  }
};

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

/// What one arm() found. Used by the thread that armed, but for `active`.
struct ForwardHooks::Arming {
  enum class Verdict { Foreign, NoActivation, Candidate };

  explicit Arming(std::shared_ptr<Subscriber> owner) : subscriber(std::move(owner)) {}

  void add(const torch::nn::Module& module, const std::string& path, bool is_root) {
    if (!seen.insert(&module).second) return;
    const auto index = static_cast<uint32_t>(modules.size());
    for (const auto& item : module.named_parameters(/*recurse=*/false)) {
      const ByteRange bytes = byte_range(item.value());
      if (bytes.empty()) continue;
      parameters.push_back({bytes, bytes.end, {item.value()}, {index}, item.value().storage()});
      if (modules.size() == index) {
        modules.push_back({is_root && path.empty() ? class_name(module) : path, &module,
                           dynamic_cast<const torch::nn::EmbeddingImpl*>(&module) != nullptr ||
                               dynamic_cast<const torch::nn::EmbeddingBagImpl*>(&module) != nullptr});
      }
    }
    // Not named_modules(): it throws for a root on the stack, which has no shared owner.
    for (const auto& child : module.named_children()) {
      if (child.value()) add(*child.value(), path.empty() ? child.key() : path + '.' + child.key(), false);
    }
  }

  /// Sorts the parameters, and joins those that are one (tied weights).
  void finish() {
    std::vector<WatchedParameter> sorted = std::move(parameters);
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
    parameters.clear();
    for (WatchedParameter& parameter : sorted) {
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
  }

  /// Calls visit(index) for each parameter that shares bytes with the range. Returns whether there is one.
  template <typename Visit>
  bool find(const ByteRange& range, const Visit& visit) const {
    if (range.empty() || parameters.empty() || range.begin >= parameters.back().highest_end) return false;
    bool found = false;
    auto after = std::lower_bound(parameters.begin(), parameters.end(), range.end,
                                  [](const WatchedParameter& p, uintptr_t end) { return p.bytes.begin < end; });
    while (after != parameters.begin() && (--after)->highest_end > range.begin) {
      if (!after->bytes.overlaps(range)) continue;
      found = true;
      visit(static_cast<uint32_t>(after - parameters.begin()));
    }
    return found;
  }

  /// Judges an operator by its inputs. Foreign: it touches no parameter.
  Verdict judge(const at::RecordFunction& function, ParameterUse& use) const {
    bool touches_parameter = false;
    const at::Tensor* weight = nullptr;  // the largest parameter, as the operator sees it
    c10::SmallVector<const at::Tensor*, 4> others;
    for_each_tensor(function.inputs(), [&](const at::Tensor& input) {
      const bool is_parameter = find(byte_range(input), [&](uint32_t index) {
        touches_parameter = true;
        // Who detaches a weight does not want to train through it: not a forward.
        if (c10::GradMode::is_enabled() && !input.requires_grad() && parameters[index].requires_grad()) return;
        use.parameters.push_back(index);
        if (weight == nullptr || input.numel() > weight->numel()) weight = &input;
      });
      if (!is_parameter) others.push_back(&input);
    });
    if (!touches_parameter) return Verdict::Foreign;
    if (weight == nullptr) return Verdict::NoActivation;

    const std::string_view name = operator_name(function);
    if (name == "copy") return Verdict::NoActivation;
    bool reads_data = false;
    for (const at::Tensor* other : others) {
      const ByteRange bytes = byte_range(*other);
      for (const uint32_t index : use.parameters) {
        if (parameters[index].has_gradient_in(bytes)) return Verdict::NoActivation;
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
    return std::any_of(modules.begin(), modules.end(), [&](const WatchedModule& m) { return m.computed(tensor); });
  }

  /// At the end of a candidate: reports its output if it is a module's.
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
    WatchedModule& module = modules[index];
    const auto is_used = [&](uint32_t parameter) {
      return std::find(module.used.begin(), module.used.end(), parameter) != module.used.end();
    };
    const bool begins_call = module.call < 0 || std::any_of(use.parameters.begin(), use.parameters.end(), is_used);
    if (begins_call) {
      ++module.call;
      module.used.clear();
    }
    module.used.append(use.parameters.begin(), use.parameters.end());
    module.output = WeakTensor(output.getIntrusivePtr());
    const uint32_t own = *std::find_if(use.parameters.begin(), use.parameters.end(),
                                       [&](uint32_t parameter) { return owns(index, parameter); });
    call_hook({module.name, module.address, module.call, !begins_call, c10::GradMode::is_enabled(), backwards,
               parameters[own].tensors[0], output});
  }

  /// Whose output it is, an index of `modules`. A tied weight has several owners, and the best is the one whose last
  /// output is being changed in place; else who owns most of the parameters that were read; else who is an embedding
  /// like the operator, or is none like it; else who was called least.
  size_t attribute(const ParameterUse& use, const at::Tensor& output) const {
    const auto rank = [&](uint32_t index) {
      const WatchedModule& module = modules[index];
      const auto owned =
          std::count_if(use.parameters.begin(), use.parameters.end(), [&](uint32_t p) { return owns(index, p); });
      return std::make_tuple(module.computed(output), owned, module.is_embedding == use.is_embedding, -module.call);
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
    const at::RecordFunctionGuard unseen(/*is_enabled=*/false);
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
  std::set<const torch::nn::Module*> seen;
  std::vector<WatchedModule> modules;        // those that own parameters, in the order of registration
  std::vector<WatchedParameter> parameters;  // by address
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

  /// Looking at the inputs of each operator; in wall time, since the clock of a thread's CPU time takes longer than
  /// that.
  struct LookingMeter {
    using Clock = std::chrono::steady_clock;
    ForwardHooksThread& thread;
    const Clock::time_point begun = Clock::now();
    ~LookingMeter() {
      const double looked = std::chrono::duration<double>(Clock::now() - begun).count();
      thread.bill(kTellingSeconds + std::min(looked, kLookingSeconds));
    }
  };

  /// The hook, which copies.
  struct ReportingMeter {
    ForwardHooksThread& thread;
    const double begun = thread_cpu_seconds();
    ~ReportingMeter() { thread.bill(std::max(0.0, thread_cpu_seconds() - begun)); }
  };

  static std::unique_ptr<at::ObserverContext> operator_start(const at::RecordFunction& function) {
    ForwardHooksThread* const mine = current();
    if (mine == nullptr) return nullptr;
    ForwardHooksThread& thread = *mine;
    if (thread.armings.empty()) {
      thread.forget_inactive();
      return nullptr;
    }
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
    return context;
  }

  static void operator_end(const at::RecordFunction& function, at::ObserverContext* context) {
    ForwardHooksThread* const thread = current();
    if (context == nullptr || thread == nullptr) return;
    thread->in_operator = false;
    auto& candidates = static_cast<OperatorContext*>(context)->candidates;
    if (candidates.empty()) return;
    const ReportingMeter meter{*thread};
    for (auto& [arming, use] : candidates) {
      if (arming->active) arming->report(use, function.outputs());
    }
  }

  static std::unique_ptr<at::ObserverContext> backward_start(const at::RecordFunction&) {
    if (auto* thread = current()) {
      ++thread->backward_depth;
      for (const std::shared_ptr<Arming>& arming : thread->armings) ++arming->backwards;
    }
    return nullptr;
  }
  static void backward_end(const at::RecordFunction&, at::ObserverContext*) {
    if (auto* thread = current()) --thread->backward_depth;
  }

  std::vector<std::shared_ptr<Arming>> armings;
  at::CallbackHandle operator_callback = at::INVALID_CALLBACK_HANDLE;
  at::CallbackHandle backward_callback = at::INVALID_CALLBACK_HANDLE;
  int backward_depth = 0;
  bool in_operator = false;  // inside an operator that has an OperatorContext
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
}

void ForwardHooks::add(const std::shared_ptr<const torch::nn::Module>& root, std::string name) {
  const bool has_owner = root.use_count() > 0;
  roots_.push_back({has_owner ? nullptr : root.get(), root, std::move(name)});
}

void ForwardHooks::clear() {
  disarm();
  roots_.clear();
}

void ForwardHooks::arm(double most_seconds) {
  disarm();
  auto arming = std::make_shared<Arming>(subscriber_);
  arming->seconds_left = most_seconds;
  for (const Root& root : roots_) {
    const std::shared_ptr<const torch::nn::Module> owner = root.watched.lock();
    const torch::nn::Module* module = root.borrowed != nullptr ? root.borrowed : owner.get();
    if (module != nullptr) arming->add(*module, root.name, /*is_root=*/true);
  }
  arming->finish();
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
  return std::any_of(arming_->parameters.begin(), arming_->parameters.end(), [](const WatchedParameter& parameter) {
    return std::any_of(parameter.tensors.begin(), parameter.tensors.end(), [&](const at::Tensor& tensor) {
      const ByteRange now = byte_range(tensor);
      return now.begin != parameter.bytes.begin || now.end != parameter.bytes.end;
    });
  });
}

int64_t ForwardHooks::backwards() const { return arming_ ? arming_->backwards : 0; }

double ForwardHooks::take_seconds() { return std::exchange(subscriber_->seconds, 0.0); }

double ForwardHooks::seconds() const { return subscriber_->seconds; }

int64_t ForwardHooks::hook_errors() const { return subscriber_->errors; }

}  // namespace beholder
