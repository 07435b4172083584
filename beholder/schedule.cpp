#include "beholder/schedule.h"

#include <algorithm>

namespace beholder {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr double kLongest = 3600;
/// How often it is looked for somebody who wants pictures while paused (a recorder may be added).
constexpr auto kIdle = std::chrono::seconds(1);
/// Before the first picture, in seconds: a plan takes a few milliseconds.
constexpr double kFirstPatience = 0.1;
constexpr double kLongestPatience = 0.25;

Schedule::Duration ticks(double seconds) {
  return std::chrono::duration_cast<Schedule::Duration>(Seconds(std::min(seconds, kLongest)));
}

double interval(const Schedule::Wish& wish) { return wish.fps > 0 ? 1.0 / wish.fps : kLongest; }

}  // namespace

Schedule::Time Schedule::earliest(const Wish& wish, bool at_once, Time background) const {
  if (!at_once && (wish.fps <= 0 || wish.nobody)) return Time::max();
  return std::max({at_once ? Time{} : next_picture_, paid_until_, background});
}

bool Schedule::due_with(const Wish& wish, bool other_values, Time now, Time background) const {
  Schedule then = *this;
  then.settings_changed(wish, other_values);
  return then.due(wish, now, background);
}

bool Schedule::look(const Wish& wish, Time now, Time background) {
  const Time when = earliest(wish, forced_, background);
  next_look_ = std::min(when, now + kIdle);
  return now >= when;
}

bool Schedule::due_by_next_update(const Wish& wish, Time now, Time background) const {
  return now + ticks(step_) >= earliest(wish, forced_, background);
}

bool Schedule::spare(const Wish& wish, Time now, Time background) const {
  return now + ticks(step_) >= std::max(paid_until_, background) &&
         now + ticks(usual_cost_ / max_overhead_) <= earliest(wish, forced_, background);
}

void Schedule::update_begins(Time now) {
  if (last_update_ != Time{}) {
    const double seconds = Seconds(now - last_update_).count();
    step_ = step_ == 0 ? seconds : step_ + 0.3 * (seconds - step_);
  }
  last_update_ = now;
}

void Schedule::settings_changed(const Wish& wish, bool other_values) {
  forced_ = forced_ || other_values;
  next_picture_ = std::min(next_picture_, last_picture_ + ticks(interval(wish)));
}

void Schedule::captured(const Wish& wish, Time now) {
  forced_ = false;
  shown_ = true;
  if (last_picture_ != Time{}) fps_ = picture_rate_.add(1, Seconds(now - last_picture_).count());
  last_picture_ = now;
  // The next picture is due one interval after this one was; after a late one, one interval from now.
  const auto pause = ticks(interval(wish));
  next_picture_ = next_picture_ + pause < now ? now + pause : next_picture_ + pause;
  next_look_ = next_picture_;
}

void Schedule::dropped(const Wish& wish, Time now, Duration retry) {
  if (forced_) {  // what a viewer asked for comes as soon as it can, whatever the FPS
    look_again(now, retry);
    return;
  }
  const auto pause = ticks(interval(wish));
  next_picture_ = next_picture_ + pause < now ? now + pause : next_picture_ + pause;
  next_look_ = next_picture_;
}

void Schedule::look_again(Time now, Duration after) { next_look_ = next_picture_ = now + after; }

void Schedule::pay(Time started, double seconds, bool armed) {
  const double spent = std::max(0.0, seconds);
  usual_cost_ = usual_cost_ == 0 ? spent : usual_cost_ + 0.2 * (spent - usual_cost_);
  // An update() that arms hooks is not paid for yet when the one that captures comes.
  paid_until_ = std::max(paid_until_, started) + ticks(spent / max_overhead_);
  if (last_paid_at_ != Time{}) overhead_ = cost_rate_.add(last_paid_, Seconds(started - last_paid_at_).count());
  last_paid_at_ = started;
  last_paid_ = spent;
  if (!armed) next_look_ = std::max(next_look_, paid_until_);
}

double Schedule::patience(Time now) const {
  const double step = last_update_ == Time{} ? 0 : std::max(step_, Seconds(now - last_update_).count());
  return std::clamp(max_overhead_ * step, shown_ ? 0 : kFirstPatience, kLongestPatience);
}

void Schedule::watched(double seconds_before, double seconds_of_forward, bool given_up) {
  const auto limit = [](double seconds) { return std::clamp(seconds, kShortWatching, kLongWatching); };
  if (seconds_of_forward > 0) {
    watching_limit_ = limit(4 * seconds_before);
    forward_limit_ = limit(given_up ? 2 * forward_limit_ : 4 * seconds_of_forward);
  } else if (given_up) {
    watching_limit_ = limit(2 * watching_limit_);
  }
}

}  // namespace beholder
