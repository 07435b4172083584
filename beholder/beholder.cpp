#include "beholder/beholder.h"

#include <ATen/core/grad_mode.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <functional>
#include <unordered_map>
#include <vector>

#include "beholder/activations.h"
#include "beholder/capture.h"
#include "beholder/dispatcher.h"
#include "beholder/forks.h"
#include "beholder/forward_hooks.h"
#include "beholder/graph_capture.h"
#include "beholder/log.h"
#include "beholder/moving_rate.h"
#include "beholder/pipeline.h"
#include "beholder/tensors.h"
#include "beholder/thread_safety.h"
#include "beholder/threads.h"

namespace beholder {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

Clock::duration ticks(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(Seconds(std::min(seconds, 3600.0)));
}

/// Activations are waited for during this many updates before the picture says that there are none.
constexpr int kArmedUpdates = 3;
/// After this long without an activation due() is true: who calls update() only then shall learn that there are none.
constexpr auto kArmedLong = std::chrono::seconds(1);
/// How soon an update() looks again for a plan that it has asked for.
constexpr auto kLookAgain = std::chrono::microseconds(500);
/// How soon after a failure the values that the settings ask for are tried again.
constexpr auto kTryAgain = std::chrono::milliseconds(100);
/// How often it is looked for somebody who wants pictures while paused (a recorder may be added).
constexpr auto kIdle = std::chrono::seconds(1);

std::string nothing_to_show(Values values, bool attached) {
  switch (values) {
    case Values::Parameters:
      return attached ? "the attached modules own no parameters" : "nothing attached: call attach(model)";
    case Values::Gradients:
      return attached ? "no gradients yet: call update() after backward() and before zero_grad()"
                      : "nothing attached: call attach(model)";
    case Values::Activations:
      return attached ? "no activations seen: run forward between two calls of update(), on the same thread"
                      : "nothing attached: call attach(model), or tap(name, tensor)";
    case Values::Arrays: return "no arrays passed: call update(arrays)";
    case Values::Frame: return "no frame passed: call update(frame)";
  }
  return "nothing to show";
}

}  // namespace

/// Where a callback that was left behind finds out that its Beholder is gone.
struct Lifeline {
  Mutex mutex;
  std::function<State()> state BEHOLDER_GUARDED_BY(mutex);  // empty when the Beholder is gone
  Pipeline* pipeline BEHOLDER_GUARDED_BY(mutex) = nullptr;  // likewise
};

struct Beholder::Impl {
  Impl(std::string logdir_, Options options_)
      : options(std::move(options_)),
        logdir(std::move(logdir_)),
        directory((std::filesystem::path(logdir) / "plugins" / "beholder").string()),
        settings(std::make_shared<SharedSettings>(options.settings)),
        // Half of the host's memory is for rendering (plan.cpp).
        dispatcher(options.max_host_bytes / 4, budget),
        pipeline(options, settings, dispatcher, budget),
        captured(options.settings),
        forced(options.settings.fps > 0) {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    if (error) {
      log_warning("cannot create " + directory + ": " + error.message() +
                  "; nothing will be written there, the training goes on");
    }
    lifeline->state = [this] { return state(); };
    lifeline->pipeline = &pipeline;
  }

  ~Impl() {
    disarm();
    hooks.reset();
    pipeline.end();  // what was captured is rendered,
    dispatcher.close(
        Dispatcher::kPatience);  // and shown; callbacks may ask for state and pictures until they are closed
    MutexLock lock(lifeline->mutex);
    lifeline->state = nullptr;
    lifeline->pipeline = nullptr;
  }

  State state() const;
  /// This is the child of a fork(): there is no render thread here, and locks may be held by nobody.
  bool copied() const noexcept { return fork_count() != forks; }

  // ---- the way of one picture, on the training thread --------------------------------------------------------------

  void update(const ArraysOrFunction* arrays, const FrameOrFunction* frame);
  Clock::time_point earliest(const Settings& wished, bool at_once, Clock::time_point next) const;
  bool due(Clock::time_point now) const;
  bool inside_graph();
  bool follow_settings(Clock::time_point now);
  void collect(const ArraysOrFunction* arrays, const FrameOrFunction* frame);
  void show_collected(Clock::time_point now);
  void show_activations(Clock::time_point now);
  void arm(const std::shared_ptr<const Plan>& plan);
  void disarm();
  void list_changed();
  void on_output(const std::string& name, int64_t call, bool amended, bool grad_mode, bool tap,
                 const at::Tensor& tensor);
  std::shared_ptr<const Plan> fitting_plan();
  bool plan_true_of_candidates(const Plan& plan) const;
  void ask_for_plan(std::vector<TensorSpec> specs, bool nothing, Clock::time_point now);
  void submit(const std::shared_ptr<const Plan>& plan, Slot* slot, Clock::time_point now);
  void dropped_picture(Clock::time_point now, Clock::duration retry = kLookAgain);
  void picture_done(Clock::time_point now);
  void pay(Clock::time_point started, double cpu_seconds);
  static double interval_seconds(const Settings& s) { return s.fps > 0 ? 1.0 / s.fps : 3600.0; }
  const GatherIndex& index_of(const std::shared_ptr<const Plan>& plan);

  const Options options;
  const std::string logdir, directory;
  const std::shared_ptr<SharedSettings> settings;
  const std::shared_ptr<Lifeline> lifeline = std::make_shared<Lifeline>();
  const int forks = fork_count();
  const std::shared_ptr<BackgroundBudget> budget = std::make_shared<BackgroundBudget>(options.max_background);
  Dispatcher dispatcher;
  Pipeline pipeline;  // after the dispatcher: ends before it

  // Of the training thread alone.
  Tensors tensors;
  std::vector<Candidate> candidates;
  Arrays kept_arrays;  // what `candidates` point into
  std::string frame_name = "frame";
  Settings current;   // those of seen_revision
  Settings captured;  // of the last picture; before it, those at the start
  uint64_t seen_revision = 0;
  bool forced;                       // the settings ask for values that have not been captured yet
  bool updating = false;             // a function of the user's, called by update(), may call update()
  Refusals refusals;                 // until the list of tensors changes
  bool names_changed = true;         // the list of tensors is another one than the plan's
  Clock::time_point next_due{};      // nothing to do before this
  Clock::time_point next_picture{};  // by the FPS wished
  Clock::time_point paid_until{};    // by the budget
  std::vector<c10::Device> devices;  // of the newest plan, else of the parameters
  std::shared_ptr<const Plan> indexed_plan;
  std::unique_ptr<GatherIndex> index;
  std::unique_ptr<ForwardHooks> hooks;
  bool hooks_stale = true;
  std::unique_ptr<ActivationCapture> capture;  // while armed
  std::unordered_map<std::string, int64_t> tap_calls;
  int armed_updates = 0;
  Clock::time_point armed_at{};
  double tap_seconds = 0;
  bool said_no_gradients = false, said_no_activations = false;
  Clock::time_point last_picture_at{}, last_paid_at{};
  double last_paid = 0;
  MovingRate picture_rate{0.2}, cost_rate{0.1};

  // Read by state() and tap().
  std::atomic<bool> armed{false};
  std::atomic<int64_t> step{0}, last_step{0}, updates{0}, captures{0}, drops{0}, in_graphs{0};
  std::atomic<double> update_seconds{0}, overhead{0}, fps_real{0};
};

bool Beholder::Impl::follow_settings(Clock::time_point now) {
  uint64_t revision;
  std::tie(current, revision) = settings->snapshot();
  if (revision != seen_revision) {
    seen_revision = revision;
    forced = forced || needs_capture(captured, current);
    next_picture = std::min(next_picture, last_picture_at + ticks(interval_seconds(current)));
  }
  const auto when = earliest(current, forced, next_picture);
  next_due = std::min(when, now + kIdle);
  return now >= when;
}

/// When a picture of these settings is due: by the wish and by the budgets; never where nobody wants one.
Clock::time_point Beholder::Impl::earliest(const Settings& wished, bool at_once, Clock::time_point next) const {
  const bool nobody = wished.paused && !dispatcher.needs().film;
  if (!at_once && (wished.fps <= 0 || nobody)) return Clock::time_point::max();
  return std::max({at_once ? Clock::time_point{} : next, paid_until, pipeline.not_before()});
}

bool Beholder::Impl::due(Clock::time_point now) const {
  if (capture) return !capture->empty() || now >= armed_at + kArmedLong;
  if (settings->revision() == seen_revision) return now >= next_due && now >= earliest(current, forced, next_picture);
  const Settings wished = settings->get();
  return now >= earliest(wished, forced || needs_capture(captured, wished),
                         std::min(next_picture, last_picture_at + ticks(interval_seconds(wished))));
}

void Beholder::Impl::update(const ArraysOrFunction* arrays, const FrameOrFunction* frame) {
  const auto now = Clock::now();
  if (!capture && !follow_settings(now)) return;
  struct Bill {  // is paid after an exception too
    Impl& impl;
    Clock::time_point started;
    double cpu = thread_cpu_seconds();
    ~Bill() {
      impl.candidates.clear();
      impl.kept_arrays.clear();
      impl.updating = false;
      const double hooks = impl.hooks ? impl.hooks->take_seconds() : 0;
      impl.pay(started, thread_cpu_seconds() - cpu + hooks + std::exchange(impl.tap_seconds, 0.0));
    }
  } bill{*this, now};
  updating = true;
  if (inside_graph()) {
    in_graphs.fetch_add(1, std::memory_order_relaxed);
    if (!capture) next_due = now + kLookAgain;
    return;
  }
  const BesideGraphs beside(devices);
  if (capture) {  // armed by an update before: its picture is completed whatever the clock says
    show_activations(now);
    return;
  }
  if (tensors.refresh(now)) list_changed();
  if (current.values == Values::Activations) {
    arm(fitting_plan());
  } else {
    collect(arrays, frame);
    show_collected(now);
  }
}

/// The stream that this update would work on records a graph, of which nothing of ours shall be a part.
bool Beholder::Impl::inside_graph() {
  if (const auto plan = pipeline.plan()) {
    devices = plan->devices;
  } else {
    tensors.parameters(/*gradients=*/false, candidates);
    devices.clear();
    for (const auto& candidate : candidates) {
      const c10::Device device = candidate.tensor.device();
      if (std::find(devices.begin(), devices.end(), device) == devices.end()) devices.push_back(device);
    }
    candidates.clear();
  }
  return any_records_graph(devices);
}

void Beholder::Impl::collect(const ArraysOrFunction* arrays, const FrameOrFunction* frame) {
  candidates.clear();
  switch (current.values) {
    case Values::Parameters: tensors.parameters(/*gradients=*/false, candidates); break;
    case Values::Gradients: tensors.parameters(/*gradients=*/true, candidates); break;
    case Values::Arrays:
      if (arrays) kept_arrays = arrays->get();
      for (const auto& array : kept_arrays) {
        candidates.push_back({&array.name, &array.module, array.kind, false, array.tensor});
      }
      break;
    case Values::Frame:
      if (frame) candidates.push_back({&frame_name, nullptr, Kind::Frame, false, frame->get()});
      break;
    case Values::Activations: break;
  }
  if (refusals.empty()) return;
  for (auto& candidate : candidates) candidate.refusal = find_refusal(refusals, *candidate.name, candidate.tensor);
}

/// The newest plan where it is one for these settings.
std::shared_ptr<const Plan> Beholder::Impl::fitting_plan() {
  auto plan = pipeline.plan();
  if (!plan || plan->settings.values != current.values || needs_capture(plan->settings, current)) return nullptr;
  return plan;
}

bool Beholder::Impl::plan_true_of_candidates(const Plan& plan) const {
  if (plan.tensors.size() != candidates.size()) return false;
  if (candidates.empty()) return plan.views.front().message == nothing_to_show(current.values, !tensors.empty());
  // The names of parameters change only with the list of them; arrays may have others at each update.
  const bool compare_names = names_changed || current.values == Values::Arrays || indexed_plan.get() != &plan;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!plan.tensors[i].still_true(candidates[i])) return false;
    if (!compare_names) continue;
    if (plan.tensors[i].name != *candidates[i].name) return false;
    if (plan.tensors[i].refusal.empty() &&
        plan.tensors[i].kind != resolve_kind(candidates[i].kind, plan.tensors[i].sizes)) {
      return false;
    }
  }
  return true;
}

const GatherIndex& Beholder::Impl::index_of(const std::shared_ptr<const Plan>& plan) {
  if (indexed_plan != plan) {
    index = std::make_unique<GatherIndex>(*plan);
    indexed_plan = plan;
  }
  return *index;
}

void Beholder::Impl::show_collected(Clock::time_point now) {
  const bool any = std::any_of(candidates.begin(), candidates.end(), [](const auto& c) { return c.tensor.defined(); });
  if (!any && current.values == Values::Gradients && !tensors.empty() && !std::exchange(said_no_gradients, true)) {
    log_warning("gradients are shown, but none is defined: call update() after backward() and before zero_grad()");
  }
  const auto plan = fitting_plan();
  if (!plan || !plan_true_of_candidates(*plan)) {
    std::vector<TensorSpec> specs;
    for (const auto& candidate : candidates) specs.push_back(describe(candidate));
    // Arrays that were passed, but cannot be shown, are named by the plan.
    ask_for_plan(std::move(specs), candidates.empty() || (!any && current.values == Values::Gradients), now);
    return;
  }
  const GatherIndex& places = index_of(plan);
  names_changed = false;
  Slot* slot = acquire_slot(*plan);
  if (!slot) {
    dropped_picture(now);
    return;
  }
  size_t i = 0;
  try {
    for (; i < candidates.size(); ++i) {
      if (plan->tensors[i].refusal.empty()) gather(*plan, places, *slot, i, candidates[i].tensor);
    }
    record_filled(*slot);
  } catch (const std::exception& e) {
    abandon(*slot);
    record_filled(*slot);  // what was begun is still waited for
    if (i == candidates.size()) throw;
    const std::string& name = *candidates[i].name;
    refuse(refusals, name, candidates[i].tensor, unreadable(e));  // the next picture goes without this one
    pipeline.errors().report("update()", name + " " + unreadable(e));
    dropped_picture(now);
    return;
  }
  submit(plan, slot, now);
}

void Beholder::Impl::ask_for_plan(std::vector<TensorSpec> specs, bool nothing, Clock::time_point now) {
  if (!pipeline.planning()) {
    PlanRequest request;
    request.settings = current;
    request.revision = seen_revision;
    request.tensors = std::move(specs);
    if (nothing) request.nothing = nothing_to_show(current.values, !tensors.empty());
    pipeline.request_plan(std::move(request));
    drops.fetch_add(1, std::memory_order_relaxed);
  }
  next_due = next_picture = now + kLookAgain;
}

void Beholder::Impl::arm(const std::shared_ptr<const Plan>& plan) {
  if (!hooks || hooks_stale) {
    hooks = std::make_unique<ForwardHooks>([this](const ForwardHooks::Output& output) {
      on_output(output.name, output.call, output.amended, output.grad_mode, /*tap=*/false, output.tensor);
    });
    // Weakly: a module without parameters may be destroyed without our list of parameters changing.
    for (const auto& [module, name] : tensors.modules()) {
      hooks->add(std::shared_ptr<const torch::nn::Module>(module), name);
    }
    hooks_stale = false;
  }
  Slot* slot = nullptr;
  if (plan) {
    slot = acquire_slot(*plan);
    if (!slot) {
      dropped_picture(Clock::now());
      return;
    }
  }
  capture = std::make_unique<ActivationCapture>(plan, plan ? &index_of(plan) : nullptr, slot, refusals);
  armed_updates = 0;
  armed_at = Clock::now();
  tap_calls.clear();
  hooks->arm();
  armed.store(true, std::memory_order_relaxed);
  next_due = Clock::time_point{};
}

/// Gives up what is being captured: the modules that the hooks follow may be destroyed soon.
void Beholder::Impl::disarm() {
  if (!capture) return;
  armed.store(false, std::memory_order_relaxed);
  if (hooks) hooks->disarm();
  if (capture->slot()) abandon(*capture->slot());
  capture.reset();
}

/// The list of tensors is another one than before.
void Beholder::Impl::list_changed() {
  names_changed = hooks_stale = true;
  refusals.clear();
}

void Beholder::Impl::on_output(const std::string& name, int64_t call, bool amended, bool grad_mode, bool tap,
                               const at::Tensor& tensor) {
  if (!capture || copied()) return;
  if (tensor.defined() && records_graph(tensor.device())) {
    in_graphs.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  try {
    const BesideGraphs beside(devices);
    capture->add(name, call, amended, grad_mode, tap, tensor);
  } catch (const std::exception& e) {
    pipeline.errors().report("capturing an activation", name + ": " + e.what());
  }
}

void Beholder::Impl::show_activations(Clock::time_point now) {
  const bool others = settings->revision() != seen_revision && settings->get().values != Values::Activations;
  if (capture->empty() && !others && ++armed_updates < kArmedUpdates) return;
  armed.store(false, std::memory_order_relaxed);
  hooks->disarm();
  const auto done = std::move(capture);
  next_due = now;
  if (others) {
    if (done->slot()) abandon(*done->slot());
    return;
  }
  if (done->empty()) {
    if (done->plan() && done->plan()->tensors.empty() &&  // a plan that says so
        done->plan()->views.front().message == nothing_to_show(Values::Activations, !tensors.empty())) {
      submit(done->plan(), done->slot(), now);
    } else {
      if (done->slot()) abandon(*done->slot());
      ask_for_plan({}, /*nothing=*/true, now);
    }
    if (!std::exchange(said_no_activations, true)) log_warning(nothing_to_show(Values::Activations, !tensors.empty()));
    return;
  }
  if (done->complete()) {
    submit(done->plan(), done->slot(), now);
    return;
  }
  if (done->slot()) abandon(*done->slot());
  ask_for_plan(done->specs(), /*nothing=*/false, now);
}

void Beholder::Impl::submit(const std::shared_ptr<const Plan>& plan, Slot* slot, Clock::time_point now) {
  finish(*slot);
  try {
    pipeline.submit(plan, slot, {step.load(std::memory_order_relaxed), std::chrono::system_clock::now()});
  } catch (...) {  // no memory for its place in the queue
    abandon(*slot);
    throw;
  }
  captures.fetch_add(1, std::memory_order_relaxed);
  captured = current;
  forced = false;
  if (last_picture_at != Clock::time_point{}) {
    fps_real.store(picture_rate.add(1, Seconds(now - last_picture_at).count()), std::memory_order_relaxed);
  }
  picture_done(now);
  last_picture_at = now;
}

void Beholder::Impl::dropped_picture(Clock::time_point now, Clock::duration retry) {
  drops.fetch_add(1, std::memory_order_relaxed);
  if (forced) {  // what a viewer asked for comes as soon as it can, whatever the FPS
    next_due = next_picture = now + retry;
  } else {
    picture_done(now);
  }
}

/// The next picture is due one interval after this one was; after a late one, one interval from now.
void Beholder::Impl::picture_done(Clock::time_point now) {
  const auto interval = ticks(interval_seconds(current));
  next_picture = next_picture + interval < now ? now + interval : next_picture + interval;
  next_due = next_picture;
}

/// What a due update() takes of the training thread is paid for by quiet, so that its share stays below max_overhead.
/// CPU time, not wall time: what other threads take from this one is not ours.
void Beholder::Impl::pay(Clock::time_point started, double cpu_seconds) {
  const double spent = std::max(0.0, cpu_seconds);
  const double known = update_seconds.load(std::memory_order_relaxed);
  update_seconds.store(known == 0 ? spent : known + 0.2 * (spent - known), std::memory_order_relaxed);
  // An update() that arms hooks is not paid for yet when the one that captures comes.
  paid_until = std::max(paid_until, started) + ticks(spent / options.max_overhead);
  if (last_paid_at != Clock::time_point{}) {
    overhead.store(cost_rate.add(last_paid, Seconds(started - last_paid_at).count()), std::memory_order_relaxed);
  }
  last_paid_at = started;
  last_paid = spent;
  if (!capture) next_due = std::max(next_due, paid_until);
}

Beholder::Beholder(std::string logdir, Options options) {
  check(options);
  impl_ = std::make_unique<Impl>(std::move(logdir), std::move(options));
}

Beholder::~Beholder() { leave_to_parent(); }
Beholder::Beholder(Beholder&& other) noexcept = default;
Beholder& Beholder::operator=(Beholder&& other) noexcept {
  if (this == &other) return *this;
  leave_to_parent();
  impl_ = std::move(other.impl_);
  return *this;
}

/// In a copy there are no threads to end, and no film is ours to finish: it is all left where it lies.
void Beholder::leave_to_parent() noexcept {
  if (impl_ && impl_->copied()) impl_.release()->disarm();
}

void Beholder::attach(const std::shared_ptr<torch::nn::Module>& module, const std::string& name) {
  if (!module) {
    log_warning("attach() was given a null module; ignored");
    return;
  }
  impl_->tensors.attach(*module, module, /*owned=*/true, name);
  impl_->list_changed();
}

void Beholder::attach(torch::nn::Module& module, const std::string& name) {
  impl_->tensors.attach(module, {}, /*owned=*/false, name);
  impl_->list_changed();
}

void Beholder::detach(const torch::nn::Module& module) {
  if (!impl_->tensors.detach(module)) return;
  impl_->disarm();
  impl_->hooks.reset();
  impl_->list_changed();
}

void Beholder::add(std::shared_ptr<Callback> callback) {
  if (!callback) return;
  Impl* impl = impl_.get();  // stays where it is when the Beholder is moved
  if (impl->copied()) {
    log_warning("a callback was not added: this Beholder is a copy that fork() made; make one in this process");
    return;
  }
  if (!impl->pipeline.running()) return;  // which was said: there will be no picture
  Run run;
  run.logdir = impl->logdir;
  run.directory = impl->directory;
  run.settings = impl->settings;
  run.state = [lifeline = impl->lifeline] {
    MutexLock lock(lifeline->mutex);
    return lifeline->state ? lifeline->state() : State{};
  };
  run.last_picture = [lifeline = impl->lifeline]() -> std::shared_ptr<const Picture> {
    MutexLock lock(lifeline->mutex);
    return lifeline->pipeline ? lifeline->pipeline->last_picture() : nullptr;
  };
  run.value_at = [lifeline = impl->lifeline](uint64_t sequence, int x, int y) -> std::optional<ShownValue> {
    MutexLock lock(lifeline->mutex);
    return lifeline->pipeline ? lifeline->pipeline->value_at(sequence, x, y) : std::nullopt;
  };
  try {
    impl->dispatcher.add(std::move(callback), std::move(run));
  } catch (const std::exception& e) {
    log_error(std::string("a callback was not added: ") + e.what());
  } catch (...) {
    log_error("a callback was not added: its name(), needs() or overflow() failed");
  }
}

void Beholder::update(const ArraysOrFunction* arrays, const FrameOrFunction* frame) noexcept {
  if (!impl_) return;
  Impl& impl = *impl_;
  if (impl.updating) return;  // called by a function that an update() calls
  if (impl.copied()) {
    impl.disarm();
    return;
  }
  const int64_t before = impl.updates.load(std::memory_order_relaxed);
  impl.updates.store(before + 1, std::memory_order_relaxed);
  if (Clock::now() >= impl.next_due || impl.settings->revision() != impl.seen_revision) {
    const auto update = [&] { impl.update(arrays, frame); };
    if (!impl.pipeline.errors().guarded("update()", update)) impl.dropped_picture(Clock::now(), kTryAgain);
  }
  const int64_t step = impl.step.load(std::memory_order_relaxed);
  impl.last_step.store(step, std::memory_order_relaxed);
  impl.step.store(step + 1, std::memory_order_relaxed);
}

bool Beholder::due() const noexcept {
  const auto now = Clock::now();
  if (!impl_ || impl_->copied() || (now < impl_->next_due && impl_->settings->revision() == impl_->seen_revision))
    return false;
  return impl_->due(now);
}

bool Beholder::tapping() const noexcept { return impl_ && impl_->armed.load(std::memory_order_relaxed); }

void Beholder::tap_now(const char* name, const at::Tensor& x) noexcept {
  const double cpu = thread_cpu_seconds();
  try {
    const std::string label(name);
    impl_->on_output(label, impl_->tap_calls[label]++, /*amended=*/false, at::GradMode::is_enabled(), /*tap=*/true, x);
  } catch (...) {  // out of memory for a name: this picture lacks the tap
  }
  impl_->tap_seconds += thread_cpu_seconds() - cpu;
}

void Beholder::set_step(int64_t step) noexcept {
  if (impl_) impl_->step.store(step, std::memory_order_relaxed);
}

SharedSettings& Beholder::settings() const { return *impl_->settings; }

const std::string& Beholder::directory() const { return impl_->directory; }

State Beholder::state() const { return impl_->state(); }

State Beholder::Impl::state() const {
  State state;
  if (copied()) return state;
  state.updates = updates.load();
  state.step = last_step.load();
  state.captured = captures.load();
  state.dropped = drops.load();
  state.in_graphs = in_graphs.load();
  state.fps_wished = settings->get().fps;
  state.fps_real = fps_real.load();
  state.overhead = overhead.load();
  state.max_overhead = options.max_overhead;
  state.update_seconds = update_seconds.load();
  pipeline.add_to(state);
  state.callbacks = dispatcher.states();
  for (const auto& callback : state.callbacks) state.host_bytes += callback.queued_bytes;
  const auto last = pipeline.last_picture();
  state.waiting_for_update = !last || needs_capture(last->settings, settings->get());
  return state;
}

}  // namespace beholder
