// When something is done: a picture is due, the hooks are armed, something is tried again. A pure state machine: it is
// told the time and what happened, and asks nobody. Internal; used by the training thread.
#pragma once

#include <chrono>

#include "beholder/moving_rate.h"

namespace beholder {

class Schedule {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;
  using Duration = Clock::duration;

  /// What the settings wish.
  struct Wish {
    double fps = 10;      ///< 0 shows nothing new
    bool nobody = false;  ///< paused, and no film: nobody would see it
  };

  /// `max_overhead`: the share of the training thread's time that may be taken. `forced`: there is no picture yet, and
  /// one is wished.
  Schedule(double max_overhead, bool forced) : max_overhead_(max_overhead), forced_(forced) {}

  /// Before this an update() has nothing to do, as long as the settings are the same.
  bool quiet(Time now) const { return now < next_look_; }
  /// Whether a picture is due at `now`; `background` is when our own threads have paid for the last one.
  bool due(const Wish& wish, Time now, Time background) const { return now >= earliest(wish, forced_, background); }
  /// The same for settings that are not followed yet, which may ask for `other_values`.
  bool due_with(const Wish& wish, bool other_values, Time now, Time background) const;
  /// An update() looks; false where nothing is due.
  bool look(const Wish& wish, Time now, Time background);
  /// Whether a picture will be due before the update() after this one, as far as steps take as long as they took. What
  /// must be prepared a step ahead is prepared then.
  bool due_by_next_update(const Wish& wish, Time now, Time background) const;

  /// Whether the budget has room, in the step that begins, for what is no picture: the next one does not come later for
  /// it.
  bool spare(const Wish& wish, Time now, Time background) const;

  /// Called at each update() that looks at the time; the interval of those is what a step takes at most.
  void update_begins(Time now);
  /// The settings have changed; `other_values`: what was captured is not what they ask for.
  void settings_changed(const Wish& wish, bool other_values);
  /// A picture was captured.
  void captured(const Wish& wish, Time now);
  /// One was due, but could not be had: tried again after `retry` where somebody waits for it, else with the next.
  void dropped(const Wish& wish, Time now, Duration retry = kLookAgain);
  /// What is missing will be there soon (a plan): look again.
  void look_again(Time now, Duration after = kLookAgain);
  /// At the next update(), whatever the time: something is armed.
  void look_at_each() { next_look_ = Time{}; }
  /// `seconds` of the training thread were taken since `started`. Paid for by quiet, so that the share stays below
  /// max_overhead.
  void pay(Time started, double seconds, bool armed);

  bool forced() const { return forced_; }
  /// Of a due update(), hooks included: a moving average, in seconds.
  double usual_cost() const { return usual_cost_; }
  /// Share of the training thread's time, measured.
  double overhead() const { return overhead_; }
  double fps() const { return fps_; }
  /// How long the training thread may wait for something at `now`, in seconds: what the budget would make of the time
  /// since the last update(), and before the first picture a little in any case.
  double patience(Time now) const;
  /// How much watching may cost, in seconds, before it is given up: as long as nothing comes (more after each time that
  /// it was given up for nothing), ...
  double watching_limit() const { return watching_limit_; }
  /// ... and from the first output on, a few times what a forward has taken.
  double forward_limit() const { return forward_limit_; }
  /// Watching has ended, and took so long until the last that came.
  void watched(double seconds_before, double seconds_of_forward, bool given_up);

  /// How soon an update() looks again for a plan that it has asked for.
  static constexpr Duration kLookAgain = std::chrono::microseconds(500);
  /// How soon after a failure the values that the settings ask for are tried again.
  static constexpr Duration kTryAgain = std::chrono::milliseconds(100);

 private:
  Time earliest(const Wish& wish, bool at_once, Time background) const;

  const double max_overhead_;
  bool forced_;          // the settings ask for values that have not been captured yet
  bool shown_ = false;   // something was captured
  Time next_look_{};     // nothing to do before this
  Time next_picture_{};  // by the FPS wished
  Time paid_until_{};    // by the budget
  Time last_picture_{}, last_update_{}, last_paid_at_{};
  double step_ = 0;  // seconds between updates, lately
  double last_paid_ = 0, usual_cost_ = 0, overhead_ = 0, fps_ = 0;
  double watching_limit_ = kShortWatching, forward_limit_ = kLongWatching;
  MovingRate picture_rate_{0.2}, cost_rate_{0.1};

  static constexpr double kShortWatching = 0.01, kLongWatching = 2;
};

}  // namespace beholder
