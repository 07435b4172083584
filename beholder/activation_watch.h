// Where the activations of one Beholder come together: forward hooks and taps, of the thread that calls update() and of
// those that have an OnThisThread, into the session of one picture. Internal.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "beholder/activation_session.h"
#include "beholder/error_log.h"
#include "beholder/forward_hooks.h"
#include "beholder/thread_safety.h"

namespace torch {
namespace nn {
class Module;
}
}  // namespace torch

namespace beholder {

class ActivationWatch;

/// One thread that is watched. Its hooks and counts are of that thread alone.
struct Watcher {
  std::weak_ptr<ActivationWatch> watch;
  std::unique_ptr<ForwardHooks> hooks;
  std::atomic<std::thread::id> thread{};
  uint64_t number = 0;              // of all watchers of the watch, anew with each arming
  std::atomic<uint64_t> arming{0};  // which one of the watch this one serves; 0: none
  double taken = 0;                 // of the hooks' seconds since arming, what was paid
  double tap_seconds = 0;           // not paid yet

  /// What watching has taken of the thread since it was armed.
  double seconds() const { return taken + hooks->seconds(); }
  /// What is to be paid.
  double take_seconds();
};

/// # Multithreading
/// Outputs come from any thread that is watched; each is copied under the lock, which the thread that calls update()
/// only tries. What belongs to "the training thread" is of that one. Lives as long as an OnThisThread needs it; close()
/// cuts it from its Beholder.
///
/// Two threads that run the same module for one picture are shown side by side: "conv" and "conv @2".
class ActivationWatch : public std::enable_shared_from_this<ActivationWatch> {
 public:
  using Modules = std::vector<std::pair<std::shared_ptr<torch::nn::Module>, std::string>>;

  /// What one arming may cost, and when it ends.
  struct Terms {
    double watching_limit;  ///< seconds of each thread, as long as nothing comes
    double forward_limit;   ///< from the first output on
    bool until_complete;    ///< stops once everything that the plan knows has come
  };
  /// What came of it.
  struct Capture {
    std::unique_ptr<ActivationSession> session;
    double seconds_before, seconds_of_forward;  ///< until the first output, and from there to the last that counts
    bool given_up;                              ///< watching has stopped by its limits
  };

  /// `errors` outlives close().
  explicit ActivationWatch(ErrorLog& errors);

  // ---- the training thread

  /// Other modules are watched from the next arm() on. Keeps none of those alive that have an owner.
  void set_modules(const Modules& modules);
  /// Forgets them now: they may be destroyed.
  void forget_modules();
  /// Watches the calling thread, and those that come with an OnThisThread, for this session. `devices`: where tensors
  /// may be. REQUIRES set_modules().
  void arm(std::unique_ptr<ActivationSession> session, std::vector<c10::Device> devices, const Terms& terms);
  /// Ends watching; what came is in the result. nullptr as its session where another thread is just copying into it:
  /// then nothing has changed.
  Capture finish();
  /// Gives up what is being captured. After it no output is copied, and no module is followed on this thread.
  void disarm();
  /// The same in the child of a fork(), where the lock may be held by a thread that is not there.
  void abandon();
  /// disarm(), and nothing comes any more.
  void close();

  /// A session is there.
  bool on() const { return on_; }
  /// arm() was called on this thread.
  bool on_this_thread() const { return main_->thread.load() == std::this_thread::get_id(); }
  /// The hooks of the training thread watch, and have not stopped by themselves.
  bool watching() const { return main_->hooks && main_->hooks->armed(); }
  /// See ForwardHooks::moved().
  bool moved() const { return main_->hooks && main_->hooks->moved(); }
  /// What the training thread has paid for being watched since arm(), in seconds.
  double seconds_since_arming() const { return main_->hooks ? main_->seconds() : 0; }
  /// What all threads have to pay.
  double take_seconds();

  // ---- any thread

  /// Nothing has come since arm().
  bool empty() const { return !came_.load(std::memory_order_relaxed); }
  /// Something is still waited for.
  bool armed() const { return armed_.load(std::memory_order_relaxed); }
  /// Some OnThisThread is in the middle of its forward.
  bool busy() const { return guests_.load(std::memory_order_relaxed) > 0; }
  /// Outputs that were left to a graph that was being recorded.
  int64_t in_graphs() const { return in_graphs_.load(std::memory_order_relaxed); }
  /// Shows x as an activation of this name, where this thread is watched.
  void tap(const char* name, const at::Tensor& x) noexcept;

  /// Watches this thread until leave(), where armed() and not watched already; else nullptr. `replica`: in place of the
  /// attached modules; their names are those below `name`. REQUIRES that it lives until leave().
  std::shared_ptr<Watcher> enter(const torch::nn::Module* replica, const std::string& name) noexcept;
  void leave(Watcher& watcher) noexcept;

  /// Every watch that watches this thread gets the tap.
  static void tap_here(const char* name, const at::Tensor& x) noexcept;

 private:
  struct Root {
    std::weak_ptr<const torch::nn::Module> owned;
    const torch::nn::Module* borrowed;
    std::string name;
  };
  using Roots = std::vector<Root>;
  struct Calls {
    std::thread::id thread;
    uint64_t watcher = 0;
    int64_t before = 0, all = 0;  // of the watchers before; and up to now
  };
  using CallsOf = std::unordered_map<std::string, Calls>;  // by label
  static constexpr int64_t kNext = -1;                     // instead of the number of a call: the next one

  std::unique_ptr<ForwardHooks> make_hooks(Watcher* watcher);
  void on_output(Watcher& from, ActivationOutput output);
  void on_tap(Watcher& from, const char* name, const at::Tensor& x) noexcept;
  CallsOf::value_type& calls_of(CallsOf& all, const std::string& name, const Watcher& from) BEHOLDER_REQUIRES(mutex_);
  bool copied() const;

  const int forks_;
  const std::shared_ptr<Watcher> main_;  // of the training thread
  bool on_ = false;                      // likewise

  std::atomic<bool> armed_{false}, came_{false};
  std::atomic<int> guests_{0};
  std::atomic<uint64_t> arming_{0};  // written under mutex_
  std::atomic<int64_t> in_graphs_{0};

  mutable Mutex mutex_;
  ErrorLog* errors_ BEHOLDER_GUARDED_BY(mutex_);  // nullptr once closed
  std::shared_ptr<const Roots> roots_ BEHOLDER_GUARDED_BY(mutex_);
  std::unique_ptr<ActivationSession> session_ BEHOLDER_GUARDED_BY(mutex_);
  std::vector<c10::Device> devices_ BEHOLDER_GUARDED_BY(mutex_);
  Terms terms_ BEHOLDER_GUARDED_BY(mutex_){};
  double seconds_before_ BEHOLDER_GUARDED_BY(mutex_) = 0, seconds_of_forward_ BEHOLDER_GUARDED_BY(mutex_) = 0;
  double guests_seconds_ BEHOLDER_GUARDED_BY(mutex_) = 0;  // not paid yet
  uint64_t watchers_ BEHOLDER_GUARDED_BY(mutex_) = 0;
  bool guests_came_ BEHOLDER_GUARDED_BY(mutex_) = false;
  CallsOf calls_ BEHOLDER_GUARDED_BY(mutex_), tap_calls_ BEHOLDER_GUARDED_BY(mutex_);
  std::unordered_map<std::thread::id, size_t> lanes_ BEHOLDER_GUARDED_BY(mutex_);  // the n of its labels "conv @n"
};

}  // namespace beholder
