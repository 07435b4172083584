// When something is done, with times that are made up: a pure state machine needs no clock and no sleep.
#include "beholder/schedule.h"

#include <algorithm>
#include <chrono>

#include "beholder/asked_steps.h"
#include "catch.h"

using namespace beholder;
using namespace std::chrono_literals;

namespace {

using Time = Schedule::Time;

constexpr Time kStart{1000s};
constexpr Time kPaid{};  // our own threads owe nothing

double seconds(Schedule::Duration duration) { return std::chrono::duration<double>(duration).count(); }

/// A training of `length`, whose steps take `step`, and a picture `cost` of the training thread. Returns the pictures.
int run(Schedule& schedule, const Schedule::Wish& wish, Schedule::Duration length, Schedule::Duration step,
        Schedule::Duration cost) {
  int pictures = 0;
  for (Time now = kStart; now < kStart + length; now += step) {
    if (schedule.quiet(now)) continue;
    schedule.update_begins(now);
    if (!schedule.look(wish, now, kPaid)) continue;
    ++pictures;
    schedule.captured(wish, now);
    schedule.pay(now, seconds(cost), /*armed=*/false);
  }
  return pictures;
}

}  // namespace

TEST_CASE("pictures come as often as wished, whatever a step takes") {
  for (const auto step : {100us, 1000us, 33333us}) {
    Schedule schedule(/*max_overhead=*/0.02, /*forced=*/false);
    const int pictures = run(schedule, {10, false}, 20s, step, 10us);
    INFO(step.count() << " us a step");
    CHECK(pictures >= 199);
    CHECK(pictures <= 201);
  }
}

TEST_CASE("where a step takes longer than a picture's interval, each step is shown") {
  Schedule schedule(0.02, true);
  CHECK(run(schedule, {10, false}, 20s, 1s, 10us) == 20);
}

TEST_CASE("pictures become fewer before they cost more of the training thread than they may") {
  for (const double max_overhead : {0.001, 0.02, 0.5}) {
    Schedule schedule(max_overhead, true);
    const int pictures = run(schedule, {60, false}, 100s, 1ms, 20ms);
    INFO(max_overhead);
    CHECK(pictures * 0.020 <= max_overhead * 100 + 0.020);
    CHECK(pictures * 0.020 >= 0.9 * std::min(max_overhead, 1.0) * 100);
    CHECK(schedule.overhead() <= 1.1 * max_overhead);
    CHECK(schedule.usual_cost() == Approx(0.02));
  }
}

TEST_CASE("what our own threads have not paid for yet holds pictures back, also those that are asked for") {
  Schedule schedule(0.02, /*forced=*/true);
  const Schedule::Wish wish{10, false};
  CHECK_FALSE(schedule.due(wish, kStart, kStart + 1s));
  CHECK(schedule.due(wish, kStart + 1s, kStart + 1s));
  CHECK_FALSE(schedule.look(wish, kStart, kStart + 1s));
  CHECK(schedule.quiet(kStart + 999ms));
  CHECK_FALSE(schedule.quiet(kStart + 1s));
}

TEST_CASE("nothing new where FPS is 0 or nobody would see it, but the first and what is asked for") {
  for (const Schedule::Wish wish : {Schedule::Wish{0, false}, Schedule::Wish{10, true}}) {
    Schedule schedule(0.02, /*forced=*/true);
    CHECK(run(schedule, wish, 20s, 1ms, 10us) == 1);
    CHECK_FALSE(schedule.due(wish, kStart + 40s, kPaid));
    CHECK(schedule.due_with(wish, /*other_values=*/true, kStart + 40s, kPaid));
    CHECK_FALSE(schedule.due_with(wish, /*other_values=*/false, kStart + 40s, kPaid));
    schedule.settings_changed(wish, /*other_values=*/true);
    CHECK(schedule.due(wish, kStart + 40s, kPaid));
  }
}

TEST_CASE("a higher FPS counts from the last picture on, not from the next one of the old pace") {
  Schedule schedule(0.02, false);
  schedule.look({0.1, false}, kStart, kPaid);
  schedule.captured({0.1, false}, kStart);
  CHECK_FALSE(schedule.due({0.1, false}, kStart + 200ms, kPaid));
  schedule.settings_changed({10, false}, false);
  CHECK_FALSE(schedule.due({10, false}, kStart + 99ms, kPaid));
  CHECK(schedule.due({10, false}, kStart + 100ms, kPaid));
}

TEST_CASE("a picture that was dropped comes with the next one; one that somebody waits for is tried again soon") {
  const Schedule::Wish wish{10, false};
  Schedule schedule(0.02, true);
  schedule.dropped(wish, kStart);
  CHECK_FALSE(schedule.due(wish, kStart, kStart + 1us));
  CHECK_FALSE(schedule.quiet(kStart + Schedule::kLookAgain));
  schedule.captured(wish, kStart);
  CHECK_FALSE(schedule.forced());
  schedule.dropped(wish, kStart + 101ms);
  CHECK(schedule.quiet(kStart + 200ms));
  CHECK_FALSE(schedule.quiet(kStart + 201ms));
}

TEST_CASE("what must be prepared a step ahead is prepared before slow steps, not before fast ones") {
  const Schedule::Wish wish{10, false};
  Schedule slow(0.02, false), fast(0.02, false);
  slow.captured(wish, kStart);
  fast.captured(wish, kStart);
  for (int i = 0; i < 20; ++i) {
    slow.update_begins(kStart + i * 1s);
    fast.update_begins(kStart + i * 1ms);
  }
  CHECK(slow.due_by_next_update(wish, kStart + 1ms, kPaid));
  CHECK_FALSE(fast.due_by_next_update(wish, kStart + 1ms, kPaid));
  CHECK(fast.due_by_next_update(wish, kStart + 99500us, kPaid));
}

TEST_CASE("an update() waits for a plan within the budget: 2 % of a step of 4 s are 80 ms") {
  Schedule schedule(0.02, true);
  CHECK(schedule.patience(kStart) == Approx(0.1));  // nothing was shown yet
  schedule.update_begins(kStart);
  schedule.captured({10, false}, kStart);
  schedule.update_begins(kStart + 4s);
  CHECK(schedule.patience(kStart + 4s) == Approx(0.08));
  CHECK(schedule.patience(kStart + 100s) <= 0.25);
  Schedule fast(0.02, false);
  fast.update_begins(kStart);
  fast.captured({10, false}, kStart);
  fast.update_begins(kStart + 1ms);
  CHECK(fast.patience(kStart + 1ms) == Approx(0.00002).margin(1e-6));
}

TEST_CASE("watching that was given up for nothing lasts longer the next time, up to a bound") {
  Schedule schedule(0.02, true);
  const double first = schedule.watching_limit();
  schedule.watched(0, 0, /*given_up=*/true);
  CHECK(schedule.watching_limit() == Approx(2 * first));
  for (int i = 0; i < 100; ++i) schedule.watched(0, 0, true);
  CHECK(schedule.watching_limit() <= 2);
  schedule.watched(0.001, 0.01, false);  // it came: a few times what it took
  CHECK(schedule.watching_limit() == Approx(first));
  CHECK(schedule.forward_limit() == Approx(0.04));
}

TEST_CASE(
    "what is no picture has room in the budget once all is paid, and where the next picture does not wait for it") {
  const Schedule::Wish wish{10, false};
  Schedule schedule(0.02, false);
  schedule.captured(wish, kStart);
  schedule.pay(kStart, 0.001, false);  // paid after 50 ms
  CHECK_FALSE(schedule.spare(wish, kStart + 49ms, kPaid));
  CHECK(schedule.spare(wish, kStart + 50ms, kPaid));
  CHECK_FALSE(schedule.spare(wish, kStart + 50ms, kStart + 60ms));
  CHECK_FALSE(schedule.spare(wish, kStart + 51ms, kPaid));  // it would not be paid in time
  CHECK(schedule.spare({0, false}, kStart + 51ms, kPaid));  // no next picture
}

TEST_CASE("the next update(Now) is expected after as many updates as the last") {
  beholder::AskedSteps asked;
  CHECK_FALSE(asked.likely(0));
  CHECK_FALSE(asked.expected(0));
  asked.asked(9);  // the tenth
  CHECK(asked.expected(19));
  CHECK_FALSE(asked.expected(18));
  CHECK(asked.likely(10));
  asked.asked(12);
  CHECK(asked.expected(15));
  CHECK_FALSE(asked.expected(18));
  CHECK(asked.likely(1012));
  CHECK_FALSE(asked.likely(1013));
  asked.asked(5012);
  CHECK(asked.likely(55012));
  CHECK_FALSE(asked.likely(55013));
}
