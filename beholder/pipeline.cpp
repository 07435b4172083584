#include "beholder/pipeline.h"

#include <algorithm>
#include <exception>
#include <string>
#include <system_error>
#include <utility>

#include "beholder/capture.h"
#include "beholder/log.h"
#include "beholder/threads.h"

namespace beholder {
namespace {

using Clock = Pipeline::Clock;

/// Colours, scale or the info text differ: the values shown are the same.
bool looks_differ(const Settings& a, const Settings& b) {
  return a.scaling != b.scaling || a.colormap != b.colormap || a.info != b.info;
}

/// What is enqueued on the current streams from now on comes after the slot was filled.
void wait_for_filling(Slot& slot, const std::vector<c10::Device>& devices) {
  for (auto& event : slot.filled) {
    for (const auto& device : devices) event.block_current_stream(device);
  }
}

/// A filled slot on the render thread: given back when this ends, however it ends. The training thread may fill it as
/// soon as what was enqueued until then on the current streams is done.
class Draining {
 public:
  explicit Draining(SlotLease slot) : slot_(std::move(slot)) { wait_for_filling(*slot_, slot_.plan()->devices); }
  ~Draining() {
    try {
      for (auto& event : slot_->drained) event.record();
    } catch (...) {  // a lost device: rendering has reported it
    }
  }
  Draining(const Draining&) = delete;
  Draining& operator=(const Draining&) = delete;

  Slot& slot() const { return *slot_; }

 private:
  SlotLease slot_;
};

}  // namespace

Pipeline::Pipeline(Options options, std::shared_ptr<SharedSettings> settings, Dispatcher& dispatcher,
                   std::shared_ptr<BackgroundBudget> budget)
    : options_(std::move(options)),
      settings_(std::move(settings)),
      dispatcher_(dispatcher),
      budget_(std::move(budget)) {
  main_ = std::make_unique<ViewRenderer>(pool_);
  followed_ = settings_->get();
  listener_ = settings_->add_listener([this] {
    {
      MutexLock lock(mutex_);
      settings_changed_ = true;
    }
    changed_.notify_all();
  });
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& e) {
    settings_->remove_listener(listener_);
    stop_ = true;
    errors_.report("starting the render thread", e.what(), "nothing is shown, the training goes on");
  }
}

Pipeline::~Pipeline() { end(); }

void Pipeline::end() {
  if (!thread_.joinable()) return;
  settings_->remove_listener(listener_);
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::shared_ptr<const Plan> Pipeline::plan() const {
  MutexLock lock(mutex_);
  return plan_;
}

bool Pipeline::planning() const {
  MutexLock lock(mutex_);
  return planning_;
}

void Pipeline::request_plan(PlanRequest request) {
  {
    MutexLock lock(mutex_);
    request_ = std::move(request);
    planning_ = true;
  }
  changed_.notify_all();
}

void Pipeline::wait_for_plan(Clock::time_point until) {
  MutexLock lock(mutex_);
  const auto left = until - Clock::now();
  planned_.wait_for(lock, std::chrono::duration_cast<std::chrono::microseconds>(left),
                    [&]() BEHOLDER_REQUIRES(mutex_) { return !planning_ || stop_; });
}

void Pipeline::submit(SlotLease slot, const Capture& capture) {
  {
    MutexLock lock(mutex_);
    queue_.push_back({std::move(slot), capture});
  }
  changed_.notify_all();
}

void Pipeline::run() {
  begin_own_thread("bh render");
  errors_.guarded("starting the render thread", [] { use_one_cpu_thread(); });
  for (;;) {
    std::optional<PlanRequest> request;
    std::optional<Item> item;
    std::vector<std::function<void()>> questions;  // empty, it needs no memory, which there may be none of
    bool settings_changed;
    {
      MutexLock lock(mutex_);
      changed_.wait(lock, [&]() BEHOLDER_REQUIRES(mutex_) {
        return stop_ || request_ || !queue_.empty() || !questions_.empty() || settings_changed_;
      });
      settings_changed = std::exchange(settings_changed_, false);
      questions.swap(questions_);
      if (!queue_.empty()) {
        item = std::move(queue_.front());
        queue_.pop_front();
      } else if (request_) {
        request = std::exchange(request_, std::nullopt);
      } else if (stop_) {
        break;
      }
    }
    const auto started = Clock::now();
    for (const auto& question : questions) errors_.guarded("answering a viewer", question);
    if (settings_changed) errors_.guarded("changing the settings", [&] { follow_settings(); });
    if (request) {
      errors_.guarded("planning the picture", [&] { make_plan_now(*request); });
      // The first plan of a picture is paid for with the picture; one after the other (shapes that change at each
      // update, plans that fail) are paid for like pictures.
      if (std::exchange(plan_unused_, true)) account_cpu(started);
      {
        MutexLock lock(mutex_);
        planning_ = request_.has_value();
      }
      planned_.notify_all();
    }
    if (item) {
      errors_.guarded("rendering", [&] { render(*item); });
      plan_unused_ = false;
      item.reset();
      account_cpu(started);
    }
    retired_.erase(std::remove_if(retired_.begin(), retired_.end(),
                                  [](const auto& plan) {
                                    const BesideGraphs beside(plan->devices);
                                    return plan.use_count() == 1 && plan->quiet();
                                  }),
                   retired_.end());
  }
  errors_.guarded("ending the render thread", [&] { free_device_memory(); });
}

/// Here, where what the devices still do with it is known, and may be waited for.
void Pipeline::free_device_memory() {
  main_.reset();
  live_.reset();
  {
    MutexLock lock(mutex_);
    if (plan_) retired_.push_back(std::exchange(plan_, nullptr));
    not_shown_ = nullptr;
  }
  for (auto& plan : std::exchange(retired_, {})) {
    SideStreams side(plan->devices);
    for (auto& slot : plan->slots) wait_for_filling(*slot, plan->devices);
    side.synchronize();
  }
}

void Pipeline::make_plan_now(const PlanRequest& request) {
  auto plan = make_plan(request, options_);
  last_request_ = request;
  log_not_shown(*plan);
  auto not_shown = std::make_shared<const decltype(State::not_shown)>(plan->not_shown);
  std::shared_ptr<const Plan> old;
  {
    MutexLock lock(mutex_);
    old = std::exchange(plan_, std::move(plan));
    not_shown_.swap(not_shown);  // the old ones are let go after the lock
  }
  if (old) retired_.push_back(std::move(old));
}

/// Where names or shapes are others at each update, so is what is not shown: a few lines tell of its kind.
void Pipeline::log_not_shown(const Plan& plan) {
  constexpr int kMostLines = 20, kMostOfAKind = 3;
  constexpr size_t kMostKnown = 10000;
  if (said_no_more_lines_ && lines_of_not_shown_ >= kMostLines) return;
  std::string text;
  int named = 0, more = 0;
  std::set<std::string> kinds;
  bool held_back = false;
  for (const auto& [name, reason] : plan.not_shown) {
    // Gradients that do not exist are ordinary (frozen parameters); Beholder::update() gives the hint about them.
    if (plan.settings.values == Values::Gradients && reason == "undefined") continue;
    const std::string known = name + '\n' + reason, kind = without_numbers(reason);
    if (logged_not_shown_.count(known)) continue;
    const auto lines = lines_about_.find(kind);
    if (lines_of_not_shown_ >= kMostLines || (lines != lines_about_.end() && lines->second >= kMostOfAKind) ||
        logged_not_shown_.size() >= kMostKnown) {
      held_back = true;
      continue;
    }
    logged_not_shown_.insert(known);
    kinds.insert(kind);
    if (++named <= 5) {
      text += (text.empty() ? "" : ", ") + name + " (" + reason + ")";
    } else {
      ++more;
    }
  }
  if (more > 0) text += " and " + std::to_string(more) + " more";
  if (!text.empty()) {
    log_warning("not shown: " + text);
    ++lines_of_not_shown_;
    for (const auto& kind : kinds) ++lines_about_[kind];
  }
  if (held_back && !std::exchange(said_no_more_lines_, true)) {
    log_warning("not shown: others as well, which are not told here any more: see state().not_shown, or the live page");
  }
}

void Pipeline::follow_settings() {
  const auto [now, revision] = settings_->snapshot();
  const Settings before = std::exchange(followed_, now);
  if (now.paused && !live_ && main_->view()) {
    SideStreams side(main_->plan()->devices);
    live_ = main_->frozen_copy();
  }
  if (needs_capture(before, now) && last_request_ && last_request_->settings.values == now.values) {
    // The next update() finds the plan ready.
    PlanRequest request = *last_request_;
    request.settings = now;
    request.revision = revision;
    make_plan_now(request);
    return;
  }
  if (!looks_differ(before, now)) return;
  ViewRenderer& shown = live_ ? *live_ : *main_;
  if (!shown.plan() || !room_for(*shown.plan())) return;
  std::shared_ptr<Picture> picture;
  {
    SideStreams side(shown.plan()->devices);
    if (!shown.render_again(now, dispatcher_.needs().statistics)) return;
    side.synchronize();
    picture = shown.finish();
  }
  picture->recoloured = true;
  picture->live = true;
  picture->film = false;
  publish(std::move(picture), now, revision);
}

/// Whether the pictures of `plan` can be made within max_host_bytes. Where not, callbacks hold too many.
bool Pipeline::room_for(const Plan& plan) {
  int64_t bytes = 0, pixels = 0;
  for (const auto& view : plan.views) {
    bytes += HostBytesPerPixel::kPicture * view.pixels();
    pixels = std::max(pixels, view.pixels());
  }
  bytes += HostBytesPerPixel::kCopies * pixels;  // that callbacks make of them
  // What a callback needs that is more than half of all it has to do without (Run::max_host_bytes).
  bytes += std::min(dispatcher_.needs().host_bytes_per_pixel * pixels, options_.max_host_bytes / 2) + plan.host_bytes;
  if (pool_->bytes() + bytes > options_.max_host_bytes) pool_->drop_spares();
  // Where there is hardly one, waiting makes no room.
  constexpr int kFew = 2;
  const bool room = pool_->alive() <= kFew || pool_->bytes() + bytes <= options_.max_host_bytes;
  if (!room && !std::exchange(said_no_room_, true)) {
    log_warning("callbacks hold so many pictures that there is no room for more within " +
                std::to_string(options_.max_host_bytes >> 20) +
                " MiB (Options::max_host_bytes): pictures are left out until they let some go, the training goes on");
  }
  MutexLock lock(mutex_);
  if (room) {
    shown_pixels_ = pixels;
  } else {
    ++no_room_;
  }
  return room;
}

void Pipeline::render(Item& item) {
  const std::shared_ptr<const Plan> shared = item.slot.plan();
  const Plan& plan = *shared;
  if (!room_for(plan)) {
    const Draining drained(std::move(item.slot));
    return;
  }
  const auto [now, revision] = settings_->snapshot();
  const bool statistics = dispatcher_.needs().statistics;
  struct Begun {
    ViewRenderer* renderer;
    bool live, film, freeze;
  };
  std::vector<Begun> begun;
  {
    SideStreams side(plan.devices);
    std::optional<Draining> draining(std::in_place, std::move(item.slot));
    const Slot& slot = draining->slot();
    for (size_t v = 0; v < plan.views.size(); ++v) {
      const ViewPlan& view = plan.views[v];
      // While paused the live view holds its picture, unless the viewer has asked for other values since.
      const bool held = now.paused && live_ && !needs_capture(live_->settings(), view.settings);
      if (view.film) {
        main_->render(shared, v, slot, item.capture, now, statistics);
        begun.push_back({main_.get(), view.live && !held, true, view.live && now.paused && !held});
        if (view.live && !now.paused) live_.reset();
      } else if (!held) {
        if (!live_) live_ = std::make_unique<ViewRenderer>(pool_);
        live_->render(shared, v, slot, item.capture, now, statistics);
        begun.push_back({live_.get(), true, false, false});
      }
    }
    draining.reset();  // before the wait: the slot is not ours any more
    for (const auto& one : begun) {
      if (one.freeze) live_ = one.renderer->frozen_copy();
    }
    side.synchronize();
  }
  for (const auto& one : begun) {
    auto picture = one.renderer->finish();
    picture->live = one.live;
    picture->film = one.film;
    publish(std::move(picture), now, revision);
  }
}

void Pipeline::publish(std::shared_ptr<Picture> picture, const Settings& settings, uint64_t revision) {
  picture->sequence = ++sequence_;
  // Values of an older wish are those of the plan's revision.
  const bool as_wished = !needs_capture(picture->live ? picture->settings : picture->settings.film(),
                                        picture->live ? settings : settings.film());
  uint64_t& shown = picture->live ? live_revision_ : film_revision_;
  if (as_wished) shown = revision;
  picture->revision = shown;
  std::shared_ptr<const Picture> before;  // let go after the lock: freeing 19 MB takes time
  {
    MutexLock lock(mutex_);
    ++rendered_;
    if (picture->live) {
      before = std::exchange(last_, picture);
      live_sequence_ = picture->sequence;
    }
  }
  dispatcher_.dispatch(picture);
}

std::future<std::optional<ShownValue>> Pipeline::ask_value(uint64_t sequence, int x, int y) {
  // The question's own: where it is let go unanswered, who waits hears of it at once.
  const auto answer = std::make_shared<std::promise<std::optional<ShownValue>>>();
  auto asked = answer->get_future();
  {
    MutexLock lock(mutex_);
    constexpr size_t kMostQuestions = 64;
    if (stop_ || questions_.size() >= kMostQuestions) return asked;
    questions_.push_back([this, answer, sequence, x, y] {
      std::optional<ShownValue> value;
      try {
        const ViewRenderer& shown = live_ ? *live_ : *main_;
        if (sequence == live_sequence_ && shown.plan()) {
          SideStreams side(shown.plan()->devices);
          value = shown.value_at(x, y);
        }
      } catch (...) {
        answer->set_value(std::nullopt);
        throw;
      }
      answer->set_value(value);
    });
  }
  changed_.notify_all();
  return asked;
}

std::optional<ShownValue> Pipeline::answer_of(std::future<std::optional<ShownValue>> asked) {
  if (asked.wait_for(std::chrono::milliseconds(250)) != std::future_status::ready) return std::nullopt;
  try {
    return asked.get();
  } catch (const std::future_error&) {  // nobody answers: too many questions, or the end
    return std::nullopt;
  }
}

void Pipeline::account_cpu(Clock::time_point started) {
  const double cpu = thread_cpu_seconds();
  budget_->look_at_process(process_cpu_seconds(), Clock::now());
  budget_->bill(cpu - std::exchange(cpu_before_, cpu), started);
  const double all = budget_->spent();  // with the callbacks' threads
  const double spent = all - std::exchange(all_before_, all);
  if (accounted_ != Clock::time_point{}) {
    const double share = cpu_rate_.add(spent_before_, std::chrono::duration<double>(started - accounted_).count());
    MutexLock lock(mutex_);
    background_ = share;
  }
  accounted_ = started;
  spent_before_ = spent;
}

void Pipeline::add_to(State& state) const {
  const int64_t per_pixel = dispatcher_.needs().host_bytes_per_pixel;
  state.errors += errors_.count();
  if (std::string last = errors_.last(); !last.empty()) state.last_error = std::move(last);
  std::shared_ptr<const decltype(State::not_shown)> not_shown;  // copied without the lock, which update() takes
  {
    MutexLock lock(mutex_);
    state.rendered = rendered_;
    state.dropped += no_room_;
    state.background = background_;
    state.max_background = options_.max_background;
    state.max_device_bytes = options_.max_device_bytes;
    state.max_host_bytes = options_.max_host_bytes;
    state.host_bytes = pool_->bytes() + per_pixel * shown_pixels_;
    if (plan_) {
      state.device_bytes = plan_->device_bytes;
      state.host_bytes += plan_->host_bytes;
    }
    not_shown = not_shown_;
  }
  if (not_shown) state.not_shown = *not_shown;
}

std::shared_ptr<const Picture> Pipeline::last_picture() const {
  MutexLock lock(mutex_);
  return last_;
}

}  // namespace beholder
