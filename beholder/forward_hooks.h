// Forward hooks for any torch::nn::Module that owns parameters. A class of its own: nothing else of Beholder is needed
// to use it. The owner arms it on the thread that runs forward; its hook runs on that thread, inside forward.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace torch {
namespace nn {
class Module;
}
}  // namespace torch

namespace beholder {

/// Shows what each module of a network computes, without an edit of the network's source.
///
///   beholder::ForwardHooks hooks([](const beholder::ForwardHooks::Output& output) {
///     std::cout << output.name << ' ' << output.tensor.sizes() << '\n';
///   });
///   hooks.add(*net);
///   hooks.arm();
///   net->forward(batch);  // conv1 [64, 8, 26, 26], bn1 [64, 8, 26, 26], ...
///   hooks.disarm();
///
/// C++ modules have no hooks of their own, so this one watches the operators of the thread: an operator that reads a
/// parameter of a module, and data besides, computes that module's output. Of nested operators the outermost counts.
/// Gradients, optimizer steps and arithmetic on the weights alone read parameters too; they are told apart (see
/// forward_hooks.cpp) and not reported.
///
/// # Multithreading
/// arm(), the forward and disarm() belong on one thread; other threads' operators are never seen, nor are those of
/// autograd. A disarm() or destructor on another thread stops the hook too, and then REQUIRES that no forward is
/// running. Several ForwardHooks, on one thread or many, do not know of each other.
///
/// # Errors
/// Nothing here ever throws into a forward. What the hook throws is swallowed and counted by hook_errors(). A forward
/// that throws leaves the hooks armed and consistent.
///
/// # Cost
/// Nothing while not armed. While armed, each operator that the thread calls takes 0.3 microseconds more, nested ones
/// included, and one that reads a parameter about 1; two thirds of that is LibTorch's own recording. Measured with two
/// Conv2d, two BatchNorm2d and two Linear on one thread, LibTorch 1.13.1: 75 microseconds for the 82 operators of a
/// forward, on top of 740 (batch of 1) or of 9,700 (batch of 32); 300 to 500 for the 600 operators of a whole step with
/// backward and Adam, on top of 3,700. So a hook that has seen all it wants calls disarm(): what follows costs nothing.
/// arm() takes 0.7 microseconds for each parameter.
///
/// # Limits
/// - Modules without parameters (ReLU, pooling, softmax, LayerNorm without affine) and blocks of modules are not seen;
///   MultiheadAttention gives its projections, not its attention maps.
/// - Of an operator with several results the first is reported (LSTM and GRU: the sequence, not the last state).
/// - A weight that forward computes anew (weight * mask, weight norm) hides its module, unless the bias is used as is.
///   So do parameters that are detached, in grad mode.
/// - Where nothing tells two modules apart (two Linears share one weight, and have no biases or an input of 3
///   dimensions), they are taken to run in the order in which they were registered.
/// - Taken for an activation although it is none: matrix products of a weight with something that is no parameter
///   (power iteration), `weight - rate * gradient` with create_graph, and element-wise arithmetic of a weight with a
///   larger, constant tensor.
/// - Not taken for one although it is: `parameter + x` or `parameter * x` where the result has the parameter's own
///   shape and x does not require grad (a learned position with a batch of exactly one, outside training).
class ForwardHooks {
 public:
  /// What a module computed. Valid during the call of the hook.
  struct Output {
    const std::string& name;          ///< the module's path, "encoder.layers.0.linear1"
    const torch::nn::Module* module;  ///< its address; to be followed only while the module lives
    int64_t call;       ///< 0 for the module's first call since arm(), 1 for its second, ... A call begins where a
                        ///< parameter is used for a second time; the query, key and value of an attention are three
    bool amended;       ///< replaces what was reported for this call before: `matmul`, then `add_(bias)`
    bool grad_mode;     ///< whether forward runs with autograd on
    int64_t backwards;  ///< functions of backward passes that this thread has run since arm(). (A backward pass on a
                        ///< device runs on threads of its own, and is not counted.)
    const at::Tensor& parameter;  ///< the first of the module's own parameters that it used
    const at::Tensor& tensor;     ///< the output itself, of any shape; later operators may write into it
  };

  /// Runs inside forward, with autograd off and its own operators unseen by any profiler: copy what is needed, return.
  /// May call disarm().
  using Hook = std::function<void(const Output&)>;

  explicit ForwardHooks(Hook hook);
  ~ForwardHooks();
  ForwardHooks(const ForwardHooks&) = delete;
  ForwardHooks& operator=(const ForwardHooks&) = delete;

  /// Adds `root` and all modules below it, from the next arm() on. Names are paths below `name`; without one they begin
  /// with the names of root's children, and parameters of root itself go by its class, "Linear". A module that is
  /// reached twice keeps its first name; of two that would have the same name one is "Linear_2".
  /// REQUIRES that root outlives this object, or clear().
  void add(const torch::nn::Module& root, std::string name = "");
  /// The same for a module that may be destroyed earlier: it is held weakly (also while armed). A pointer that owns
  /// nothing (aliased to no owner) is taken as the reference above.
  void add(const std::shared_ptr<const torch::nn::Module>& root, std::string name = "");
  /// Forgets all modules, and disarms.
  void clear();

  /// Looks up modules, parameters and where their bytes are *now*, and starts to watch this thread. When armed already,
  /// starts anew. Parameters (not modules) are kept alive until disarm(). Other modules, and other parameters in place
  /// of these, are seen at the next arm(). Parameters that come to lie elsewhere (torch::load, to(dtype), set_data())
  /// are followed when an operator reads one of them, which takes as long as arm().
  /// `most_seconds`: of what take_seconds() counts; after that the watching stops by itself.
  void arm(double most_seconds = std::numeric_limits<double>::infinity());
  /// From now on so much more of it.
  void allow(double seconds);
  /// Stops after a few more operators: what was reported last may still be amended.
  void disarm_soon();
  /// Stops watching; calls of `Output::call` begin at 0 again. Does nothing when not armed.
  void disarm();
  /// Watching, and not stopped by itself.
  bool armed() const;
  /// Modules or their parameters are others than those that are watched, or lie elsewhere and have not been used since.
  /// Takes as long as arm(). For the thread that arms.
  bool moved() const;
  /// See Output::backwards; 0 when not armed. For the thread that arms.
  int64_t backwards() const;

  /// What this thread has paid for being watched since the last call, in seconds: the hook, the search for parameters,
  /// and an estimate of what LibTorch takes for telling of its operators. For the thread that arms.
  double take_seconds();

  /// What take_seconds() would return.
  double seconds() const;

  /// How often the hook has thrown since construction. Any thread.
  int64_t hook_errors() const;

 private:
  struct Root {
    const torch::nn::Module* borrowed;               // set where the caller keeps it alive,
    std::weak_ptr<const torch::nn::Module> watched;  // else this is
    std::string name;
  };
  struct LivingRoots {
    std::vector<std::shared_ptr<const torch::nn::Module>> owners;
    std::vector<const torch::nn::Module*> modules;  // null where one is gone
  };
  struct Subscriber;
  struct Found;
  struct Arming;

  LivingRoots living_roots() const;

  std::vector<Root> roots_;
  std::shared_ptr<Found> found_;            // by the last arm(); null where there are other roots since
  std::shared_ptr<Subscriber> subscriber_;  // the hook and its count; shared with an Arming that outlives us elsewhere
  std::shared_ptr<Arming> arming_;          // null when not armed

  friend struct ForwardHooksThread;
};

}  // namespace beholder
