#include "beholder/activation_watch.h"

#include <ATen/core/grad_mode.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <exception>

#include "beholder/forks.h"
#include "beholder/graph_capture.h"
#include "beholder/tap.h"
#include "beholder/threads.h"

namespace beholder {
namespace {

/// By whom this thread is watched.
struct Here {
  /// nullptr when the thread has destroyed it already: a Beholder may be a static object, which ends after those of the
  /// main thread.
  static Here* current() {
    if (destroyed) return nullptr;
    thread_local Here here;
    return &here;
  }
  ~Here() {
    destroyed = true;
    any = false;
  }

  void add(std::shared_ptr<Watcher> watcher) {
    remove(watcher.get());
    all.push_back(std::move(watcher));
    any = true;
  }
  void remove(const Watcher* watcher) {
    all.erase(std::remove_if(all.begin(), all.end(), [&](const auto& one) { return one.get() == watcher; }), all.end());
    any = !all.empty();
  }
  /// Those that were disarmed on another thread, or armed there.
  void forget_idle() {
    const auto is_idle = [](const auto& one) {
      return one->arming.load() == 0 || one->thread.load() != std::this_thread::get_id();
    };
    all.erase(std::remove_if(all.begin(), all.end(), is_idle), all.end());
    any = !all.empty();
  }

  std::vector<std::shared_ptr<Watcher>> all;
  // Of types that need no destructor: they can be asked until the thread is gone.
  static thread_local bool destroyed, any;
};

thread_local bool Here::destroyed = false;
thread_local bool Here::any = false;

}  // namespace

namespace internal {

bool tapping_here() noexcept { return Here::any; }
void tap_here(const char* name, const at::Tensor& x) noexcept { ActivationWatch::tap_here(name, x); }

}  // namespace internal

double Watcher::take_seconds() {
  const double seconds = hooks ? hooks->take_seconds() : 0;
  taken += seconds;
  return seconds + std::exchange(tap_seconds, 0.0);
}

ActivationWatch::ActivationWatch(ErrorLog& errors)
    : forks_(fork_count()), main_(std::make_shared<Watcher>()), errors_(&errors) {}

bool ActivationWatch::copied() const { return fork_count() != forks_; }

std::unique_ptr<ForwardHooks> ActivationWatch::make_hooks(Watcher* watcher) {
  // Not the pointer to this watch that the watcher has: on_output() is called while its hooks are armed, and whoever
  // arms them keeps the watch.
  return std::make_unique<ForwardHooks>([this, watcher](const ForwardHooks::Output& out) {
    on_output(*watcher, {out.name, out.call, out.amended, out.grad_mode, /*tap=*/false, out.tensor, out.backwards,
                         &out.parameter});
  });
}

void ActivationWatch::set_modules(const Modules& modules) {
  auto roots = std::make_shared<Roots>();
  main_->hooks = make_hooks(main_.get());
  // Weakly: a module without parameters may be destroyed without our list of parameters changing.
  for (const auto& [module, name] : modules) {
    const bool has_owner = module.use_count() > 0;
    roots->push_back({module, has_owner ? nullptr : module.get(), name});
    main_->hooks->add(std::shared_ptr<const torch::nn::Module>(module), name);
  }
  MutexLock lock(mutex_);
  roots_ = std::move(roots);
}

void ActivationWatch::forget_modules() {
  disarm();
  main_->hooks.reset();
  MutexLock lock(mutex_);
  roots_.reset();
}

void ActivationWatch::arm(std::unique_ptr<ActivationSession> session, std::vector<c10::Device> devices,
                          const Terms& terms) {
  disarm();
  main_->watch = weak_from_this();
  main_->thread = std::this_thread::get_id();
  main_->taken = -main_->hooks->seconds();  // which are of before
  {
    MutexLock lock(mutex_);
    session_ = std::move(session);
    devices_ = std::move(devices);
    terms_ = terms;
    seconds_before_ = seconds_of_forward_ = 0;
    guests_came_ = false;
    calls_.clear();
    tap_calls_.clear();
    lanes_.clear();
    main_->number = watchers_ = 1;
    main_->arming = ++arming_;
  }
  came_ = false;
  on_ = true;
  main_->hooks->arm(terms.watching_limit);
  if (Here* const here = Here::current()) here->add(main_);
  armed_ = true;
}

ActivationWatch::Capture ActivationWatch::finish() {
  if (!mutex_.try_lock()) return {};
  Capture capture{std::move(session_), seconds_before_, seconds_of_forward_, armed() && !watching() && !guests_came_};
  armed_ = false;
  on_ = false;
  mutex_.unlock();
  disarm();
  return capture;
}

void ActivationWatch::disarm() {
  abandon();
  MutexLock lock(mutex_);
  session_.reset();
}

void ActivationWatch::abandon() {
  armed_ = false;
  on_ = false;
  main_->arming = 0;
  if (main_->hooks) main_->hooks->disarm();
  if (Here* const here = Here::current()) here->remove(main_.get());
}

void ActivationWatch::close() {
  forget_modules();
  MutexLock lock(mutex_);
  errors_ = nullptr;
}

double ActivationWatch::take_seconds() {
  double seconds = main_->take_seconds();
  if (mutex_.try_lock()) {
    seconds += std::exchange(guests_seconds_, 0.0);
    mutex_.unlock();
  }
  return seconds;
}

/// Those of the name, or of "name @2" where another thread has used the name for this picture.
ActivationWatch::CallsOf::value_type& ActivationWatch::calls_of(CallsOf& all, const std::string& name,
                                                                const Watcher& from) {
  const std::thread::id thread = from.thread.load();
  size_t& lane = lanes_[thread];
  for (;; ++lane) {
    const auto found = all.try_emplace(lane == 0 ? name : name + " @" + std::to_string(lane + 1)).first;
    Calls& calls = found->second;
    if (calls.thread == std::thread::id()) calls.thread = thread;
    if (calls.thread != thread) continue;
    if (std::exchange(calls.watcher, from.number) != from.number) calls.before = calls.all;
    return *found;
  }
}

void ActivationWatch::on_output(Watcher& from, ActivationOutput output) {
  if (copied()) return;
  if (output.tensor.defined() && records_graph(output.tensor.device())) {
    in_graphs_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  MutexLock lock(mutex_);
  if (!session_ || from.arming != arming_) return;
  auto& [label, calls] = calls_of(output.tap ? tap_calls_ : calls_, output.name, from);
  const int64_t call = output.call == kNext ? calls.all : calls.before + output.call;
  calls.all = std::max(calls.all, call + 1);
  const double watched = from.seconds();
  if (session_->empty()) {
    seconds_before_ = watched;
    from.hooks->allow(terms_.forward_limit);
  }
  try {
    const BesideGraphs beside(devices_);
    if (session_->add({label, call, output.amended, output.grad_mode, output.tap, output.tensor, output.backwards,
                       output.parameter})) {
      seconds_of_forward_ = std::max(seconds_of_forward_, watched - seconds_before_);
    }
  } catch (const std::exception& e) {
    if (errors_) errors_->report("capturing an activation", label + ": " + e.what());
  }
  if (!session_->empty()) came_.store(true, std::memory_order_relaxed);
  guests_came_ = guests_came_ || &from != main_.get();
  // Everything that is known has come: what follows costs nothing.
  if (!session_->complete() || session_->needs_place() || !terms_.until_complete) return;
  armed_.store(false, std::memory_order_relaxed);
  from.hooks->disarm_soon();
}

void ActivationWatch::on_tap(Watcher& from, const char* name, const at::Tensor& x) noexcept {
  const double cpu = thread_cpu_seconds();
  try {
    const std::string label(name);
    on_output(from,
              {label, kNext, /*amended=*/false, at::GradMode::is_enabled(), /*tap=*/true, x, from.hooks->backwards()});
  } catch (...) {  // out of memory for a name: this picture lacks the tap
  }
  from.tap_seconds += thread_cpu_seconds() - cpu;
}

void ActivationWatch::tap(const char* name, const at::Tensor& x) noexcept {
  Here* const here = Here::current();
  if (!here || !armed()) return;
  here->forget_idle();
  const auto mine = std::find_if(here->all.begin(), here->all.end(),
                                 [this](const auto& one) { return one->watch.lock().get() == this; });
  if (mine != here->all.end()) on_tap(**mine, name, x);
}

void ActivationWatch::tap_here(const char* name, const at::Tensor& x) noexcept {
  Here* const here = Here::current();
  if (!here) return;
  here->forget_idle();
  for (size_t i = 0; i < here->all.size(); ++i) {
    const auto watcher = here->all[i];
    const auto watch = watcher->watch.lock();
    if (watch && watch->armed()) watch->on_tap(*watcher, name, x);
  }
}

std::shared_ptr<Watcher> ActivationWatch::enter(const torch::nn::Module* replica, const std::string& name) noexcept {
  if (!armed() || copied()) return nullptr;
  Here* const here = Here::current();
  if (!here) return nullptr;
  try {
    here->forget_idle();
    const bool known = std::any_of(here->all.begin(), here->all.end(), [this](const auto& one) {
      return one->arming == arming_.load() && one->watch.lock().get() == this;
    });
    if (known && !replica) return nullptr;
    auto watcher = std::make_shared<Watcher>();
    watcher->watch = weak_from_this();
    watcher->thread = std::this_thread::get_id();
    watcher->hooks = make_hooks(watcher.get());
    std::shared_ptr<const Roots> roots;
    double limit;
    {
      MutexLock lock(mutex_);
      if (!session_) return nullptr;
      roots = roots_;
      limit = came_ ? terms_.forward_limit : terms_.watching_limit;
      watcher->number = ++watchers_;
      watcher->arming = arming_.load();
    }
    if (replica) {
      watcher->hooks->add(*replica, name);
    } else if (roots) {
      for (const auto& root : *roots) {
        if (root.borrowed) {
          watcher->hooks->add(*root.borrowed, root.name);
        } else if (const auto module = root.owned.lock()) {
          watcher->hooks->add(module, root.name);
        }
      }
    }
    watcher->hooks->arm(limit);
    here->add(watcher);
    guests_.fetch_add(1, std::memory_order_relaxed);
    return watcher;
  } catch (...) {  // no memory: this picture lacks the thread
    return nullptr;
  }
}

void ActivationWatch::leave(Watcher& watcher) noexcept {
  watcher.hooks->disarm();
  if (Here* const here = Here::current()) here->remove(&watcher);
  if (copied()) return;
  {
    MutexLock lock(mutex_);
    guests_seconds_ += watcher.take_seconds();
  }
  watcher.arming = 0;
  guests_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace beholder
