#include "beholder/beholder.h"

#include <torch/nn/module.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <functional>
#include <future>
#include <thread>
#include <vector>

#include "beholder/activation_session.h"
#include "beholder/activation_watch.h"
#include "beholder/asked_steps.h"
#include "beholder/capture.h"
#include "beholder/dispatcher.h"
#include "beholder/forks.h"
#include "beholder/graph_capture.h"
#include "beholder/lifeline.h"
#include "beholder/log.h"
#include "beholder/paths.h"
#include "beholder/pipeline.h"
#include "beholder/places.h"
#include "beholder/schedule.h"
#include "beholder/tensors.h"
#include "beholder/thread_safety.h"
#include "beholder/threads.h"

namespace beholder {
namespace {

using Clock = Schedule::Clock;
using Seconds = std::chrono::duration<double>;

/// Nothing came for so many updates, and for so long: the picture says that there are no activations.
constexpr int kArmedUpdates = 3;
constexpr auto kArmedLong = std::chrono::seconds(1);
/// A capture that has all it knows of stops watching, once so many have seen nothing new; but so often one goes on to
/// the update.
constexpr int64_t kCalm = 2, kLookAround = 8;
/// How often modules are compared with those that are watched, as long as nothing comes: it takes some 0.1 ms.
constexpr auto kLookAtModulesEvery = std::chrono::milliseconds(50);
/// What update(Now) waits for a plan and for a slot each, at most.
constexpr double kAtOncePatience = 1;

}  // namespace

struct Beholder::Impl {
  Impl(std::string logdir_, Options options_)
      : options(std::move(options_)),
        logdir(absolute_path(logdir_)),
        directory((std::filesystem::path(logdir) / "plugins" / "beholder").string()),
        settings(std::make_shared<SharedSettings>(options.settings)),
        dispatcher(host_shares(options).queues, budget),
        pipeline(options, settings, dispatcher, budget),
        current(options.settings),
        captured(options.settings),
        schedule(options.max_overhead, options.settings.fps > 0) {
    std::error_code error;
    std::filesystem::create_directories(directory, error);
    if (error) {
      log_warning("cannot create " + directory + ": " + error.message() +
                  "; nothing will be written there, the training goes on");
    }
    lifeline->begin(*this);
  }

  ~Impl() {
    watch->close();
    say_that_nothing_was_shown();
    pipeline.end();  // what was captured is rendered,
    dispatcher.close(
        Dispatcher::kPatience);  // and shown; callbacks may ask for state and pictures until they are closed
    lifeline->end();
  }

  State state() const;
  /// This is the child of a fork(): there is no render thread here, and locks may be held by nobody.
  bool copied() const noexcept { return fork_count() != forks; }

  // ---- the way of one picture, on the training thread --------------------------------------------------------------

  void update(const ArraysOrFunction* arrays, const FrameOrFunction* frame, bool now);
  bool due(Clock::time_point now) const;
  Schedule::Wish wish_of(const Settings& s) const { return {s.fps, s.paused && !dispatcher.needs().film}; }
  bool follow_settings(Clock::time_point now);
  bool inside_graph();
  void prepare();
  void say_that_nothing_was_shown() const;
  std::string nothing_to_show(Values values) const;

  void collect(const ArraysOrFunction* arrays, const FrameOrFunction* frame);
  void show_collected(Clock::time_point now);
  bool show_with(const std::shared_ptr<const Plan>& plan, Clock::time_point now);
  struct Gathered {
    size_t good = 0, refused = 0;
  };
  Gathered gather_matched(const Plan& plan, const SlotLease& lease);

  bool watches_others(Clock::time_point now);
  bool finish_activations(Clock::time_point now);
  void wait_for_activations(Clock::time_point now);
  void arm(Clock::time_point now, bool for_now);
  bool watches_for_now(Clock::time_point now) const;
  void say_that_now_came_too_late();
  void list_changed();

  std::shared_ptr<const Plan> fitting_plan() const;
  std::shared_ptr<const Plan> plan_within_patience(Clock::time_point now);
  void ask_for_plan(std::vector<TensorSpec> specs, bool nothing);
  void request_plan(std::vector<TensorSpec> specs, bool nothing);
  SlotLease lease_of(const std::shared_ptr<const Plan>& plan) const;
  void submit(SlotLease lease, Clock::time_point now);
  void dropped_picture(Clock::time_point now, Clock::duration retry = Schedule::kLookAgain);
  void pay(Clock::time_point started, double seconds);
  const GatherIndex& index_of(const std::shared_ptr<const Plan>& plan);

  const Options options;
  const std::string logdir, directory;
  const std::shared_ptr<SharedSettings> settings;
  const std::shared_ptr<Lifeline<Impl>> lifeline = std::make_shared<Lifeline<Impl>>();
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
  Schedule schedule;
  bool updating = false;             // a function of the user's, called by update(), may call update()
  bool at_once = false;              // update(Now)
  uint64_t list = 0;                 // how often what is attached has changed
  Refusals refusals;                 // until the list of tensors changes
  Places places;                     // of the candidates in the plan
  std::vector<c10::Device> devices;  // of the newest plan, else of the parameters
  std::shared_ptr<const Plan> indexed_plan;
  std::unique_ptr<GatherIndex> index;
  const std::shared_ptr<ActivationWatch> watch = std::make_shared<ActivationWatch>(pipeline.errors());
  bool modules_changed = true;  // since the watch was told
  int armed_updates = 0;
  int64_t sessions = 0, calm_sessions = 0;
  AskedSteps asked;
  bool armed_for_now = false;   // what comes is for an update(Now): no other shows it
  bool something_came = false;  // activations, since the list of modules changed
  std::string said_nothing;     // the message of the last picture that says so, and its settings
  uint64_t said_revision = 0;
  Clock::time_point armed_at{}, modules_looked_at{};
  double unpaid_seconds = 0;  // of waiting, and after the last bill
  bool said_no_gradients = false, said_no_activations = false, said_now_came_too_late = false;

  // Read by state().
  std::atomic<int64_t> step{0}, last_step{0}, updates{0}, captures{0}, drops{0}, in_graphs{0};
  std::atomic<double> update_seconds{0}, overhead{0}, fps_real{0};
};

bool Beholder::Impl::follow_settings(Clock::time_point now) {
  uint64_t revision;
  std::tie(current, revision) = settings->snapshot();
  if (revision != seen_revision) {
    seen_revision = revision;
    schedule.settings_changed(wish_of(current), needs_capture(captured, current));
  }
  return schedule.look(wish_of(current), now, pipeline.not_before());
}

bool Beholder::Impl::due(Clock::time_point now) const {
  if (watch->on() && !armed_for_now) return !watch->empty() || now >= armed_at + kArmedLong;
  const auto background = pipeline.not_before();
  if (settings->revision() == seen_revision) {
    return !schedule.quiet(now) && schedule.due(wish_of(current), now, background);
  }
  const Settings wished = settings->get();
  return schedule.due_with(wish_of(wished), needs_capture(captured, wished), now, background);
}

void Beholder::Impl::update(const ArraysOrFunction* arrays, const FrameOrFunction* frame, bool now_please) {
  const auto now = Clock::now();
  if (now_please) asked.asked(updates.load(std::memory_order_relaxed) - 1);
  const auto wanted = [&] { return follow_settings(now) || now_please || watches_for_now(now); };
  if (!watch->on() && !wanted()) return;
  struct Bill {  // is paid after an exception too
    Impl& impl;
    Clock::time_point started;
    double cpu = thread_cpu_seconds();
    bool settled = false;
    double taken() {
      const double now_cpu = thread_cpu_seconds();
      return now_cpu - std::exchange(cpu, now_cpu) + impl.watch->take_seconds() +
             std::exchange(impl.unpaid_seconds, 0.0);
    }
    void settle() {
      impl.pay(started, taken());
      settled = true;
    }
    ~Bill() {
      impl.candidates.clear();
      impl.kept_arrays.clear();
      impl.updating = impl.at_once = false;
      if (settled) {
        impl.unpaid_seconds = taken();  // with the next
      } else {
        settle();
      }
    }
  } bill{*this, now};
  updating = true;
  at_once = now_please;
  if (inside_graph()) {
    in_graphs.fetch_add(1, std::memory_order_relaxed);
    if (!watch->on()) schedule.look_again(now);
    return;
  }
  const BesideGraphs beside(devices);
  // Modules are often trained on another thread than the one that attaches them.
  if (watch->on() && (!watch->on_this_thread() || watches_others(now))) {
    watch->disarm();
    if (!wanted()) return;
  }
  const bool is_due = schedule.due(wish_of(current), now, pipeline.not_before());
  armed_for_now = armed_for_now && !is_due;
  if (watch->on() && (settings->revision() == seen_revision || !needs_capture(current, settings->get()))) {
    if (settings->revision() != seen_revision) {  // also where every step is watched
      follow_settings(now);
      schedule.look_at_each();
    }
    const int64_t before = captures.load(std::memory_order_relaxed);
    const bool next = finish_activations(now);
    if (at_once && captures.load(std::memory_order_relaxed) == before) say_that_now_came_too_late();
    if (!next && (!at_once || watch->on())) return;
    bill.settle();
    // Steps may be slower than the pictures wished: the next one shall not wait for another update() to be armed by.
    const bool due_next =
        schedule.forced() || schedule.due_by_next_update(wish_of(current), now, pipeline.not_before());
    if (due_next || at_once || watches_for_now(now)) arm(now, /*for_now=*/!due_next);
    return;
  }
  if (watch->on()) {  // of other settings
    watch->disarm();
    if (!wanted()) return;
  }
  if (tensors.refresh(now)) list_changed();
  if (current.values == Values::Activations) {
    if (at_once) say_that_now_came_too_late();
    arm(now, /*for_now=*/!is_due);
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

/// As soon as something is attached, so that the first update() finds what it needs.
void Beholder::Impl::prepare() {
  if (copied() || updating || !pipeline.running() || tensors.empty()) return;
  const auto now = Clock::now();
  follow_settings(now);
  if (!schedule.due(wish_of(current), now, pipeline.not_before())) return;
  if (current.values == Values::Activations) {
    if (!inside_graph()) arm(now, /*for_now=*/false);
  } else if (current.values == Values::Parameters || current.values == Values::Buffers) {
    collect(nullptr, nullptr);
    const bool nothing = candidates.empty();
    // Also where one is being made: that is of what was attached before.
    request_plan(places.merged(nullptr, candidates, current, nothing), nothing);
    candidates.clear();
  }
}

/// Why there is no tensor of these values.
std::string Beholder::Impl::nothing_to_show(Values values) const {
  const bool attached = !tensors.empty();
  switch (values) {
    case Values::Parameters:
      return attached ? "the attached modules own no parameters" : "nothing attached: call attach(model)";
    case Values::Gradients:
      return attached ? "no gradients yet: call update() after backward() and before zero_grad()"
                      : "nothing attached: call attach(model)";
    case Values::Activations:
      return attached ? "no activations seen: run forward between two calls of update(), on the same thread or with "
                        "OnThisThread"
                      : "nothing attached: call attach(model), or tap(name, tensor)";
    case Values::Buffers:
      return attached ? "the attached modules own no buffers" : "nothing attached: call attach(model)";
    case Values::Optimizer:
      return tensors.has_optimizers() ? "no optimizer state yet: most have one from their first step() on, SGD only "
                                        "with momentum"
                                      : "no optimizer attached: call attach(optimizer)";
    case Values::Arrays: return "no arrays passed: call update(arrays)";
    case Values::Frame: return "no frame passed: call update(frame)";
  }
  return "nothing to show";
}

void Beholder::Impl::say_that_nothing_was_shown() const {
  const int64_t calls = updates.load();
  if (calls == 0 || captures.load() > 0 || copied() || !pipeline.running() || settings->get().fps <= 0) return;
  log_warning("nothing was shown in " + std::to_string(calls) + (calls == 1 ? " update()" : " update()s") + ": " +
              (settings->get().values == Values::Activations
                   ? nothing_to_show(Values::Activations)
                   : std::string("the training ended before a picture was ready; update(beholder::Now) waits for it")));
}

// ---- parameters, gradients, arrays, the frame

void Beholder::Impl::collect(const ArraysOrFunction* arrays, const FrameOrFunction* frame) {
  candidates.clear();
  switch (current.values) {
    case Values::Parameters: tensors.parameters(/*gradients=*/false, candidates); break;
    case Values::Gradients: tensors.parameters(/*gradients=*/true, candidates); break;
    case Values::Buffers: tensors.buffers(candidates); break;
    case Values::Optimizer: tensors.optimizer_states(candidates); break;
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
  forget_old(refusals);
  for (auto& candidate : candidates) candidate.refusal = find_refusal(refusals, *candidate.name, candidate.tensor);
}

/// The newest plan where it is one for these settings.
std::shared_ptr<const Plan> Beholder::Impl::fitting_plan() const {
  auto plan = pipeline.plan();
  if (!plan || plan->settings.values != current.values || needs_capture(plan->settings, current)) return nullptr;
  // What came of modules that are gone would keep its place in it. (Parameters are compared with their list.)
  if (current.values == Values::Activations && plan->list != list) return nullptr;
  return plan;
}

/// The same; where one is being made, it is waited for as long as the budget allows.
std::shared_ptr<const Plan> Beholder::Impl::plan_within_patience(Clock::time_point now) {
  const double patience = at_once ? kAtOncePatience : schedule.patience(now);
  if (patience > 0 && pipeline.planning()) {
    const auto begun = Clock::now();
    pipeline.wait_for_plan(begun + std::chrono::duration_cast<Clock::duration>(Seconds(patience)));
    unpaid_seconds += Seconds(Clock::now() - begun).count();
  }
  return fitting_plan();
}

const GatherIndex& Beholder::Impl::index_of(const std::shared_ptr<const Plan>& plan) {
  if (indexed_plan != plan) {
    index = std::make_unique<GatherIndex>(*plan);
    indexed_plan = plan;
    places.follow(*plan);
  }
  return *index;
}

/// A free slot; for update(Now) it is waited for.
SlotLease Beholder::Impl::lease_of(const std::shared_ptr<const Plan>& plan) const {
  SlotLease lease(plan);
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(Seconds(kAtOncePatience));
  while (!lease && at_once && Clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    lease = SlotLease(plan);
  }
  return lease;
}

void Beholder::Impl::show_collected(Clock::time_point now) {
  const bool any = std::any_of(candidates.begin(), candidates.end(), [](const auto& c) { return c.tensor.defined(); });
  if (!any && current.values == Values::Gradients && !tensors.empty() && !std::exchange(said_no_gradients, true)) {
    log_warning("gradients are shown, but none is defined: call update() after backward() and before zero_grad()");
  }
  const bool nothing = candidates.empty() || (!any && current.values == Values::Gradients);
  // With the plan that is there; else with one that comes soon.
  bool asked = false, tried = false;
  for (auto plan = fitting_plan();; plan = plan_within_patience(now)) {
    const bool usable =
        plan && places.find(*plan, index_of(plan), candidates, current, nothing, nothing_to_show(current.values));
    if (usable && show_with(plan, now)) return;
    // Once more where only now it is known that nothing can be read.
    if (asked && (tried || !usable)) break;
    asked = true;
    tried = usable;
    // Arrays that were passed, but cannot be shown, are named by the plan.
    ask_for_plan(places.merged(plan.get(), candidates, current, nothing), nothing);
  }
  if (!at_once) schedule.look_again(now);  // another step is not what was asked for
}

/// False where nothing could be read: a plan that knows it says so.
bool Beholder::Impl::show_with(const std::shared_ptr<const Plan>& plan, Clock::time_point now) {
  SlotLease lease = lease_of(plan);
  if (!lease) {
    dropped_picture(now);
    return true;
  }
  const Gathered gathered = gather_matched(*plan, lease);
  if (gathered.refused > 0 && gathered.good == 0) return false;
  // What has no place in it gets one for the next picture, and what cannot be read is named by it.
  if (places.misfits() || gathered.refused > 0)
    ask_for_plan(places.merged(plan.get(), candidates, current, /*nothing=*/false), /*nothing=*/false);
  if (known_by_name(current.values)) places.captured(candidates);
  submit(std::move(lease), now);
  return true;
}

/// A tensor that cannot be read is refused, and the others are gathered without it.
Beholder::Impl::Gathered Beholder::Impl::gather_matched(const Plan& plan, const SlotLease& lease) {
  Gathered gathered;
  std::string first_refused;
  for (size_t i = 0; i < candidates.size(); ++i) {
    constexpr size_t kAhead = 4;
    if (i + kAhead < candidates.size() && places.at(i + kAhead).fit == Fit::Whole)
      prefetch_values(*index, places.at(i + kAhead).tensor, candidates[i + kAhead].tensor);
    const Places::Place& place = places.at(i);
    if (!is_gathered(place.fit)) continue;
    if (!index->direct[place.tensor].possible && !plan.tensors[place.tensor].refusal.empty()) continue;
    const std::string& name = *candidates[i].name;
    try {
      gather(plan, *index, *lease, place.tensor, candidates[i].tensor, place.fit);
    } catch (const std::exception& e) {
      candidates[i].refusal = &refuse(refusals, name, candidates[i].tensor, unreadable(e));
      constexpr size_t kNamed = 20;  // names may be others at each update
      if (gathered.refused++ == 0)
        first_refused = (refusals.size() <= kNamed ? name : "another tensor") + ' ' + *candidates[i].refusal;
      continue;
    }
    if (place.renamed) (*lease).present[place.tensor].name = name;
    ++gathered.good;
  }
  record_filled(*lease);  // also of what was begun and failed
  if (gathered.refused > 0) {
    const size_t more = gathered.refused - 1;
    pipeline.errors().report("update()", first_refused + (more > 0 ? " (and " + std::to_string(more) + " more)" : ""),
                             "it is left out, the training goes on");
  }
  return gathered;
}

void Beholder::Impl::ask_for_plan(std::vector<TensorSpec> specs, bool nothing) {
  if (!pipeline.planning()) request_plan(std::move(specs), nothing);
}

void Beholder::Impl::request_plan(std::vector<TensorSpec> specs, bool nothing) {
  PlanRequest request;
  request.settings = current;
  request.revision = seen_revision;
  request.list = list;
  request.tensors = std::move(specs);
  if (nothing) request.nothing = nothing_to_show(current.values);
  pipeline.request_plan(std::move(request));
}

// ---- activations

/// Whether to watch the forward that comes, for an update(Now) that may come after it.
bool Beholder::Impl::watches_for_now(Clock::time_point now) const {
  const int64_t next = updates.load(std::memory_order_relaxed);
  if (!asked.likely(next) || current.values != Values::Activations) return false;
  return asked.expected(next) || schedule.spare(wish_of(current), now, pipeline.not_before());
}

void Beholder::Impl::say_that_now_came_too_late() {
  if (std::exchange(said_now_came_too_late, true)) return;
  log_warning(
      "update(Now) shows no activations of this step: its forward was not watched. From now on those are that run "
      "between two update(Now), or before one that comes after as many updates as the last did; others as far as "
      "max_overhead allows");
}

/// `for_now`: no picture is due.
void Beholder::Impl::arm(Clock::time_point now, bool for_now) {
  if (std::exchange(modules_changed, false)) watch->set_modules(tensors.modules());
  SlotLease lease;
  auto plan = at_once ? plan_within_patience(now) : fitting_plan();
  if (plan && !plan->tensors.empty()) {
    lease = lease_of(plan);
    if (!lease) {
      if (!for_now) dropped_picture(Clock::now());
      return;
    }
  }
  armed_for_now = for_now;
  const GatherIndex* const gathers = lease ? &index_of(plan) : nullptr;
  armed_updates = 0;
  armed_at = modules_looked_at = now;
  ++sessions;
  const bool until_complete = calm_sessions >= kCalm && sessions % kLookAround != 0;
  watch->arm(std::make_unique<ActivationSession>(std::move(lease), gathers, refusals), devices,
             {schedule.watching_limit(), schedule.forward_limit(), until_complete});
  schedule.look_at_each();
}

/// The list of tensors is another one than before.
void Beholder::Impl::list_changed() {
  ++list;
  modules_changed = true;
  something_came = false;
  calm_sessions = 0;
  places.list_changed();
  refusals.clear();
}

/// Nothing has come, and what is watched is not what the modules are now: a layer was replaced, or all were moved.
bool Beholder::Impl::watches_others(Clock::time_point now) {
  if (!watch->empty() || (armed_updates > 0 && now < modules_looked_at + kLookAtModulesEvery)) return false;
  modules_looked_at = now;
  return watch->moved();
}

/// An update() while hooks are armed, or were until all had come. True where the next forward may be armed.
bool Beholder::Impl::finish_activations(Clock::time_point now) {
  if (watch->empty()) {
    wait_for_activations(now);
    return false;
  }
  // A forward on another thread that has begun is awaited.
  if (watch->busy() && watch->armed() && !at_once && now < armed_at + kArmedLong) return false;
  const auto capture = watch->finish();
  if (!capture.session) return false;
  something_came = true;
  schedule.watched(capture.seconds_before, std::max(capture.seconds_of_forward, 1e-6), capture.given_up);
  const auto& done = capture.session;
  const bool captured_some = done->captured();
  calm_sessions = done->plan() && !done->needs_place() ? calm_sessions + 1 : 0;
  if (!done->plan() || done->needs_place()) {
    ask_for_plan(places.merged(done->plan().get(), done->specs()),
                 /*nothing=*/false);
  }
  if (captured_some) places.captured(*done);
  if (armed_for_now && !at_once) return true;  // nobody has asked for it
  if (captured_some) {
    submit(std::move(done->lease()), now);
  } else {
    if (!armed_for_now) schedule.look_again(now);
    if (!plan_within_patience(now)) {
      drops.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
  }
  return true;
}

/// Nothing came since arming: forward may run less often than update(). They stay armed until it does, or until that
/// has cost more than it may.
void Beholder::Impl::wait_for_activations(Clock::time_point now) {
  ++armed_updates;
  if (tensors.refresh(now)) {
    watch->disarm();
    list_changed();
    if (!armed_for_now) schedule.look_again(now);
    return;
  }
  if (!watch->watching()) {
    schedule.watched(watch->seconds_since_arming(), 0, /*given_up=*/true);
    watch->disarm();
    if (!armed_for_now) schedule.look_again(now);
  }
  if (armed_for_now && !at_once) return;
  if (something_came || armed_updates < kArmedUpdates || now < armed_at + kArmedLong) return;
  const std::string message = nothing_to_show(Values::Activations);
  if (!std::exchange(said_no_activations, true)) log_warning(message);
  if (said_nothing == message && said_revision == seen_revision) return;
  const auto plan = fitting_plan();
  if (!plan || !plan->tensors.empty() || plan->views.front().message != message) {
    ask_for_plan({}, /*nothing=*/true);
    return;
  }
  SlotLease lease(plan);
  if (!lease) return;
  said_nothing = message;
  said_revision = seen_revision;
  submit(std::move(lease), now);
  if (watch->on()) schedule.look_at_each();
}

// ---- what comes of it

void Beholder::Impl::submit(SlotLease lease, Clock::time_point now) {
  finish(*lease);
  pipeline.submit(std::move(lease), {step.load(std::memory_order_relaxed), std::chrono::system_clock::now()});
  captures.fetch_add(1, std::memory_order_relaxed);
  captured = current;
  schedule.captured(wish_of(current), now);
  fps_real.store(schedule.fps(), std::memory_order_relaxed);
}

void Beholder::Impl::dropped_picture(Clock::time_point now, Clock::duration retry) {
  drops.fetch_add(1, std::memory_order_relaxed);
  schedule.dropped(wish_of(current), now, retry);
}

/// What a due update() takes of the training thread. CPU time, not wall time: what other threads take from this one is
/// not ours. (But for what it waits.)
void Beholder::Impl::pay(Clock::time_point started, double seconds) {
  schedule.pay(started, seconds, watch->on());
  update_seconds.store(schedule.usual_cost(), std::memory_order_relaxed);
  overhead.store(schedule.overhead(), std::memory_order_relaxed);
}

Beholder::Beholder(std::string logdir, Options options) {
  check(options);
  check_host_bytes(options);
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
  if (impl_ && impl_->copied()) impl_.release()->watch->abandon();
}

void Beholder::attach(const std::shared_ptr<torch::nn::Module>& module, const std::string& name) {
  if (!module) {
    log_warning("attach() was given a null module; ignored");
    return;
  }
  impl_->watch->disarm();
  impl_->tensors.attach(*module, module, /*owned=*/true, name);
  impl_->list_changed();
  impl_->pipeline.errors().guarded("attach()", [&] { impl_->prepare(); });
}

void Beholder::attach(torch::nn::Module& module, const std::string& name) {
  impl_->watch->disarm();
  impl_->tensors.attach(module, {}, /*owned=*/false, name);
  impl_->list_changed();
  impl_->pipeline.errors().guarded("attach()", [&] { impl_->prepare(); });
}

void Beholder::detach(const torch::nn::Module& module) {
  if (!impl_->tensors.detach(module)) return;
  impl_->watch->forget_modules();
  impl_->list_changed();
}

void Beholder::attach(const torch::optim::Optimizer& optimizer, const std::string& name) {
  impl_->tensors.attach(optimizer, {}, /*owned=*/false, name);
}

void Beholder::attach(const std::shared_ptr<torch::optim::Optimizer>& optimizer, const std::string& name) {
  if (!optimizer) {
    log_warning("attach() was given a null optimizer; ignored");
    return;
  }
  impl_->tensors.attach(*optimizer, optimizer, /*owned=*/true, name);
}

void Beholder::detach(const torch::optim::Optimizer& optimizer) { impl_->tensors.detach(optimizer); }

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
  run.max_host_bytes = impl->options.max_host_bytes;
  run.state = [lifeline = impl->lifeline] {
    return lifeline->with(State{}, [](const Impl& host) { return host.state(); });
  };
  run.last_picture = [lifeline = impl->lifeline] {
    return lifeline->with(std::shared_ptr<const Picture>(),
                          [](const Impl& host) { return host.pipeline.last_picture(); });
  };
  run.value_at = [lifeline = impl->lifeline](uint64_t sequence, int x, int y) -> std::optional<ShownValue> {
    std::future<std::optional<ShownValue>> none;
    auto asked = lifeline->with(std::move(none), [&](Impl& host) { return host.pipeline.ask_value(sequence, x, y); });
    return asked.valid() ? Pipeline::answer_of(std::move(asked)) : std::nullopt;
  };
  run.bill = [budget = impl->budget](double cpu_seconds) { budget->bill(cpu_seconds, BackgroundBudget::Clock::now()); };
  try {
    impl->dispatcher.add(std::move(callback), std::move(run));
  } catch (const std::exception& e) {
    log_error(std::string("a callback was not added: ") + e.what());
  } catch (...) {
    log_error("a callback was not added: its name(), needs() or overflow() failed");
  }
}

void Beholder::update(const ArraysOrFunction* arrays, const FrameOrFunction* frame, bool now_please) noexcept {
  if (!impl_) return;
  Impl& impl = *impl_;
  if (impl.updating) return;  // called by a function that an update() calls
  if (impl.copied()) {
    impl.watch->abandon();
    return;
  }
  const int64_t before = impl.updates.load(std::memory_order_relaxed);
  impl.updates.store(before + 1, std::memory_order_relaxed);
  const auto now = Clock::now();
  impl.schedule.update_begins(now);
  if (now_please || !impl.schedule.quiet(now) || impl.settings->revision() != impl.seen_revision ||
      impl.watches_for_now(now)) {
    const auto update = [&] { impl.update(arrays, frame, now_please); };
    if (!impl.pipeline.errors().guarded("update()", update)) {
      impl.dropped_picture(Clock::now(), Schedule::kTryAgain);
    }
  }
  const int64_t step = impl.step.load(std::memory_order_relaxed);
  impl.last_step.store(step, std::memory_order_relaxed);
  impl.step.store(step + 1, std::memory_order_relaxed);
}

bool Beholder::due() const noexcept { return impl_ && !impl_->copied() && impl_->due(Clock::now()); }

bool Beholder::tapping() const noexcept { return impl_ && impl_->watch->armed(); }

void Beholder::tap_now(const char* name, const at::Tensor& x) noexcept { impl_->watch->tap(name, x); }

OnThisThread::OnThisThread(const Beholder& beholder) noexcept {
  if (!beholder.tapping()) return;
  watch_ = beholder.impl_->watch;
  watcher_ = watch_->enter(nullptr, "");
}

OnThisThread::OnThisThread(const Beholder& beholder, const torch::nn::Module& replica,
                           const std::string& name) noexcept {
  if (!beholder.tapping()) return;
  watch_ = beholder.impl_->watch;
  watcher_ = watch_->enter(&replica, name);
}

OnThisThread::~OnThisThread() {
  if (watcher_) watch_->leave(*watcher_);
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
  state.in_graphs = in_graphs.load() + watch->in_graphs();
  state.fps_wished = settings->get().fps;
  state.fps_real = fps_real.load();
  state.overhead = overhead.load();
  state.max_overhead = options.max_overhead;
  state.update_seconds = update_seconds.load();
  pipeline.add_to(state);
  state.callbacks = dispatcher.states();
  const auto last = pipeline.last_picture();
  state.waiting_for_update = !last || needs_capture(last->settings, settings->get());
  return state;
}

}  // namespace beholder
