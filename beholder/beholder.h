// See your network learn: one line in the training loop.
//
//   beholder::Beholder beholder("runs/mnist");
//   beholder.attach(model);                                  // parameters, gradients, activations
//   beholder.add(std::make_shared<beholder::Recorder>());    // <beholder/callbacks/recorder.h>
//   for (...) { /* forward, backward, optimizer step */ beholder.update(); }
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "beholder/callback.h"
#include "beholder/named_tensor.h"
#include "beholder/options.h"
#include "beholder/settings.h"
#include "beholder/state.h"
#include "beholder/tap.h"

namespace torch {
namespace nn {
class Module;
}
namespace optim {
class Optimizer;
}
}  // namespace torch

namespace beholder {

/// The user's arrays for one update(), or a function that makes them and is called only when they will be shown.
/// Refers to its argument: for use in a call's argument list only.
class ArraysOrFunction {
 public:
  ArraysOrFunction(const Arrays& arrays)
      : object_(&arrays), call_([](const void* o) { return *static_cast<const Arrays*>(o); }) {}
  ArraysOrFunction(std::initializer_list<NamedTensor> arrays)
      : list_(arrays),
        object_(&list_),
        call_([](const void* o) { return Arrays(*static_cast<const std::initializer_list<NamedTensor>*>(o)); }) {}
  template <typename F, typename = std::enable_if_t<std::is_invocable_r<Arrays, const F&>::value>>
  ArraysOrFunction(const F& function)
      : object_(&function), call_([](const void* o) -> Arrays { return (*static_cast<const F*>(o))(); }) {}
  ArraysOrFunction(const ArraysOrFunction&) = delete;
  ArraysOrFunction& operator=(const ArraysOrFunction&) = delete;

  Arrays get() const { return call_(object_); }

 private:
  std::initializer_list<NamedTensor> list_{};
  const void* object_;
  Arrays (*call_)(const void*);
};

/// The user's frame for one update(), (H, W) or RGB (3, H, W), or a function that makes it, as above.
class FrameOrFunction {
 public:
  FrameOrFunction(const at::Tensor& frame)
      : object_(&frame), call_([](const void* o) { return *static_cast<const at::Tensor*>(o); }) {}
  template <typename F, typename = std::enable_if_t<std::is_invocable_r<at::Tensor, const F&>::value &&
                                                    !std::is_convertible<F, at::Tensor>::value>>
  FrameOrFunction(const F& function)
      : object_(&function), call_([](const void* o) -> at::Tensor { return (*static_cast<const F*>(o))(); }) {}
  FrameOrFunction(const FrameOrFunction&) = delete;
  FrameOrFunction& operator=(const FrameOrFunction&) = delete;

  at::Tensor get() const { return call_(object_); }

 private:
  const void* object_;
  at::Tensor (*call_)(const void*);
};

class ActivationWatch;
struct Watcher;

struct NowTag {};
/// update(Now) shows this step, whatever FPS says.
inline constexpr NowTag Now{};

/// Shows a training run. Movable.
///
/// # Multithreading
/// attach(), detach(), update(), set_step() and due() belong to the training thread: the one that runs forward,
/// backward and the optimizer. add(), settings(), state() and snapshot requests may come from any thread. Activations
/// are those of the training thread, and of threads that have an OnThisThread. Each Beholder is independent; two
/// training threads use one each.
///
/// # Errors
/// The constructor throws std::invalid_argument for bad options. Nothing throws later: what goes wrong is logged once
/// per text, counted in state(), and the training goes on.
///
/// # Shutdown
/// The destructor shows what was captured, closes the callbacks (the film is finalised) and ends its threads. A
/// callback that does not end within ten seconds is left behind with one line.
///
/// # fork()
/// In the child of a fork() the copy does nothing: update() and the destructor return at once, the parent's films and
/// connections stay whole. A Beholder that the child makes itself works there.
class Beholder {
 public:
  /// Files go below <logdir>/plugins/beholder, where that is now: a relative logdir does not follow the working
  /// directory. A logdir that cannot be written is one warning, not an error.
  explicit Beholder(std::string logdir, Options options = {});
  ~Beholder();
  Beholder(Beholder&& other) noexcept;
  Beholder& operator=(Beholder&& other) noexcept;

  /// Shows a module's parameters, gradients and activations. Held weakly: a module that is destroyed is forgotten.
  /// `name` goes before the names of its tensors; needed where several modules are attached.
  void attach(const std::shared_ptr<torch::nn::Module>& module, const std::string& name = "");
  /// REQUIRES that the module outlives this object, or detach().
  void attach(torch::nn::Module& module, const std::string& name = "");
  /// A holder, as TORCH_MODULE makes them.
  template <typename Holder>
  auto attach(const Holder& holder, const std::string& name = "") -> decltype(holder.ptr(), void()) {
    attach(holder.is_empty() ? nullptr : std::shared_ptr<torch::nn::Module>(holder.ptr()), name);
  }
  void detach(const torch::nn::Module& module);
  template <typename Holder>
  auto detach(const Holder& holder) -> decltype(holder.ptr(), void()) {
    if (!holder.is_empty()) detach(static_cast<const torch::nn::Module&>(*holder.ptr()));
  }

  /// Shows what an optimizer keeps for each parameter (Adam's moments, momentum) as "exp_avg.fc.weight", from its first
  /// step() on, where Values::Optimizer is chosen. `name`, where one is given, goes before these names.
  /// REQUIRES that the optimizer outlives this object, or detach().
  void attach(const torch::optim::Optimizer& optimizer, const std::string& name = "");
  /// The same, held weakly: an optimizer that is destroyed is forgotten.
  void attach(const std::shared_ptr<torch::optim::Optimizer>& optimizer, const std::string& name = "");
  void detach(const torch::optim::Optimizer& optimizer);

  /// Receives pictures from now on, on a thread of its own. A callback whose open() throws is disabled with one line.
  void add(std::shared_ptr<Callback> callback);

  /// Call once each iteration, after backward (gradients) and before zero_grad(). Returns at once unless a picture is
  /// due; then it enqueues copies of the values that will be shown, and returns. Never waits for a device; for a plan
  /// of what to copy, which our own thread makes, no longer than max_overhead allows (a tenth of a second before the
  /// first picture).
  void update() noexcept { update(static_cast<const ArraysOrFunction*>(nullptr), nullptr); }
  void update(const ArraysOrFunction& arrays) noexcept { update(&arrays, nullptr); }
  void update(const ArraysOrFunction& arrays, const FrameOrFunction& frame) noexcept { update(&arrays, &frame); }
  void update(const FrameOrFunction& frame) noexcept { update(static_cast<const ArraysOrFunction*>(nullptr), &frame); }
  /// The same, and this step is shown whatever FPS and budgets say, and no other for it: waits, for a second each at
  /// most, for a plan and for memory where there is none yet.
  ///
  /// Activations are shown where the forward before it was watched, which has to begin before it is known what is asked
  /// for. Once there was an update(Now), always watched is the forward between two of them, and the one before an
  /// update() that comes as many updates after the last update(Now) as that came after the one before: of an
  /// update(Now) at each 100th step the third and all later ones are shown. Other forwards are watched as far as
  /// max_overhead allows. The first step that cannot be shown is told in one line.
  void update(NowTag) noexcept { update(static_cast<const ArraysOrFunction*>(nullptr), nullptr, true); }
  void update(NowTag, const ArraysOrFunction& arrays) noexcept { update(&arrays, nullptr, true); }
  void update(NowTag, const ArraysOrFunction& arrays, const FrameOrFunction& frame) noexcept {
    update(&arrays, &frame, true);
  }
  void update(NowTag, const FrameOrFunction& frame) noexcept {
    update(static_cast<const ArraysOrFunction*>(nullptr), &frame, true);
  }

  /// Whether the next update() is going to show something. (Prefer functions as arguments: they are called only then.)
  bool due() const noexcept;

  /// Returns x, and shows it as an activation of this name: for what owns no parameter (ReLU, pooling, attention
  /// maps). Costs the test of one flag unless activations are being captured. Any thread that is watched; on others it
  /// shows nothing. Inside of modules beholder::tap(name, x) needs no Beholder.
  at::Tensor tap(const char* name, at::Tensor x) noexcept {
    if (tapping()) tap_now(name, x);
    return x;
  }
  at::Tensor tap(const std::string& name, at::Tensor x) noexcept { return tap(name.c_str(), std::move(x)); }

  /// The number of the next update(), for resumed runs. Otherwise updates are counted from 0.
  void set_step(int64_t step) noexcept;

  /// What is shown; change it from any thread.
  SharedSettings& settings() const;
  State state() const;
  /// Where files go: <logdir>/plugins/beholder.
  const std::string& directory() const;

 private:
  struct Impl;
  void update(const ArraysOrFunction* arrays, const FrameOrFunction* frame, bool now = false) noexcept;
  bool tapping() const noexcept;
  void leave_to_parent() noexcept;
  void tap_now(const char* name, const at::Tensor& x) noexcept;
  friend class OnThisThread;

  std::unique_ptr<Impl> impl_;
};

/// Watches the forward of another thread than the one that calls update(): of a worker, or of a replica in
/// data_parallel. Around each forward:
///
///   std::thread worker([&] {
///     const beholder::OnThisThread watched(beholder);
///     output = net->forward(batch);
///   });
///
/// Costs the test of one flag unless activations are being captured. A module that several threads run for one picture
/// is shown for each: "conv1", "conv1 @2". A picture waits up to a second for forwards that have begun. On the thread
/// that calls update() it changes nothing. Never throws; may end after its Beholder.
/// REQUIRES that the Beholder is neither moved nor destroyed while this is constructed.
class OnThisThread {
 public:
  explicit OnThisThread(const Beholder& beholder) noexcept;
  /// Watches `replica` in place of the attached modules: one that has parameters of its own, as replicate() makes them.
  /// `name` goes before the names of its modules. REQUIRES that the replica outlives this object.
  OnThisThread(const Beholder& beholder, const torch::nn::Module& replica, const std::string& name = "") noexcept;
  ~OnThisThread();
  OnThisThread(const OnThisThread&) = delete;
  OnThisThread& operator=(const OnThisThread&) = delete;

 private:
  std::shared_ptr<ActivationWatch> watch_;
  std::shared_ptr<Watcher> watcher_;  // nullptr where there is nothing to watch
};

}  // namespace beholder
