// The render thread: makes plans, waits for filled slots, renders, and hands pictures to the dispatcher. One of each
// Beholder.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "beholder/background_budget.h"
#include "beholder/capture.h"
#include "beholder/dispatcher.h"
#include "beholder/error_log.h"
#include "beholder/moving_rate.h"
#include "beholder/options.h"
#include "beholder/plan.h"
#include "beholder/renderer.h"
#include "beholder/settings.h"
#include "beholder/state.h"
#include "beholder/thread_safety.h"

namespace beholder {

/// # Multithreading
/// plan(), request_plan(), submit() and not_before() are for the training thread: they take a lock that is never held
/// over work. state() may be called from any thread.
///
/// # Shutdown
/// end() and the destructor render what was submitted, then end the thread.
class Pipeline {
 public:
  using Clock = std::chrono::steady_clock;

  Pipeline(Options options, std::shared_ptr<SharedSettings> settings, Dispatcher& dispatcher,
           std::shared_ptr<BackgroundBudget> budget);
  ~Pipeline();
  /// For the destructor of the owner; what only reads may be called afterwards. Does nothing the second time.
  void end();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  /// The newest plan; nullptr before the first.
  std::shared_ptr<const Plan> plan() const;
  /// Asks for a plan; a later request replaces one that was not begun.
  void request_plan(PlanRequest request);
  /// True while a request is waiting or being worked on.
  bool planning() const;
  /// Returns when planning() is over, at `until` at the latest.
  void wait_for_plan(Clock::time_point until);
  /// Hands over a filled slot.
  void submit(SlotLease slot, const Capture& capture);
  /// The budget of our own threads allows no picture before this.
  Clock::time_point not_before() const { return running() ? budget_->paid_until() : Clock::time_point::max(); }

  /// Adds what the render thread knows.
  void add_to(State& state) const;
  /// The last picture of the live view, for those who come later; may be nullptr.
  std::shared_ptr<const Picture> last_picture() const;
  /// Asks the render thread for what Run::value_at gives; any other thread.
  std::future<std::optional<ShownValue>> ask_value(uint64_t sequence, int x, int y);
  /// Waits for the answer, at most a quarter of a second. The pipeline may have gone.
  static std::optional<ShownValue> answer_of(std::future<std::optional<ShownValue>> asked);
  /// Of the render thread, and of update().
  ErrorLog& errors() { return errors_; }
  /// False where the system had no thread for it, which was logged: then nothing is ever due.
  bool running() const { return thread_.joinable(); }

 private:
  struct Item {
    SlotLease slot;
    Capture capture;
  };

  void run();
  void make_plan_now(const PlanRequest& request);
  void follow_settings();
  void render(Item& item);
  bool room_for(const Plan& plan);
  /// `settings`, `revision`: those of now that the picture was made with.
  void publish(std::shared_ptr<Picture> picture, const Settings& settings, uint64_t revision);
  void free_device_memory();
  void account_cpu(Clock::time_point started);
  void log_not_shown(const Plan& plan);

  const Options options_;
  const std::shared_ptr<SharedSettings> settings_;
  Dispatcher& dispatcher_;
  const std::shared_ptr<BackgroundBudget> budget_;
  ErrorLog errors_{"", "this picture is left out, the training goes on"};

  mutable Mutex mutex_;
  Condition changed_, planned_;
  std::deque<Item> queue_ BEHOLDER_GUARDED_BY(mutex_);
  std::optional<PlanRequest> request_ BEHOLDER_GUARDED_BY(mutex_);
  std::vector<std::function<void()>> questions_ BEHOLDER_GUARDED_BY(mutex_);  // answered by the render thread
  bool planning_ BEHOLDER_GUARDED_BY(mutex_) = false;
  bool settings_changed_ BEHOLDER_GUARDED_BY(mutex_) = false;
  bool stop_ BEHOLDER_GUARDED_BY(mutex_) = false;
  std::shared_ptr<const Plan> plan_ BEHOLDER_GUARDED_BY(mutex_);
  std::shared_ptr<const decltype(State::not_shown)> not_shown_ BEHOLDER_GUARDED_BY(mutex_);  // of plan_, for state()
  std::shared_ptr<const Picture> last_ BEHOLDER_GUARDED_BY(mutex_);
  int64_t rendered_ BEHOLDER_GUARDED_BY(mutex_) = 0;
  int64_t no_room_ BEHOLDER_GUARDED_BY(mutex_) = 0;       // captures that were not rendered
  int64_t shown_pixels_ BEHOLDER_GUARDED_BY(mutex_) = 0;  // of the largest picture of the newest plan that was rendered
  double background_ BEHOLDER_GUARDED_BY(mutex_) = 0;

  // Of the render thread alone.
  std::shared_ptr<PixelPool> pool_ = std::make_shared<PixelPool>();
  std::unique_ptr<ViewRenderer> main_;  // the film's view, which usually is the live one too
  std::unique_ptr<ViewRenderer> live_;  // a live view of its own: solo, page, zoom, pan or pause
  std::optional<PlanRequest> last_request_;
  bool plan_unused_ = false;                          // the last thing done was a plan, not a picture
  std::vector<std::shared_ptr<const Plan>> retired_;  // freed here, not on the training thread
  std::set<std::string> logged_not_shown_;            // name and reason
  std::map<std::string, int> lines_about_;            // for each kind of reason why something is not shown
  int lines_of_not_shown_ = 0;
  bool said_no_more_lines_ = false;
  bool said_no_room_ = false;
  Settings followed_;
  uint64_t sequence_ = 0, live_sequence_ = 0;
  uint64_t live_revision_ = 0, film_revision_ = 0;  // of the settings that the last pictures show
  double cpu_before_ = 0, all_before_ = 0, spent_before_ = 0;
  MovingRate cpu_rate_{0.1};
  Clock::time_point accounted_{};

  // Of the thread that owns the pipeline.
  int listener_ = 0;
  std::thread thread_;
};

}  // namespace beholder
