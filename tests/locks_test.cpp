// Locks are not held over work: who asks for much, or waits long, holds up neither the training nor another who asks.
// An operator new that stops a thread of the test's choice tells for sure what else stops with it.
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "allocation_gate.h"
#include "beholder/beholder.h"
#include "beholder/lifeline.h"
#include "beholder/log.h"
#include "catch.h"

using namespace beholder;
using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

bool soon(const std::function<bool()>& condition, const std::function<void()>& meanwhile = {}) {
  for (const auto end = steady_clock::now() + 20s; steady_clock::now() < end;) {
    if (condition()) return true;
    if (meanwhile) meanwhile();
    std::this_thread::sleep_for(500us);
  }
  return condition();
}

struct Viewer : Callback {
  std::string name() const override { return "viewer"; }
  void open(const Run& opened) override {
    run = opened;
    is_open = true;
  }
  void show(std::shared_ptr<const Picture> picture) override { shown = picture->step; }

  Run run;  // once it is open
  std::atomic<bool> is_open{false};
  std::atomic<int64_t> shown{-1};  // the step
};

Options small() {
  Options options;
  options.canvas_width = 320;
  options.canvas_height = 240;
  options.max_overhead = 1;
  options.max_background = 64;
  options.settings.values = Values::Arrays;
  options.settings.fps = 60;
  return options;
}

/// One array that is shown, and so many that cannot be.
Arrays arrays_with(int hollow) {
  Arrays arrays = {{"good", torch::ones({4, 4})}};
  for (int i = 0; i < hollow; ++i) arrays.push_back({"hollow" + std::to_string(i), torch::zeros({0, 4})});
  return arrays;
}

struct Watched {
  std::shared_ptr<Viewer> viewer = std::make_shared<Viewer>();
  beholder::Beholder beholder{std::string(BEHOLDER_BINARY_DIR) + "/tests/locks", small()};

  Watched() {
    beholder.add(viewer);
    REQUIRE(soon([&] { return viewer->is_open.load(); }));
  }
};

}  // namespace

TEST_CASE("a state that takes long holds up neither update() nor pictures nor another state") {
  set_log_sink([](LogLevel, const std::string&) {});
  {
    Watched watched;
    constexpr int kHollow = 3000;
    const Arrays arrays = arrays_with(kHollow);
    const auto update = [&] { watched.beholder.update(arrays); };
    REQUIRE(soon([&] { return watched.viewer->shown >= 0 && watched.beholder.state().not_shown.size() == kHollow; },
                 update));
    AllocationGate here;
    here.at_least = kHollow * sizeof(decltype(State::not_shown)::value_type);
    State slow;
    std::thread asks([&] {
      stop_at(&here);
      slow = watched.viewer->run.state();
      stop_at(nullptr);
    });
    CHECK(soon([&] { return here.reached.load(); }));
    const int64_t step = watched.beholder.state().step;
    CHECK(soon([&] { return watched.viewer->shown > step; }, update));
    CHECK(watched.viewer->run.state().not_shown.size() == kHollow);
    CHECK(watched.viewer->run.last_picture());
    CHECK_FALSE(here.expired);
    here.open = true;
    asks.join();
    CHECK(slow.not_shown.size() == kHollow);
  }
  set_log_sink({});
}

TEST_CASE("while a value is waited for, states and pictures come at once") {
  std::atomic<bool> held{false}, go_on{false};
  // The render thread says what is not shown, and stops there.
  set_log_sink([&](LogLevel, const std::string& line) {
    if (line.find("not shown: ") == std::string::npos) return;
    held = true;
    for (const auto end = steady_clock::now() + 60s; !go_on && steady_clock::now() < end;) {
      std::this_thread::sleep_for(1ms);
    }
  });
  {
    Watched watched;
    const Run& run = watched.viewer->run;
    CHECK(soon([&] { return watched.viewer->shown >= 0; }, [&] { watched.beholder.update(arrays_with(0)); }));
    CHECK(soon([&] { return held.load(); }, [&] { watched.beholder.update(arrays_with(1)); }));
    // The longest that a state took while a value was waited for: other programs may make it long now and then.
    auto longest = steady_clock::duration::max();
    for (int attempt = 0; attempt < 40 && longest > 100ms; ++attempt) {
      std::atomic<bool> asking{false}, answered{false}, found{false};
      std::thread asks([&] {
        asking = true;
        found = run.value_at(1, 10, 10).has_value();
        answered = true;
      });
      while (!asking) std::this_thread::yield();
      auto most = steady_clock::duration::zero();
      do {
        const auto begun = steady_clock::now();
        run.state();
        CHECK(run.last_picture());
        most = std::max(most, steady_clock::now() - begun);
        std::this_thread::sleep_for(1ms);
      } while (!answered);
      asks.join();
      CHECK_FALSE(found);
      longest = std::min(longest, most);
    }
    CHECK(longest <= 100ms);
    go_on = true;
  }
  set_log_sink({});
}

TEST_CASE("those who use what may end do not wait for each other; its end waits for them, and then there is none") {
  Lifeline<int> lifeline;
  const auto read = [&] { return lifeline.with(-1, [](const int& value) { return value; }); };
  CHECK(read() == -1);
  int host = 5;
  lifeline.begin(host);
  std::atomic<bool> inside{false}, go_on{false}, ended{false};
  std::thread slow([&] {
    lifeline.with(0, [&](const int& value) {
      inside = true;
      soon([&] { return go_on.load(); });
      return value;
    });
  });
  CHECK(soon([&] { return inside.load(); }));
  std::atomic<int> seen{0};
  std::thread other([&] { seen = read(); });
  CHECK(soon([&] { return seen == 5; }));
  CHECK_THROWS_AS(lifeline.with(0, [](int&) -> int { throw std::bad_alloc(); }), std::bad_alloc);
  std::thread ends([&] {
    lifeline.end();
    ended = true;
  });
  CHECK(soon([&] { return read() == -1; }));
  CHECK_FALSE(ended);
  go_on = true;
  slow.join();
  other.join();
  ends.join();
  CHECK(ended);
}
