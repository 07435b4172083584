// The workers of callbacks: what happens to the others, and to the process, when one fails, is slow, or hangs. Without
// LibTorch's operators, so that the thread sanitizer can judge every line.
#include "beholder/dispatcher.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "log_lines.h"

extern char** environ;

using namespace beholder;
using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

// A machine that others use as well must not make these fail.
constexpr auto kDeadline = 60s;

/// True as soon as `condition` is; false when the deadline has passed.
bool eventually(const std::function<bool()>& condition) {
  for (const auto end = steady_clock::now() + kDeadline; steady_clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(1ms);
  }
  return condition();
}

std::shared_ptr<BackgroundBudget> no_limit() { return std::make_shared<BackgroundBudget>(64.0); }

/// A gate that threads wait at. Opened by its owner at the latest: nothing waits for ever.
class Gate {
 public:
  ~Gate() { open(); }
  void open() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    ++waiting_;
    changed_.wait(lock, [&] { return open_; });
  }
  int waiting() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return waiting_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;  // guarded by mutex_
  int waiting_ = 0;    // guarded by mutex_: threads that have come so far
};

/// What callbacks did, in order: "a open", "a 7", "a close".
class Diary {
 public:
  void write(const std::string& line) {
    std::lock_guard<std::mutex> lock(mutex_);
    lines_.push_back(line);
  }
  std::vector<std::string> lines() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return lines_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;  // guarded by mutex_
};

/// Keeps what it is shown in memory; each step can be told to do something else first.
class InMemory : public Callback {
 public:
  explicit InMemory(std::string name, Diary& diary) : name_(std::move(name)), diary_(diary) {}
  std::string name() const override { return name_; }
  Needs needs() const override { return needs_; }
  Overflow overflow() const override { return overflow_; }
  void open(const Run& run) override {
    diary_.write(name_ + " open");
    run_ = run;
    if (on_open) on_open();
  }
  void show(std::shared_ptr<const Picture> picture) override {
    if (on_show) on_show(*picture);
    diary_.write(name_ + " " + std::to_string(picture->step));
  }
  void close() override {
    diary_.write(name_ + " close");
    if (on_close) on_close();
  }

  Needs needs_;
  Overflow overflow_ = Overflow::DropOldest;
  std::function<void()> on_open, on_close;
  std::function<void(const Picture&)> on_show;
  Run run_;

 private:
  const std::string name_;
  Diary& diary_;
};

/// A picture that counts as 1000 bytes more than its 4096 of overhead.
std::shared_ptr<Picture> picture(int64_t step) {
  auto p = std::make_shared<Picture>();
  p->step = step;
  p->rgb.resize(1000);
  return p;
}
constexpr int64_t kBytes = 5096;

CallbackState state_of(const Dispatcher& dispatcher, size_t i = 0) { return dispatcher.states().at(i); }

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("a callback is opened, shown every picture in order, and closed once, on one thread of its own") {
  Diary diary;
  const auto callback = std::make_shared<InMemory>("a", diary);
  std::vector<std::thread::id> threads;
  callback->on_open = callback->on_close = [&] { threads.push_back(std::this_thread::get_id()); };
  callback->on_show = [&](const Picture&) { threads.push_back(std::this_thread::get_id()); };
  Dispatcher dispatcher(1 << 20, no_limit());
  CHECK(dispatcher.empty());
  Run run;
  run.logdir = "somewhere";
  dispatcher.add(callback, run);
  CHECK_FALSE(dispatcher.empty());
  for (int i = 0; i < 5; ++i) dispatcher.dispatch(picture(i));
  REQUIRE(eventually([&] { return state_of(dispatcher).shown == 5; }));
  CHECK(state_of(dispatcher).open);
  dispatcher.close(60s);
  CHECK(callback->run_.logdir == "somewhere");
  CHECK(diary.lines() == Lines{"a open", "a 0", "a 1", "a 2", "a 3", "a 4", "a close"});
  REQUIRE(threads.size() == 7);
  for (const auto& thread : threads) {
    CHECK(thread == threads[0]);
    CHECK(thread != std::this_thread::get_id());
  }
  const CallbackState state = state_of(dispatcher);
  CHECK(state.name == "a");
  CHECK_FALSE(state.open);
  CHECK(state.shown == 5);
  CHECK(state.dropped == 0);
  CHECK(state.errors == 0);
  CHECK(state.queued_bytes == 0);
}

TEST_CASE("a callback whose open() throws is disabled with one line, and needs nothing") {
  LogLines log;
  Diary diary;
  const auto bad = std::make_shared<InMemory>("bad", diary), good = std::make_shared<InMemory>("good", diary);
  bad->needs_ = {/*film=*/true, /*statistics=*/true};
  good->needs_ = {/*film=*/false, /*statistics=*/false};
  bad->on_open = [] { throw std::runtime_error("no space\nand more lines that nobody reads"); };
  Dispatcher dispatcher(1 << 20, no_limit());
  dispatcher.add(bad, {});
  dispatcher.add(good, {});
  REQUIRE(eventually([&] { return state_of(dispatcher).errors == 1; }));
  REQUIRE(eventually([&] { return !dispatcher.needs().film; }));
  CHECK_FALSE(dispatcher.needs().statistics);
  for (int i = 0; i < 3; ++i) dispatcher.dispatch(picture(i));
  dispatcher.close(60s);
  CHECK(log.all() == Lines{"bad: opening failed: no space; the training goes on"});
  const CallbackState state = state_of(dispatcher);
  CHECK_FALSE(state.open);
  CHECK(state.last_error == "no space");
  CHECK(state.shown == 0);
  CHECK(state.queued_bytes == 0);
  const auto lines = diary.lines();  // no close() without an open()
  CHECK(std::count(lines.begin(), lines.end(), "bad open") == 1);
  CHECK(std::count(lines.begin(), lines.end(), "bad close") == 0);
  CHECK(state_of(dispatcher, 1).shown == 3);
}

TEST_CASE("pictures that came before a failing open() are let go") {
  LogLines log;
  Diary diary;
  Gate gate;
  const auto bad = std::make_shared<InMemory>("bad", diary);
  bad->on_open = [&] {
    gate.wait();
    throw 7;
  };
  Dispatcher dispatcher(1 << 20, no_limit());
  dispatcher.add(bad, {});
  std::weak_ptr<const Picture> queued;
  {
    const auto p = picture(1);
    queued = p;
    dispatcher.dispatch(p);
  }
  CHECK(state_of(dispatcher).queued_bytes == kBytes);
  CHECK_FALSE(queued.expired());
  gate.open();
  REQUIRE(eventually([&] { return state_of(dispatcher).errors == 1; }));
  REQUIRE(eventually([&] { return queued.expired(); }));
  CHECK(state_of(dispatcher).queued_bytes == 0);
  CHECK(log.count("bad: opening failed: an exception that is no std::exception") == 1);
}

TEST_CASE("exceptions out of show() are counted, logged once per text, and the next picture is shown") {
  LogLines log;
  Diary diary;
  const auto callback = std::make_shared<InMemory>("flaky", diary);
  callback->on_show = [](const Picture& p) {
    if (p.step % 3 == 0) throw std::runtime_error("disk is full\nsecond line");
    if (p.step % 3 == 1) throw 42;
  };
  callback->on_close = [] { throw std::logic_error("cannot close"); };
  Dispatcher dispatcher(1 << 20, no_limit());
  dispatcher.add(callback, {});
  for (int i = 0; i < 30; ++i) dispatcher.dispatch(picture(i));
  REQUIRE(eventually([&] { return state_of(dispatcher).shown == 10; }));
  CHECK(state_of(dispatcher).errors == 20);
  CHECK(state_of(dispatcher).last_error == "an exception that is no std::exception");
  CHECK(log.all() ==
        Lines{"flaky: showing a picture failed: disk is full; the training goes on",
              "flaky: showing a picture failed: an exception that is no std::exception; the training goes on"});
  dispatcher.close(60s);
  CHECK(state_of(dispatcher).errors == 21);
  CHECK(state_of(dispatcher).last_error == "cannot close");
  CHECK(log.count("flaky: closing failed: cannot close") == 1);
  CHECK(log.all().size() == 3);
  CHECK(diary.lines().back() == "flaky close");
}

TEST_CASE("errors whose text is another one each time do not fill the log") {
  LogLines log;
  Diary diary;
  const auto callback = std::make_shared<InMemory>("talker", diary);
  callback->on_show = [](const Picture& p) {
    if (p.step < 100) throw std::runtime_error("at byte " + std::to_string(p.step));
    throw std::runtime_error("no such file: " + std::string(static_cast<size_t>(p.step), 'x'));
  };
  Dispatcher dispatcher(int64_t{1} << 30, no_limit());
  dispatcher.add(callback, {});
  for (int i = 0; i < 200; ++i) dispatcher.dispatch(picture(i));
  dispatcher.close(60s);
  CHECK(state_of(dispatcher).errors == 200);
  CHECK(state_of(dispatcher).last_error == "no such file: " + std::string(199, 'x'));
  // What differs in numbers is one kind; where names differ there is an end.
  CHECK(log.count("at byte 0") == 1);
  CHECK(log.count("at byte") == 1);
  CHECK(log.count("no such file") == 19);
  CHECK(log.all().size() == 21);
  CHECK(log.all().back() == "talker: there are more errors, which are not told here any more: see state()");
}

TEST_CASE("overflow policies keep what their name says, with exact counters") {
  Diary diary;
  Gate gate;
  const auto make = [&](const std::string& name, Overflow overflow) {
    auto callback = std::make_shared<InMemory>(name, diary);
    callback->overflow_ = overflow;
    callback->on_show = [&](const Picture&) { gate.wait(); };
    return callback;
  };
  CHECK(std::string(to_string(Overflow::DropOldest)) == "drop oldest");
  CHECK(std::string(to_string(Overflow::DropNewest)) == "drop newest");
  CHECK(std::string(to_string(Overflow::KeepLatest)) == "keep latest");
  Dispatcher dispatcher(3 * kBytes + kBytes / 2, no_limit());  // room for three
  dispatcher.add(make("oldest", Overflow::DropOldest), {});
  dispatcher.add(make("newest", Overflow::DropNewest), {});
  dispatcher.add(make("latest", Overflow::KeepLatest), {});
  dispatcher.dispatch(picture(0));
  REQUIRE(eventually([&] { return gate.waiting() == 3; }));  // each is busy with picture 0
  for (int i = 1; i <= 10; ++i) {
    dispatcher.dispatch(picture(i));
    for (const auto& state : dispatcher.states()) CHECK(state.queued_bytes <= 3 * kBytes);
  }
  CHECK(state_of(dispatcher, 0).queued_bytes == 3 * kBytes);
  CHECK(state_of(dispatcher, 1).queued_bytes == 3 * kBytes);
  CHECK(state_of(dispatcher, 2).queued_bytes == kBytes);
  CHECK(state_of(dispatcher, 0).dropped == 7);
  CHECK(state_of(dispatcher, 1).dropped == 7);
  CHECK(state_of(dispatcher, 2).dropped == 9);
  gate.open();
  dispatcher.close(60s);
  std::vector<std::string> oldest, newest, latest;
  for (const auto& line : diary.lines()) {
    if (line.find(' ') == std::string::npos || line.find("open") != std::string::npos) continue;
    auto& own = line[0] == 'o' ? oldest : line[0] == 'n' ? newest : latest;
    own.push_back(line.substr(line.find(' ') + 1));
  }
  CHECK(oldest == Lines{"0", "8", "9", "10", "close"});
  CHECK(newest == Lines{"0", "1", "2", "3", "close"});
  CHECK(latest == Lines{"0", "10", "close"});
  for (const auto& state : dispatcher.states()) {
    CHECK(state.queued_bytes == 0);
    CHECK(state.shown + state.dropped == 11);
  }
}

TEST_CASE("a picture larger than the whole queue is still shown, alone") {
  Diary diary;
  for (const Overflow overflow : {Overflow::DropOldest, Overflow::DropNewest, Overflow::KeepLatest}) {
    const auto callback = std::make_shared<InMemory>("a", diary);
    callback->overflow_ = overflow;
    Dispatcher dispatcher(100, no_limit());
    dispatcher.add(callback, {});
    dispatcher.dispatch(picture(1));
    REQUIRE(eventually([&] { return state_of(dispatcher).shown == 1; }));
    CHECK(state_of(dispatcher).dropped == 0);
  }
}

TEST_CASE("a slow callback delays nobody else, nor the one who dispatches") {
  Diary diary;
  Gate gate;
  const auto slow = std::make_shared<InMemory>("slow", diary), quick = std::make_shared<InMemory>("quick", diary);
  slow->on_show = [&](const Picture&) { gate.wait(); };
  Dispatcher dispatcher(2 * kBytes, no_limit());
  dispatcher.add(slow, {});
  dispatcher.add(quick, {});
  for (int i = 0; i < 50; ++i) {
    dispatcher.dispatch(picture(i));
    REQUIRE(eventually([&] { return state_of(dispatcher, 1).shown == i + 1; }));
  }
  CHECK(state_of(dispatcher, 0).shown == 0);
  CHECK(state_of(dispatcher, 0).dropped == 50 - 1 - 2);
  gate.open();
}

TEST_CASE("a film callback gets the film's pictures, another the live ones") {
  Diary diary;
  const auto film = std::make_shared<InMemory>("film", diary), live = std::make_shared<InMemory>("live", diary);
  film->needs_ = {/*film=*/true, /*statistics=*/true};
  Dispatcher dispatcher(1 << 20, no_limit());
  dispatcher.add(film, {});
  dispatcher.add(live, {});
  int step = 0;
  for (const bool is_film : {true, false}) {
    for (const bool is_live : {true, false}) {
      for (const bool recoloured : {true, false}) {
        const auto p = picture(step++);
        p->film = is_film;
        p->live = is_live;
        p->recoloured = recoloured;
        dispatcher.dispatch(p);
      }
    }
  }
  REQUIRE(eventually([&] { return state_of(dispatcher, 0).shown == 2 && state_of(dispatcher, 1).shown == 4; }));
  dispatcher.close(60s);
  Lines shown_film, shown_live;
  for (const auto& line : diary.lines()) {
    if (!std::isdigit(static_cast<unsigned char>(line.back()))) continue;
    (line[0] == 'f' ? shown_film : shown_live).push_back(line.substr(5));
  }
  CHECK(shown_film == Lines{"1", "3"});  // no picture twice: what was only recoloured is not for the film
  CHECK(shown_live == Lines{"0", "1", "4", "5"});
}

TEST_CASE("needs are ORed over the callbacks") {
  Diary diary;
  Dispatcher dispatcher(1 << 20, no_limit());
  CHECK_FALSE(dispatcher.needs().film);
  CHECK_FALSE(dispatcher.needs().statistics);
  const auto add = [&](bool film, bool statistics) {
    const auto callback = std::make_shared<InMemory>("a", diary);
    callback->needs_ = {film, statistics};
    dispatcher.add(callback, {});
  };
  add(false, false);
  CHECK_FALSE(dispatcher.needs().film);
  CHECK_FALSE(dispatcher.needs().statistics);
  add(true, false);
  CHECK(dispatcher.needs().film);
  CHECK_FALSE(dispatcher.needs().statistics);
  add(false, true);
  CHECK(dispatcher.needs().film);
  CHECK(dispatcher.needs().statistics);
}

TEST_CASE("a callback that is added twice has one thread, and one line says so") {
  LogLines log;
  Diary diary;
  const auto callback = std::make_shared<InMemory>("a", diary);
  Dispatcher dispatcher(1 << 20, no_limit());
  dispatcher.add(callback, {});
  dispatcher.add(callback, {});
  CHECK(dispatcher.states().size() == 1);
  dispatcher.dispatch(picture(1));
  dispatcher.close(60s);
  CHECK(diary.lines() == Lines{"a open", "a 1", "a close"});
  CHECK(log.all() == Lines{"a was added twice; the second time is ignored"});
}

TEST_CASE("a callback whose name() throws is not added") {
  struct Nameless : Callback {
    std::string name() const override { throw std::runtime_error("who am I?"); }
  };
  Dispatcher dispatcher(1 << 20, no_limit());
  CHECK_THROWS_AS(dispatcher.add(std::make_shared<Nameless>(), {}), std::runtime_error);
  CHECK(dispatcher.empty());
}

TEST_CASE("at the end everything queued is shown, and callbacks close in the reverse order of their adding") {
  Diary diary;
  Gate gate;
  std::vector<std::shared_ptr<InMemory>> callbacks;
  {
    Dispatcher dispatcher(1 << 20, no_limit());
    for (const char* name : {"a", "b", "c", "d", "e"}) {
      callbacks.push_back(std::make_shared<InMemory>(name, diary));
      callbacks.back()->on_show = [&](const Picture&) { gate.wait(); };
      dispatcher.add(callbacks.back(), {});
    }
    for (int i = 0; i < 10; ++i) dispatcher.dispatch(picture(i));
    REQUIRE(eventually([&] { return gate.waiting() == 5; }));
    std::thread opener([&] {
      std::this_thread::sleep_for(20ms);
      gate.open();
    });
    dispatcher.close(60s);
    opener.join();
    for (const auto& state : dispatcher.states()) CHECK(state.shown == 10);
    dispatcher.close(60s);  // once more does nothing
  }
  const auto lines = diary.lines();
  CHECK(lines.size() == 5 * 12);
  CHECK(Lines(lines.end() - 1, lines.end()) == Lines{"a close"});
  Lines closes;
  for (const auto& line : lines) {
    if (line.find("close") != std::string::npos) closes.push_back(line);
  }
  CHECK(closes == Lines{"e close", "d close", "c close", "b close", "a close"});
}

TEST_CASE("after the end nothing is added and nothing is shown") {
  Diary diary;
  const auto first = std::make_shared<InMemory>("first", diary), late = std::make_shared<InMemory>("late", diary);
  Dispatcher dispatcher(1 << 20, no_limit());
  dispatcher.add(first, {});
  dispatcher.close(60s);
  dispatcher.add(late, {});
  dispatcher.dispatch(picture(1));
  CHECK(diary.lines() == Lines{"first open", "first close"});
  CHECK(dispatcher.states().size() == 1);
}

TEST_CASE("a callback that hangs is left behind with one line, and the others are closed") {
  LogLines log;
  Diary diary;
  Gate gate;  // opened at the end, so that the test leaves no thread
  const auto first = std::make_shared<InMemory>("first", diary);
  auto hangs = std::make_shared<InMemory>("hangs", diary);
  const auto where = GENERATE(as<std::string>(), "open", "show", "close");
  const auto hang = [&] { gate.wait(); };
  if (where == "open") hangs->on_open = hang;
  if (where == "show") hangs->on_show = [hang](const Picture&) { hang(); };
  if (where == "close") hangs->on_close = hang;
  std::weak_ptr<InMemory> alive = hangs;
  const auto start = steady_clock::now();
  {
    Dispatcher dispatcher(1 << 20, no_limit());
    dispatcher.add(first, {});
    dispatcher.add(hangs, {});
    dispatcher.dispatch(picture(1));
    dispatcher.dispatch(picture(2));
    REQUIRE(eventually([&] { return state_of(dispatcher, 0).shown == 2; }));
    if (where != "close") REQUIRE(eventually([&] { return gate.waiting() == 1; }));
    dispatcher.close(1s);
    CHECK(state_of(dispatcher, 0).shown == 2);
    CHECK_FALSE(state_of(dispatcher, 0).open);
  }
  CHECK(steady_clock::now() - start < kDeadline);
  CHECK(log.all() == Lines{"hangs did not finish within 1 s and is left behind"});
  const auto lines = diary.lines();
  CHECK(std::count(lines.begin(), lines.end(), "first close") == 1);
  // When it goes on after all, it shows what it has, closes, and ends.
  hangs.reset();
  CHECK_FALSE(alive.expired());
  gate.open();
  REQUIRE(eventually([&] { return alive.expired(); }));
  const auto after = diary.lines();
  CHECK(std::count(after.begin(), after.end(), "hangs 2") == 1);
  CHECK(std::count(after.begin(), after.end(), "hangs close") == 1);
}

TEST_CASE("a callback that hangs leaves a slow one its share of the time") {
  LogLines log;
  Diary diary;
  Gate gate;
  const auto slow = std::make_shared<InMemory>("slow", diary);
  auto hangs = std::make_shared<InMemory>("hangs", diary);
  slow->on_close = [] { std::this_thread::sleep_for(300ms); };
  hangs->on_show = [&](const Picture&) { gate.wait(); };
  const std::weak_ptr<InMemory> alive = hangs;
  {
    Dispatcher dispatcher(1 << 20, no_limit());
    dispatcher.add(slow, {});
    dispatcher.add(std::move(hangs), {});  // is asked first
    dispatcher.dispatch(picture(1));
    REQUIRE(eventually([&] { return gate.waiting() == 1; }));
    dispatcher.close(2s);
  }
  CHECK(log.all() == Lines{"hangs did not finish within 2 s and is left behind"});
  gate.open();
  REQUIRE(eventually([&] { return alive.expired(); }));
}

// Run by the next test in a process of its own.
TEST_CASE("child: a callback hangs", "[.child]") {
  static Diary diary;
  Dispatcher dispatcher(1 << 20, no_limit());
  const auto hangs = std::make_shared<InMemory>("hangs", diary);
  std::atomic<bool> begun{false};
  hangs->on_show = [&begun](const Picture&) {
    begun = true;
    for (;;) pause();
  };
  dispatcher.add(hangs, {});
  dispatcher.dispatch(picture(1));
  REQUIRE(eventually([&] { return begun.load(); }));
  dispatcher.close(50ms);
}

TEST_CASE("a process with a callback that hangs for ever ends all the same") {
  std::vector<std::string> arguments = {"/proc/self/exe", "child: a callback hangs"};
  std::vector<char*> argv;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  REQUIRE(posix_spawn(&child, argv[0], &actions, nullptr, argv.data(), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  int status = -1;
  const bool ended = eventually([&] { return waitpid(child, &status, WNOHANG) == child; });
  if (!ended) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
  }
  CHECK(ended);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("callbacks are added, asked and shown pictures by several threads at once") {
  Diary diary;
  Dispatcher dispatcher(3 * kBytes, no_limit());
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        if (i % 10 == 0) dispatcher.add(std::make_shared<InMemory>("c" + std::to_string(t * 20 + i), diary), {});
        dispatcher.dispatch(picture(t * 20 + i));
        dispatcher.states();
        dispatcher.needs();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  dispatcher.close(60s);
  const auto states = dispatcher.states();
  CHECK(states.size() == 6);
  for (const auto& state : states) {
    CHECK(state.errors == 0);
    CHECK(state.queued_bytes == 0);
    CHECK_FALSE(state.open);
  }
}

TEST_CASE("what was billed is paid by quiet, from where it began or the bill before it is paid") {
  BackgroundBudget budget(0.1);
  const auto begun = steady_clock::now();
  CHECK(budget.paid_until() < begun);
  budget.bill(0.5, begun);
  CHECK(budget.paid_until() == begun + 5s);
  budget.bill(0.2, begun + 3s);  // used before the first was paid
  CHECK(budget.paid_until() == begun + 7s);
  budget.bill(0.1, begun + 10s);  // and after: idle time is not saved up
  CHECK(budget.paid_until() == begun + 11s);
  for (const double none : {0.0, -1.0, std::nan("")}) budget.bill(none, begun + 20s);
  CHECK(budget.paid_until() == begun + 11s);
  CHECK(budget.spent() == Catch::Approx(0.8));
  budget.bill(1e300, begun);
  CHECK(budget.paid_until() == begun + 11s + 1h);
}

TEST_CASE("where the training's own threads take every core a part of the budget is left, else all of it") {
  BackgroundBudget budget(0.24, /*cores=*/4);
  CHECK(budget.share() == 0.24);
  auto now = steady_clock::now();
  double process = 100;
  budget.look_at_process(process, now);
  CHECK(budget.share() == 0.24);  // nothing to compare with
  const auto second_of = [&](double cores) {
    now += 1s;
    process += cores;
    budget.look_at_process(process, now);
    return budget.share();
  };
  CHECK(second_of(1) == 0.24);
  CHECK(second_of(3.3) == 0.24);
  const double busy = second_of(4);
  CHECK(busy <= 0.24 / 8);
  CHECK(busy >= 0.24 / 20);
  const double between = second_of(3.6);
  CHECK(between > busy);
  CHECK(between < 0.24);
  // What our own threads use is not the training's.
  budget.bill(0.9, now);
  CHECK(second_of(4) == 0.24);
  // Looks that follow at once wait for the next.
  CHECK(second_of(4) == busy);
  budget.look_at_process(process, now + 1ms);
  CHECK(budget.share() == busy);
  // A bill is paid at the rate of its time.
  const auto begun = budget.paid_until() + 10s;
  budget.bill(0.01, begun);
  CHECK(std::chrono::duration<double>(budget.paid_until() - begun).count() == Catch::Approx(0.01 / busy));
}

TEST_CASE("CPU time of the workers is billed") {
  Diary diary;
  const auto busy = std::make_shared<InMemory>("busy", diary);
  busy->on_show = [](const Picture&) {
    timespec begin{}, now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    do {
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    } while (now.tv_sec - begin.tv_sec + 1e-9 * (now.tv_nsec - begin.tv_nsec) < 0.05);
  };
  const auto budget = std::make_shared<BackgroundBudget>(1.0);
  Dispatcher dispatcher(1 << 20, budget);
  const auto begun = steady_clock::now();
  dispatcher.add(busy, {});
  CHECK(budget->spent() < 0.05);
  dispatcher.dispatch(picture(1));
  dispatcher.dispatch(picture(2));
  REQUIRE(eventually([&] { return state_of(dispatcher).shown == 2; }));
  CHECK(budget->spent() >= 0.1);
  CHECK(budget->spent() < 10);
  CHECK(budget->paid_until() >= begun + 100ms);
}
