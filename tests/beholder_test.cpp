// The face, as a training loop meets it: what is attached and passed is shown, settings act from any thread, nothing
// that goes wrong stops the training, and the promises of time are kept. On the CPU; devices are no_wait_test's.
#include "beholder/beholder.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <time.h>
#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/moving_rate.h"
#include "catch.h"
#include "log_lines.h"
#include "odd_tensors.h"
#include "own_threads.h"

namespace {

using namespace std::chrono_literals;
using namespace beholder;
using std::chrono::steady_clock;
using torch::Tensor;

// A machine that others use as well must not make these fail.
constexpr auto kDeadline = 30s;

/// Calls `meanwhile` until `condition` is true; false when the deadline has passed.
bool eventually(const std::function<bool()>& condition, const std::function<void()>& meanwhile = {}) {
  for (const auto end = steady_clock::now() + kDeadline; steady_clock::now() < end;) {
    if (condition()) return true;
    if (meanwhile) meanwhile();
    std::this_thread::sleep_for(500us);
  }
  return condition();
}

// ---- what is trained

struct NetImpl : torch::nn::Module {
  torch::nn::Conv2d conv{torch::nn::Conv2dOptions(1, 4, 3)};
  torch::nn::Linear fc{4 * 6 * 6, 3};

  NetImpl() {
    register_module("conv", conv);
    register_module("fc", fc);
  }
  /// N × 1 × 8 × 8 to N × 3.
  Tensor forward(const Tensor& x) { return fc(conv(x).relu().flatten(1)); }
};
TORCH_MODULE(Net);

Tensor batch(int64_t size = 5) { return torch::randn({size, 1, 8, 8}); }

void forward_backward(Net& net) {
  net->zero_grad();
  net->forward(batch()).pow(2).mean().backward();
}

// ---- what is shown

using Shown = std::shared_ptr<const Picture>;
using Names = std::vector<std::string>;

class Collector : public Callback {
 public:
  explicit Collector(bool film = false) : film_(film) {}
  std::string name() const override { return film_ ? "film collector" : "collector"; }
  Needs needs() const override { return {film_, /*statistics=*/true}; }
  void open(const Run& opened) override {
    run = opened;
    opened_ = true;
  }
  void show(Shown picture) override {
    std::lock_guard<std::mutex> lock(mutex_);
    pictures_.push_back(std::move(picture));
  }

  std::vector<Shown> pictures() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return pictures_;
  }
  size_t count() const { return pictures().size(); }
  Shown last() const { return count() > 0 ? pictures().back() : nullptr; }
  bool opened() const { return opened_; }

  Run run;  // once opened

 private:
  const bool film_;
  std::atomic<bool> opened_{false};
  mutable std::mutex mutex_;
  std::vector<Shown> pictures_;  // guarded by mutex_
};

std::string logdir() { return std::string(BEHOLDER_BINARY_DIR) + "/tests/beholder_face"; }

/// Small pictures, 60 a second; no budget stands between a test and its pictures.
Options quick(Values values = Values::Parameters) {
  Options options;
  options.canvas_width = 480;
  options.canvas_height = 320;
  options.max_overhead = 1;
  options.max_background = 64;
  options.settings.values = values;
  options.settings.fps = 60;
  return options;
}

/// A Beholder with a callback that keeps what it sees.
struct Watched {
  std::shared_ptr<Collector> collector = std::make_shared<Collector>();
  beholder::Beholder beholder;

  explicit Watched(Options options = quick()) : beholder(logdir(), std::move(options)) { beholder.add(collector); }

  /// Calls `step` (an update() where there is none) until a picture comes that was captured after this call and that
  /// `right` likes; nullptr when none does.
  Shown next(const std::function<bool(const Picture&)>& right, const std::function<void()>& step = {}) {
    const auto begun = std::chrono::system_clock::now();
    Shown found;
    eventually(
        [&] {
          const Shown last = collector->last();
          if (last && last->time >= begun && right(*last)) found = last;
          return found != nullptr;
        },
        step ? step : [this] { beholder.update(); });
    return found;
  }
  Shown next(const std::function<void()>& step = {}) {
    return next([](const Picture&) { return true; }, step);
  }
  /// Waits until everything captured was shown.
  bool settle() {
    return eventually([&] {
      const State state = beholder.state();
      return state.captured <= state.rendered && static_cast<int64_t>(collector->count()) == state.rendered;
    });
  }
};

Names names(const Shown& picture) { return picture ? *picture->names : Names{"no picture came"}; }

const SectionInfo* section(const Shown& picture, const std::string& name) {
  if (!picture) return nullptr;
  for (const auto& info : picture->sections) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

/// The section shows this tensor, as far as its extremes tell.
bool shows(const Shown& picture, const std::string& name, const Tensor& tensor) {
  const SectionInfo* info = section(picture, name);
  if (!info || info->shape != tensor.sizes().vec()) return false;
  const Tensor values = tensor.detach().to(torch::kFloat);
  return info->statistics.min == values.min().item<float>() && info->statistics.max == values.max().item<float>();
}

const Names kNet = {"conv.weight", "conv.bias", "fc.weight", "fc.bias"};

Names with_prefix(const std::string& prefix, Names all) {
  for (auto& name : all) name = prefix + "." + name;
  return all;
}
Names operator+(Names a, const Names& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

int entries_of(const char* directory) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) count += entry.path().empty() ? 0 : 1;
  return count;
}

double thread_cpu() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double process_cpu() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds(steady_clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

// ---- attach, detach

TEST_CASE("a module is attached as a holder, as a shared_ptr and by reference, the one on the stack too") {
  Watched watched;
  Net net;
  NetImpl on_stack;
  SECTION("holder") { watched.beholder.attach(net); }
  SECTION("shared_ptr") { watched.beholder.attach(net.ptr()); }
  SECTION("base pointer") { watched.beholder.attach(std::shared_ptr<torch::nn::Module>(net.ptr())); }
  SECTION("reference") { watched.beholder.attach(*net); }
  SECTION("stack") { watched.beholder.attach(on_stack); }
  SECTION("twice is once") {
    watched.beholder.attach(net);
    watched.beholder.attach(*net);
  }
  const Shown picture = watched.next();
  CHECK(names(picture) == kNet);
  REQUIRE(section(picture, "conv.weight"));
  CHECK(section(picture, "conv.weight")->kind == Kind::ConvWeight);
  CHECK(section(picture, "fc.weight")->kind == Kind::LinearWeight);
  CHECK(section(picture, "fc.bias")->kind == Kind::Vector);
  CHECK(section(picture, "fc.weight")->complete);
}

TEST_CASE("several modules have a name each; without one they are told apart, and a line says how") {
  LogLines log;
  Watched watched;
  Net a, b, c;
  SECTION("names") {
    watched.beholder.attach(a, "a");
    watched.beholder.attach(b, "b");
    CHECK(names(watched.next()) == with_prefix("a", kNet) + with_prefix("b", kNet));
    watched.beholder.attach(a, "other");  // gets its new name
    CHECK(names(watched.next()) == with_prefix("b", kNet) + with_prefix("other", kNet));
    CHECK(log.all().empty());
  }
  SECTION("no names") {
    watched.beholder.attach(a);
    watched.beholder.attach(b);
    watched.beholder.attach(c);
    CHECK(names(watched.next()) == kNet + with_prefix("module2", kNet) + with_prefix("module3", kNet));
    CHECK(log.count("give each one a name") == 2);
  }
  SECTION("the same name") {
    watched.beholder.attach(a, "net");
    watched.beholder.attach(b, "net");
    CHECK(names(watched.next()) == with_prefix("net", kNet) + with_prefix("net_2", kNet));
    CHECK(log.count("a second module is attached as 'net'") == 1);
  }
}

TEST_CASE("names that two attached modules would give to what is inside of them are told apart") {
  LogLines log;
  Watched watched(quick());
  torch::nn::Sequential outer;
  outer->push_back("g", Net());
  outer->push_back("h", Net());
  Net g, deeper;
  SECTION("the child of one, and another that is attached under that name") {
    watched.beholder.attach(outer, "outer");
    watched.beholder.attach(g, "outer.g");
    watched.beholder.attach(deeper, "outer.h");
    const Names shown = with_prefix("outer.g", kNet) + with_prefix("outer.h", kNet) + with_prefix("outer.g_2", kNet) +
                        with_prefix("outer.h_2", kNet);
    CHECK(names(watched.next()) == shown);
    CHECK(log.count("are those of another attached module's children; it is called outer.g_2") == 1);
    CHECK(log.count("it is called outer.h_2") == 1);
    // Activations have the same names.
    watched.beholder.settings().edit([](Settings& s) { s.values = Values::Activations; });
    const auto step = [&] {
      outer->children()[0]->as<Net>()->forward(batch());
      g->forward(batch());
      watched.beholder.update();
    };
    CHECK(watched.next(
        [](const Picture& p) { return p.settings.values == Values::Activations && p.names->size() == 4; }, step));
    CHECK(names(watched.collector->last()) == Names{"outer.g.conv", "outer.g.fc", "outer.g_2.conv", "outer.g_2.fc"});
  }
  SECTION("one without a name, either way round") {
    watched.beholder.attach(g, "g");
    watched.beholder.attach(outer);
    CHECK(names(watched.next()) ==
          with_prefix("g", kNet) + with_prefix("module2.g", kNet) + with_prefix("module2.h", kNet));
    CHECK(log.count("without a name") == 1);
  }
  SECTION("a module that is reached twice has its first name") {
    watched.beholder.attach(outer);
    watched.beholder.attach(outer->ptr(0), "g");
    CHECK(names(watched.next()) == with_prefix("g", kNet) + with_prefix("h", kNet));
    CHECK(log.all().empty());
  }
  SECTION("a name that is free again stays as it is as long as both are there") {
    watched.beholder.attach(outer);
    watched.beholder.attach(g, "g");
    CHECK(names(watched.next()).size() == 12);
    watched.beholder.detach(*outer);
    CHECK(names(watched.next([](const Picture& p) { return p.names->size() == 4; })) == with_prefix("g", kNet));
  }
}

TEST_CASE("nothing is attached by a null module or an empty holder, and a line says so") {
  LogLines log;
  Watched watched;
  watched.beholder.attach(std::shared_ptr<torch::nn::Module>());
  watched.beholder.attach(Net(nullptr));
  watched.beholder.detach(Net(nullptr));
  CHECK(log.count("null module") == 2);
  const Shown picture = watched.next();
  REQUIRE(picture);
  CHECK(picture->message == "nothing attached: call attach(model)");
}

TEST_CASE("a module is shown until it is detached") {
  Watched watched;
  Net a, b;
  watched.beholder.attach(a, "a");
  watched.beholder.attach(b, "b");
  CHECK(names(watched.next()).size() == 8);
  watched.beholder.detach(*b);
  CHECK(names(watched.next()) == with_prefix("a", kNet));
  watched.beholder.detach(b);  // not attached
  watched.beholder.detach(a);
  const Shown picture = watched.next();
  REQUIRE(picture);
  CHECK(picture->sections.empty());
  CHECK(picture->message == "nothing attached: call attach(model)");
  watched.beholder.attach(b);
  CHECK(names(watched.next()) == kNet);
}

TEST_CASE("a module may be detached and destroyed while its activations are being captured") {
  Watched watched(quick(Values::Activations));
  auto net = std::make_unique<NetImpl>();
  Net other;
  watched.beholder.attach(*net, "net");
  watched.beholder.attach(other, "other");
  const auto train = [&] {
    if (net) net->forward(batch());
    other->forward(batch());
    watched.beholder.update();
  };
  REQUIRE(watched.next(train));
  REQUIRE(eventually([] { return at::hasThreadLocalCallbacks(); }, train));  // armed
  watched.beholder.detach(*net);
  CHECK_FALSE(at::hasThreadLocalCallbacks());
  net.reset();
  for (int i = 0; i < 10; ++i) watched.beholder.update();  // nothing is captured by these
  CHECK(names(watched.next([](const Picture& p) { return p.names->size() == 2; }, train)) ==
        Names{"other.conv", "other.fc"});
  watched.beholder.detach(other);
  const Shown nothing = watched.next([](const Picture& p) { return p.names->empty(); }, train);
  REQUIRE(nothing);
  CHECK(nothing->message == "nothing attached: call attach(model), or tap(name, tensor)");
}

TEST_CASE("a module is held weakly: the owner's last pointer destroys it") {
  const auto values = GENERATE(Values::Parameters, Values::Gradients, Values::Activations);
  Watched watched(quick(values));
  std::weak_ptr<NetImpl> alive;
  Tensor weight;
  {
    Net net;
    alive = net.ptr();
    weight = net->fc->weight;
    watched.beholder.attach(net);
    REQUIRE(watched.next([](const Picture& p) { return !p.sections.empty(); },
                         [&] {
                           forward_backward(net);
                           watched.beholder.update();
                         }));
    REQUIRE(watched.settle());
  }
  CHECK(alive.expired());
  const Shown picture = watched.next([](const Picture& p) { return p.sections.empty(); });
  REQUIRE(picture);
  CHECK(picture->message.find("nothing attached") == 0);
  CHECK(weight.use_count() == 1);  // nor is a parameter kept alive
}

TEST_CASE("modules that are registered or removed later are followed") {
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  net->register_module("late", torch::nn::Linear(2, 2));
  CHECK(names(watched.next([](const Picture& p) { return p.names->size() == 6; })) ==
        kNet + Names{"late.weight", "late.bias"});
  net->register_parameter("scale", torch::ones({3}));
  CHECK(watched.next([](const Picture& p) { return p.names->size() == 7; }));
  net->unregister_module("late");
  CHECK(names(watched.next([](const Picture& p) { return p.names->size() == 5; })) == Names{"scale"} + kNet);
}

// ---- update

TEST_CASE("update() takes arrays and frames, as values and as functions") {
  Watched watched(quick(Values::Arrays));
  const Tensor one = torch::randn({4, 5}), two = torch::randn({7}), frame = torch::rand({10, 12});
  const Arrays arrays = {{"one", one}, {"two", two}};
  const Names both = {"one", "two"};
  const auto make_arrays = [&] { return Arrays{{"one", one}, {"two", two}}; };
  const std::function<Tensor()> make_frame = [&] { return frame; };
  auto& beholder = watched.beholder;
  const auto arrays_come = [&](const std::function<void()>& step) {
    const Shown picture = watched.next([](const Picture& p) { return !p.sections.empty(); }, step);
    CHECK(names(picture) == both);
    CHECK(shows(picture, "one", one));
    CHECK(shows(picture, "two", two));
  };
  const auto frame_comes = [&](const std::function<void()>& step) {
    const Shown picture = watched.next([](const Picture& p) { return !p.sections.empty(); }, step);
    CHECK(names(picture) == Names{"frame"});
    CHECK(shows(picture, "frame", frame));
  };
  const auto nothing_comes = [&](const std::string& message, const std::function<void()>& step) {
    const Shown picture = watched.next([](const Picture& p) { return p.sections.empty(); }, step);
    REQUIRE(picture);
    CHECK(picture->message == message);
  };
  arrays_come([&] { beholder.update(arrays); });
  arrays_come([&] { beholder.update({{"one", one}, {"two", two}}); });
  arrays_come([&] { beholder.update(make_arrays); });
  arrays_come([&] { beholder.update(arrays, frame); });
  arrays_come([&] { beholder.update(make_arrays, make_frame); });
  nothing_comes("no arrays passed: call update(arrays)", [&] { beholder.update(); });
  nothing_comes("no arrays passed: call update(arrays)", [&] { beholder.update(frame); });
  beholder.settings().edit([](Settings& s) { s.values = Values::Frame; });
  frame_comes([&] { beholder.update(frame); });
  frame_comes([&] { beholder.update(make_frame); });
  frame_comes([&] { beholder.update(arrays, frame); });
  frame_comes([&] { beholder.update(make_arrays, [&] { return frame; }); });
  nothing_comes("no frame passed: call update(frame)", [&] { beholder.update(); });
  nothing_comes("no frame passed: call update(frame)", [&] { beholder.update(arrays); });
  nothing_comes("the frame cannot be shown: frame (undefined)", [&] { beholder.update(Tensor()); });
  nothing_comes("the frame cannot be shown: frame (a frame is (H, W) or (3, H, W); found [4, 5, 6])", [&] {
    beholder.update(torch::zeros({4, 5, 6}));
  });
  CHECK(beholder.state().errors == 0);
}

TEST_CASE("functions are called only when what they make will be shown") {
  Watched watched(quick(Values::Parameters));
  Net net;
  watched.beholder.attach(net);
  int arrays_made = 0, frames_made = 0;
  const auto step = [&] {
    watched.beholder.update(
        [&] {
          ++arrays_made;
          return Arrays{{"a", torch::ones({3})}};
        },
        [&] {
          ++frames_made;
          return torch::ones({3, 3});
        });
  };
  for (int i = 0; i < 3; ++i) REQUIRE(watched.next(step));
  CHECK(arrays_made == 0);
  CHECK(frames_made == 0);
  watched.beholder.settings().edit([](Settings& s) { s.values = Values::Arrays; });
  REQUIRE(watched.next(step));
  CHECK(arrays_made > 0);
  CHECK(frames_made == 0);
  watched.beholder.settings().edit([](Settings& s) { s.fps = 0; });
  step();
  const int before = arrays_made;
  for (int i = 0; i < 1000; ++i) step();
  CHECK(arrays_made == before);
}

TEST_CASE("a function that throws costs one line for each text, and the training goes on") {
  LogLines log;
  Watched watched(quick(Values::Arrays));
  int calls = 0;
  const auto fails = [&]() -> Arrays {
    ++calls;
    if (calls % 2 == 0) throw 7;
    throw std::runtime_error("cannot make them\nsecond line");
  };
  REQUIRE(eventually([&] { return calls >= 6; }, [&] { watched.beholder.update(fails); }));
  CHECK(log.count("cannot make them") == 1);
  CHECK(log.count("no std::exception") == 1);
  CHECK(log.count("second line") == 0);
  CHECK(watched.beholder.state().errors == calls);
  CHECK(watched.beholder.state().captured == 0);
  const Shown picture = watched.next([&] { watched.beholder.update({{"a", torch::ones({3})}}); });
  CHECK(names(picture) == Names{"a"});
}

TEST_CASE("a function that calls update() does not begin another one") {
  Watched watched(quick(Values::Arrays));
  int calls = 0;
  const Shown picture = watched.next([&] {
    watched.beholder.update([&] {
      ++calls;
      watched.beholder.update([&] { return Arrays{{"inner", torch::ones({3})}}; });
      return Arrays{{"outer", torch::ones({3})}};
    });
  });
  CHECK(names(picture) == Names{"outer"});
  CHECK(calls > 0);
}

TEST_CASE("steps count updates, and set_step() continues a resumed run") {
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  for (int i = 0; i < 5; ++i) watched.beholder.update();
  CHECK(watched.beholder.state().updates == 5);
  CHECK(watched.beholder.state().step == 4);
  watched.beholder.set_step(1000);
  watched.beholder.update();
  CHECK(watched.beholder.state().step == 1000);
  const Shown picture = watched.next();
  REQUIRE(picture);
  CHECK(picture->step > 1000);
  CHECK(picture->step <= watched.beholder.state().step);
  CHECK(watched.beholder.state().step == 1000 + watched.beholder.state().updates - 6);
}

TEST_CASE("due() tells whether the next update() shows something") {
  Options options = quick();
  options.settings.fps = 5;
  Watched watched(options);
  Net net;
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  REQUIRE(watched.settle());
  int due = 0;
  REQUIRE(eventually([&] { return due == 5; },
                     [&] {
                       const State before = watched.beholder.state();
                       const bool said = watched.beholder.due();
                       watched.beholder.update();
                       const State after = watched.beholder.state();
                       if (!said) return;
                       ++due;
                       CHECK(after.captured + after.dropped ==
                             before.captured + before.dropped + 1);  // dropped on a machine that is too busy
                       CHECK_FALSE(watched.beholder.due());          // for the next 200 ms
                     }));
  watched.beholder.settings().edit([](Settings& s) { s.fps = 0; });
  CHECK_FALSE(watched.beholder.due());
  watched.beholder.settings().edit([](Settings& s) { s.filter = "fc*"; });  // other values: at once
  CHECK(watched.beholder.due());
}

TEST_CASE("who calls update() only when due() says so sees everything") {
  const auto values = GENERATE(Values::Parameters, Values::Gradients, Values::Activations, Values::Arrays);
  Watched watched(quick(values));
  Net net;
  watched.beholder.attach(net);
  for (int i = 0; i < 3; ++i) {
    const Shown picture = watched.next([](const Picture& p) { return !p.sections.empty(); },
                                       [&] {
                                         forward_backward(net);
                                         if (watched.beholder.due()) watched.beholder.update({{"a", torch::ones({3})}});
                                       });
    CHECK(picture);
  }
}

TEST_CASE("who calls update() only when due() says so learns that no activations come") {
  LogLines log;
  Watched watched(quick(Values::Activations));
  Net net;
  watched.beholder.attach(net);
  int updates = 0;
  const auto step = [&] {
    if (!watched.beholder.due()) return;
    ++updates;
    watched.beholder.update();
  };
  const auto begun = steady_clock::now();
  const Shown picture = watched.next(step);
  REQUIRE(picture);
  CHECK(picture->message.find("no activations seen") == 0);
  CHECK(steady_clock::now() - begun >= 1s);  // an armed forward is waited for
  CHECK(log.count("no activations seen") == 1);
  CHECK(updates >= 4);
}

TEST_CASE("bad options throw at construction, in words") {
  const auto fails_with = [](const std::string& part, const std::function<void(Options&)>& change) {
    Options options;
    change(options);
    try {
      beholder::Beholder beholder(logdir(), options);
      FAIL_CHECK("accepted: " << part);
    } catch (const std::invalid_argument& e) {
      CHECK(std::string(e.what()).find(part) != std::string::npos);
    }
  };
  fails_with("canvas_width is 3; expected 64 to 8192 pixels", [](Options& o) { o.canvas_width = 3; });
  fails_with("max_overhead is 0", [](Options& o) { o.max_overhead = 0; });
  fails_with("max_background is -1", [](Options& o) { o.max_background = -1; });
  fails_with("max_host_bytes is 5", [](Options& o) { o.max_host_bytes = 5; });
  fails_with("a canvas of 8192 x 8192 takes 3904 MiB", [](Options& o) { o.canvas_width = o.canvas_height = 8192; });
  fails_with("settings.fps is 61", [](Options& o) { o.settings.fps = 61; });
  fails_with("settings.window_size is 1", [](Options& o) { o.settings.window_size = 1; });
}

TEST_CASE("a callback that keeps all pictures ends them at max_host_bytes, and lets them come again when it lets go") {
  struct Keeps : Callback {
    std::string name() const override { return "keeps"; }
    void show(std::shared_ptr<const Picture> picture) override {
      const std::lock_guard<std::mutex> lock(mutex);
      if (keep) kept.push_back(picture);
      ++shown;
    }
    std::mutex mutex;
    std::vector<std::shared_ptr<const Picture>> kept;
    bool keep = true;
    std::atomic<int> shown{0};
  };
  const LogLines log;
  Net net;
  Options options = quick();
  options.max_host_bytes = 64 << 20;
  const auto keeps = std::make_shared<Keeps>();
  beholder::Beholder beholder(logdir(), options);
  beholder.attach(net);
  beholder.add(keeps);
  REQUIRE(eventually([&] { return log.count("no room for more") > 0; }, [&] { beholder.update(); }));
  CHECK(beholder.state().dropped > 0);
  int64_t bytes = 0;
  {
    const std::lock_guard<std::mutex> lock(keeps->mutex);
    for (const auto& picture : keeps->kept) bytes += static_cast<int64_t>(picture->rgb.size());
  }
  CHECK(bytes > (40 << 20));
  CHECK(bytes < (64 << 20));
  CHECK(beholder.state().host_bytes >= bytes);
  CHECK(beholder.state().host_bytes <= options.max_host_bytes);
  CHECK(log.count("no room for more") == 1);
  {
    const std::lock_guard<std::mutex> lock(keeps->mutex);
    keeps->keep = false;
    keeps->kept.clear();
  }
  const int before = keeps->shown;
  CHECK(eventually([&] { return keeps->shown > before + 10; }, [&] { beholder.update(); }));
  CHECK(log.count("no room for more") == 1);
  CHECK(beholder.state().errors == 0);
}

TEST_CASE("a relative logdir stays where it was given, whatever the working directory becomes") {
  namespace fs = std::filesystem;
  const fs::path before = fs::current_path();
  std::string folder = (fs::temp_directory_path() / "beholder-cwd-XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  for (const std::string logdir : {"runs/mine", ".", "", "./runs/../runs"}) {
    CAPTURE(logdir);
    fs::current_path(folder);
    Net net;
    beholder::Beholder beholder(logdir, quick());
    const auto collector = std::make_shared<Collector>();
    beholder.attach(net);
    beholder.add(collector);
    fs::current_path("/");
    CHECK(fs::path(beholder.directory()).is_absolute());
    CHECK(fs::equivalent(beholder.directory(), fs::path(folder) / logdir / "plugins" / "beholder"));
    REQUIRE(eventually([&] { return collector->count() > 0; }, [&] { beholder.update(); }));
    CHECK(collector->run.directory == beholder.directory());
    CHECK(fs::equivalent(collector->run.logdir, fs::path(folder) / logdir));
  }
  fs::current_path(before);
  fs::remove_all(folder);
}

// ---- settings

TEST_CASE("FPS: a low one is kept, 0 shows nothing new, and it goes on afterwards") {
  Options options = quick();
  options.settings.fps = 0.5;
  Watched watched(options);
  Net net;
  watched.beholder.attach(net);
  const auto begun = steady_clock::now();
  REQUIRE(eventually([&] { return watched.collector->count() >= 2; }, [&] { watched.beholder.update(); }));
  CHECK(seconds(steady_clock::now() - begun) >= 1.9);
  watched.beholder.settings().edit([](Settings& s) { s.fps = 0; });
  const int64_t captured = watched.beholder.state().captured;
  for (const auto end = steady_clock::now() + 300ms; steady_clock::now() < end;) watched.beholder.update();
  CHECK(watched.beholder.state().captured == captured);
  watched.beholder.settings().edit([](Settings& s) { s.fps = 60; });
  const auto again = steady_clock::now();
  REQUIRE(eventually([&] { return watched.collector->count() >= 12; }, [&] { watched.beholder.update(); }));
  CHECK(seconds(steady_clock::now() - again) >= 0.1);  // 60 a second, not more
  CHECK(watched.beholder.state().fps_wished == 60);
}

TEST_CASE("FPS 0 from the start shows nothing until somebody asks for something") {
  Options options = quick();
  options.settings.fps = 0;
  Watched watched(options);
  Net net;
  watched.beholder.attach(net);
  for (int i = 0; i < 100; ++i) watched.beholder.update();
  CHECK(watched.beholder.state().captured == 0);
  watched.beholder.settings().edit([](Settings& s) { s.filter = "fc*"; });
  CHECK(names(watched.next()) == Names{"fc.weight", "fc.bias"});
  REQUIRE(watched.settle());
  for (int i = 0; i < 100; ++i) watched.beholder.update();
  CHECK(watched.beholder.state().captured == 1);
}

TEST_CASE("a pause holds the live picture; the film goes on") {
  const auto film = std::make_shared<Collector>(/*film=*/true);
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  watched.beholder.add(film);
  REQUIRE(watched.next());
  watched.beholder.settings().edit([](Settings& s) { s.paused = true; });
  REQUIRE(eventually([&] { return watched.beholder.state().captured == watched.beholder.state().rendered; }));
  size_t films = film->count();
  REQUIRE(eventually([&] { return film->count() > films + 2; }, [&] { watched.beholder.update(); }));
  REQUIRE(eventually([&] { return watched.collector->last() == watched.collector->run.last_picture(); }));
  const size_t live = watched.collector->count();
  const Shown held = watched.collector->last();
  films = film->count();
  REQUIRE(eventually([&] { return film->count() > films + 5; }, [&] { watched.beholder.update(); }));
  CHECK(watched.collector->count() == live);
  CHECK_FALSE(film->last()->live);
  CHECK(watched.collector->run.last_picture() == held);
  watched.beholder.settings().edit([](Settings& s) { s.paused = false; });
  CHECK(watched.next());
  // Both see the same pictures again.
  REQUIRE(eventually([&] { return film->last() == watched.collector->last(); }));
}

TEST_CASE("while paused nothing is captured for nobody, not even for a film that could not be opened") {
  struct Broken : Collector {
    Broken() : Collector(/*film=*/true) {}
    void open(const Run&) override { throw std::runtime_error("no disk"); }
  };
  LogLines log;
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  watched.beholder.add(std::make_shared<Broken>());
  REQUIRE(watched.next());
  REQUIRE(eventually([&] { return watched.beholder.state().callbacks.at(1).errors == 1; }));
  watched.beholder.settings().edit([](Settings& s) { s.paused = true; });
  watched.beholder.update();
  const int64_t captured = watched.beholder.state().captured;
  for (const auto end = steady_clock::now() + 300ms; steady_clock::now() < end;) watched.beholder.update();
  CHECK(watched.beholder.state().captured == captured);
  CHECK_FALSE(watched.beholder.due());
  CHECK(log.count("no disk") == 1);
}

TEST_CASE("colours change without an update(): at a low FPS, at 0, and when paused") {
  LogLines log;
  Options options = quick();
  options.settings.fps = 0.5;
  Watched watched(options);
  Net net;
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  REQUIRE(watched.settle());
  const int64_t captured = watched.beholder.state().captured;
  const Shown first = watched.collector->last();
  const auto changes = [&](const std::function<void(Settings&)>& change) {
    const Shown before = watched.collector->last();
    const auto begun = steady_clock::now();
    const uint64_t revision = watched.beholder.settings().edit(change);
    REQUIRE(eventually([&] { return watched.collector->last() != before; }));
    const Shown after = watched.collector->last();
    CHECK(seconds(steady_clock::now() - begun) < 10);
    CHECK(after->recoloured);
    CHECK(after->live);
    CHECK_FALSE(after->film);
    CHECK(after->rgb != before->rgb);
    CHECK(after->step == first->step);
    CHECK(after->time == first->time);
    CHECK(after->revision == revision);
    CHECK(after->sequence > before->sequence);
  };
  changes([](Settings& s) { s.colormap = Colormap::Viridis; });
  changes([](Settings& s) { s.scaling = Scaling::ZeroCentred; });
  watched.beholder.settings().edit([](Settings& s) { s.fps = 0; });
  changes([](Settings& s) { s.colormap = Colormap::Gray; });
  watched.beholder.settings().edit([](Settings& s) { s.paused = true; });
  changes([](Settings& s) { s.colormap = Colormap::Plasma; });
  changes([](Settings& s) { s.scaling = Scaling::All; });
  watched.beholder.settings().edit([](Settings& s) { s.paused = false; });
  changes([](Settings& s) { s.colormap = Colormap::Inferno; });
  CHECK(watched.beholder.state().captured == captured);
}

TEST_CASE("colours that change while paused change the held picture, not what the film shows meanwhile") {
  const auto film = std::make_shared<Collector>(/*film=*/true);
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  watched.beholder.add(film);
  REQUIRE(watched.next());
  watched.beholder.settings().edit([](Settings& s) { s.paused = true; });
  const auto step = [&] {
    {
      const torch::NoGradGuard no_grad;
      net->fc->weight.add_(1);
    }
    watched.beholder.update();
  };
  size_t films = film->count();
  REQUIRE(eventually([&] { return film->count() > films + 3; }, step));
  const Shown held = watched.collector->last();
  watched.beholder.settings().edit([](Settings& s) { s.colormap = Colormap::Gray; });
  films = film->count();
  REQUIRE(eventually([&] { return film->count() > films + 3; }, step));
  const Shown now = watched.collector->last();
  CHECK(now->step == held->step);
  CHECK(now->rgb != held->rgb);
  CHECK(section(now, "fc.weight")->statistics.max == section(held, "fc.weight")->statistics.max);
  CHECK(section(film->last(), "fc.weight")->statistics.max > section(held, "fc.weight")->statistics.max + 2);
  CHECK(film->last()->settings.colormap == Colormap::Gray);
  for (const auto& picture : film->pictures()) CHECK_FALSE(picture->recoloured);
}

TEST_CASE("other values take one capture at the next update(), also when paused") {
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  watched.beholder.settings().edit([](Settings& s) { s.paused = true; });
  watched.beholder.update();
  REQUIRE(watched.settle());
  const int64_t captured = watched.beholder.state().captured;
  CHECK_FALSE(watched.beholder.state().waiting_for_update);
  const uint64_t revision = watched.beholder.settings().edit([](Settings& s) { s.filter = "fc*"; });
  CHECK(watched.beholder.state().waiting_for_update);
  CHECK(watched.beholder.due());
  const Shown picture = watched.next();
  CHECK(names(picture) == Names{"fc.weight", "fc.bias"});
  REQUIRE(picture);
  CHECK(picture->revision == revision);
  CHECK_FALSE(watched.beholder.state().waiting_for_update);
  REQUIRE(watched.settle());
  for (const auto end = steady_clock::now() + 200ms; steady_clock::now() < end;) watched.beholder.update();
  CHECK(watched.beholder.state().captured == captured + 1);
  watched.beholder.settings().edit([](Settings& s) { s.values = Values::Arrays, s.filter = ""; });
  const Shown arrays = watched.next([&] { watched.beholder.update({{"a", torch::ones({3})}}); });
  CHECK(names(arrays) == Names{"a"});
}

TEST_CASE("solo, page, zoom and pan never reach the film") {
  const auto film = std::make_shared<Collector>(/*film=*/true);
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  watched.beholder.add(film);
  REQUIRE(watched.next());
  const auto live_and_film = [&](const std::function<void(Settings&)>& change,
                                 const std::function<bool(const Picture&)>& right) {
    watched.beholder.settings().edit(change);
    const Shown picture = watched.next(right);
    REQUIRE(picture);
    const size_t films = film->count();
    REQUIRE(eventually([&] { return film->count() > films + 1; }, [&] { watched.beholder.update(); }));
    for (const auto& one : film->pictures()) {
      CHECK(one->sections.size() == 4);
      CHECK(one->settings.solo.empty());
      CHECK(one->settings.page == 0);
      CHECK(one->settings.zoom == 1);
    }
  };
  live_and_film([](Settings& s) { s.solo = "fc.weight"; }, [](const Picture& p) { return p.sections.size() == 1; });
  CHECK(names(watched.collector->last()) == kNet);  // all that could be shown
  live_and_film([](Settings& s) { s.zoom = 4; }, [](const Picture& p) { return p.settings.zoom == 4; });
  live_and_film([](Settings& s) { s.pan_x = 1; }, [](const Picture& p) { return p.settings.pan_x == 1; });
  live_and_film([](Settings& s) { s.solo = "", s.zoom = 1, s.pan_x = 0, s.page = 3; },
                [](const Picture& p) { return p.settings.page == 3; });
  live_and_film([](Settings& s) { s.solo = "no such section"; },
                [](const Picture& p) { return p.sections.size() == 4; });
  watched.beholder.settings().edit([](Settings& s) { s = quick().settings; });
  CHECK(watched.next([&](const Picture& p) { return p.film && p.live; }));
}

TEST_CASE("where there is nothing to show the picture says so in words") {
  Watched watched;
  const auto says = [&](const std::string& words) {
    const Shown picture = watched.next([&](const Picture& p) { return p.sections.empty() && p.message == words; });
    CHECK(picture);
    if (!picture && watched.collector->last()) UNSCOPED_INFO(watched.collector->last()->message);
    if (picture) CHECK(picture->rgb.size() == static_cast<size_t>(picture->width) * picture->height * 3);
  };
  says("nothing attached: call attach(model)");
  torch::nn::Sequential empty(torch::nn::ReLU{});
  watched.beholder.attach(empty);
  says("the attached modules own no parameters");
  watched.beholder.settings().edit([](Settings& s) { s.layout = LayoutKind::Classic; });
  says("the attached modules own no parameters");
  Net net;
  watched.beholder.attach(net, "net");
  watched.beholder.settings().edit([](Settings& s) { s.filter = "nothing*"; });
  says("the filter 'nothing*' matches none of 4 parameters");
  watched.beholder.settings().edit([](Settings& s) { s.filter = "", s.values = Values::Gradients; });
  says("no gradients yet: call update() after backward() and before zero_grad()");
  watched.beholder.settings().edit([](Settings& s) { s.values = Values::Activations; });
  says("no activations seen: run forward between two calls of update(), on the same thread or with OnThisThread");
  watched.beholder.settings().edit([](Settings& s) { s.values = Values::Arrays; });
  says("no arrays passed: call update(arrays)");
  watched.beholder.settings().edit([](Settings& s) { s.values = Values::Frame; });
  says("no frame passed: call update(frame)");
  watched.beholder.settings().edit([](Settings& s) { s.values = Values::Parameters; });
  CHECK(names(watched.next([](const Picture& p) { return !p.sections.empty(); })) == with_prefix("net", kNet));
}

TEST_CASE("everything may be changed from another thread while the training runs") {
  Watched watched;
  watched.beholder.add(std::make_shared<Collector>(/*film=*/true));
  Net net;
  watched.beholder.attach(net);
  std::atomic<bool> stop{false};
  std::thread viewer([&] {
    std::mt19937 random(1);
    while (!stop) {
      watched.beholder.settings().edit([&](Settings& s) {
        switch (random() % 10) {
          case 0: s.values = static_cast<Values>(random() % 5); break;
          case 1: s.mode = static_cast<Mode>(random() % 3); break;
          case 2: s.scaling = static_cast<Scaling>(random() % 3); break;
          case 3: s.layout = static_cast<LayoutKind>(random() % 2); break;
          case 4: s.colormap = static_cast<Colormap>(random() % 6); break;
          case 5: s.paused = random() % 2 == 0; break;
          case 6: s.solo = random() % 2 == 0 ? "fc.weight" : ""; break;
          case 7: s.filter = random() % 2 == 0 ? "fc*" : ""; break;
          case 8: s.show_all = random() % 2 == 0; break;
          case 9: s.window_size = 2 + static_cast<int>(random() % 19); break;
        }
      });
      watched.beholder.state();
      if (watched.collector->opened()) watched.collector->run.value_at(watched.beholder.state().rendered, 50, 50);
      std::this_thread::sleep_for(1ms);
    }
  });
  const auto step = [&] {
    forward_backward(net);
    watched.beholder.update({{"a", torch::randn({3})}}, torch::rand({4, 4}));
  };
  for (const auto end = steady_clock::now() + 1500ms; steady_clock::now() < end;) step();
  stop = true;
  viewer.join();
  CHECK(watched.beholder.state().errors == 0);
  CHECK(watched.beholder.state().last_error == "");
  watched.beholder.settings().set(quick(Values::Gradients).settings);
  const Shown picture =
      watched.next([](const Picture& p) { return p.names->size() == 4 && p.sections.size() == 4; }, step);
  REQUIRE(picture);
  CHECK(picture->settings.values == Values::Gradients);
  CHECK(picture->film);
}

// ---- what tensors do

TEST_CASE("the value at a pixel is exact in the tensor's own dtype") {
  Watched watched(quick(Values::Arrays));
  const std::vector<std::tuple<std::string, Tensor, std::string>> cases = {
      {"int64", torch::tensor({int64_t{9007199254740993}}), "9007199254740993"},
      {"int64 least", torch::tensor({std::numeric_limits<int64_t>::min()}), "-9223372036854775808"},
      {"int32", torch::tensor({16777217}, torch::kInt), "16777217"},
      {"uint8", torch::tensor({200}, torch::kByte), "200"},
      {"bool", torch::tensor({true}), "true"},
      {"float64", torch::tensor({1.0 / 3}, torch::kDouble), "0.3333333333333333"},
      {"large", torch::tensor({1e300}, torch::kDouble), "1e+300"},
      {"small", torch::tensor({-1e-300}, torch::kDouble), "-1e-300"},
      {"float32", torch::tensor({0.1F}), "0.1"},
      {"float16", torch::tensor({0.1F}).to(torch::kHalf), "0.099975586"},
      {"bfloat16", torch::tensor({1.5F}).to(torch::kBFloat16), "1.5"},
      {"NaN", torch::tensor({std::numeric_limits<double>::quiet_NaN()}, torch::kDouble), "NaN"},
      {"Inf", torch::tensor({-std::numeric_limits<float>::infinity()}), "-Inf"},
      {"complex64", torch::complex(torch::tensor({1.5F}), torch::tensor({-2.0F})), "1.5-2i"},
      {"complex128", torch::complex(torch::tensor({1e300}, torch::kDouble), torch::tensor({2.0}, torch::kDouble)),
       "1e+300+2i"},
  };
  const auto text_at = [&](const Shown& picture, size_t i) -> std::string {
    const Rect& place = picture->layout->sections.at(i).picture;
    std::optional<ShownValue> value;
    eventually([&] {
      value = watched.collector->run.value_at(picture->sequence, place.x + place.width / 2, place.y + place.height / 2);
      return value.has_value();
    });
    return value ? value->text : "none";
  };
  std::vector<NamedTensor> arrays;
  for (const auto& [name, tensor, text] : cases) arrays.push_back({name, tensor});
  const Shown picture = watched.next([&](const Picture& p) { return p.sections.size() == cases.size(); },
                                     [&] { watched.beholder.update(arrays); });
  REQUIRE(picture);
  REQUIRE(watched.settle());
  const Shown last = watched.collector->last();
  for (size_t i = 0; i < cases.size(); ++i) {
    INFO(std::get<0>(cases[i]));
    CHECK(last->sections[i].name == std::get<0>(cases[i]));
    CHECK(text_at(last, i) == std::get<2>(cases[i]));
  }
}

TEST_CASE("gradients: one hint where there is none, and they are shown as soon as they appear") {
  LogLines log;
  Watched watched(quick(Values::Gradients));
  Net net;
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  forward_backward(net);
  Shown picture = watched.next([](const Picture& p) { return !p.sections.empty(); });
  CHECK(names(picture) == kNet);
  CHECK(shows(picture, "fc.weight", net->fc->weight.grad()));
  for (int i = 0; i < 3; ++i) {  // update() after zero_grad()
    REQUIRE(watched.next([](const Picture& p) { return p.sections.empty(); },
                         [&] {
                           forward_backward(net);
                           for (auto& parameter : net->parameters()) parameter.mutable_grad().reset();
                           watched.beholder.update();
                         }));
  }
  CHECK(log.count("before zero_grad()") == 1);
  CHECK(log.all().size() == 1);
  net->conv->weight.set_requires_grad(false);  // frozen
  net->conv->bias.set_requires_grad(false);
  picture = watched.next([](const Picture& p) { return p.sections.size() == 2; },
                         [&] {
                           forward_backward(net);
                           watched.beholder.update();
                         });
  CHECK(names(picture) == Names{"fc.weight", "fc.bias"});
  net->conv->weight.set_requires_grad(true);  // thawed
  picture = watched.next([](const Picture& p) { return p.sections.size() == 3; },
                         [&] {
                           forward_backward(net);
                           watched.beholder.update();
                         });
  CHECK(names(picture) == Names{"conv.weight", "fc.weight", "fc.bias"});
  CHECK(log.all().size() == 1);
}

TEST_CASE("buffers are shown: running statistics, of the module that owns them") {
  Watched watched(quick(Values::Buffers));
  torch::nn::Sequential net(torch::nn::Conv2d(1, 4, 3), torch::nn::BatchNorm2d(4));
  watched.beholder.attach(net, "net");
  const auto train = [&] {
    net->forward(batch());
    watched.beholder.update();
  };
  Shown picture = watched.next(train);
  CHECK(names(picture) == Names{"net.1.running_mean", "net.1.running_var", "net.1.num_batches_tracked"});
  REQUIRE(watched.settle());
  REQUIRE(eventually(
      [&] { return shows(watched.collector->last(), "net.1.running_var", net->named_buffers()["1.running_var"]); },
      [&] { watched.beholder.update(); }));
  // One that comes later.
  net[0]->as<torch::nn::Conv2d>()->register_buffer("mask", torch::ones({3, 7}));
  picture = watched.next([](const Picture& p) { return p.sections.size() == 4; });
  CHECK(section(picture, "net.0.mask"));

  Net without;
  Watched other(quick(Values::Buffers));
  other.beholder.attach(without);
  picture = other.next();
  REQUIRE(picture);
  CHECK(picture->message == "the attached modules own no buffers");
}

TEST_CASE("optimizers: what they keep is shown under the parameter's name from their first step on") {
  namespace optim = torch::optim;
  LogLines log;
  Watched watched(quick(Values::Optimizer));
  Net net, stranger;
  watched.beholder.attach(net, "net");
  Shown picture = watched.next();
  REQUIRE(picture);
  CHECK(picture->message == "no optimizer attached: call attach(optimizer)");

  const auto trained = [&](optim::Optimizer& optimizer) {
    return [&] {
      forward_backward(net);
      optimizer.step();
      watched.beholder.update();
    };
  };
  const auto some = [](const Picture& p) { return !p.sections.empty(); };
  {
    INFO("Adam");
    optim::Adam adam(net->parameters(), optim::AdamOptions(1e-3));
    watched.beholder.attach(adam);
    picture = watched.next([](const Picture& p) { return p.message.find("no optimizer state yet") == 0; });
    REQUIRE(picture);
    picture = watched.next(some, trained(adam));
    CHECK(names(picture) == Names{"exp_avg.net.conv.weight", "exp_avg_sq.net.conv.weight", "exp_avg.net.conv.bias",
                                  "exp_avg_sq.net.conv.bias", "exp_avg.net.fc.weight", "exp_avg_sq.net.fc.weight",
                                  "exp_avg.net.fc.bias", "exp_avg_sq.net.fc.bias"});
    REQUIRE(section(picture, "exp_avg.net.conv.weight"));
    CHECK(section(picture, "exp_avg.net.conv.weight")->kind == Kind::ConvWeight);
    // With the first moment of Adam's first steps known: 0.1 g after one step from zero.
    const auto fields = [&] {
      Tensor first;
      for (const auto& [key, state] : adam.state()) {
        const auto& one = dynamic_cast<const optim::AdamParamState&>(*state);
        if (one.exp_avg().sizes() == net->fc->weight.sizes()) first = one.exp_avg();
      }
      return first;
    };
    CHECK(eventually([&] { return shows(watched.collector->last(), "exp_avg.net.fc.weight", fields()); },
                     [&] { watched.beholder.update(); }));
    watched.beholder.detach(adam);
    CHECK(watched.next([](const Picture& p) { return p.message == "no optimizer attached: call attach(optimizer)"; }));
  }
  {
    INFO("SGD with momentum, of a module that is not attached too, with a name; held weakly");
    auto parameters = net->fc->parameters();
    parameters.push_back(stranger->fc->weight);
    auto sgd = std::make_shared<optim::SGD>(parameters, optim::SGDOptions(1e-3).momentum(0.9));
    watched.beholder.attach(sgd, "sgd");
    picture = watched.next(some, [&] {
      forward_backward(stranger);
      trained (*sgd)();
    });
    CHECK(names(picture) == Names{"sgd.momentum_buffer.net.fc.weight", "sgd.momentum_buffer.net.fc.bias",
                                  "sgd.momentum_buffer.group0.param2"});
    sgd.reset();
    CHECK(watched.next([](const Picture& p) { return p.message == "no optimizer attached: call attach(optimizer)"; }));
  }
  {
    INFO("RMSprop, Adagrad and LBFGS side by side");
    optim::RMSprop rmsprop(net->conv->parameters(), optim::RMSpropOptions(1e-3).momentum(0.5).centered(true));
    optim::Adagrad adagrad(std::vector<Tensor>{net->fc->weight}, optim::AdagradOptions(1e-3));
    optim::LBFGS lbfgs(std::vector<Tensor>{net->fc->bias}, optim::LBFGSOptions(1e-3).max_iter(1));
    for (optim::Optimizer* one : {static_cast<optim::Optimizer*>(&rmsprop), static_cast<optim::Optimizer*>(&adagrad),
                                  static_cast<optim::Optimizer*>(&lbfgs)}) {
      watched.beholder.attach(*one);
    }
    picture = watched.next([](const Picture& p) { return p.sections.size() >= 10; },
                           [&] {
                             forward_backward(net);
                             rmsprop.step();
                             adagrad.step();
                             lbfgs.step([&] { return net->forward(batch()).pow(2).mean(); });
                             watched.beholder.update();
                           });
    for (const char* name :
         {"square_avg.net.conv.weight", "momentum_buffer.net.conv.weight", "grad_avg.net.conv.weight",
          "sum.net.fc.weight", "optimizer.d", "optimizer.prev_flat_grad"}) {
      INFO(name);
      CHECK(section(picture, name));
    }
    watched.beholder.detach(rmsprop), watched.beholder.detach(adagrad), watched.beholder.detach(lbfgs);
  }
  CHECK(log.all().empty());
}

namespace {

/// An optimizer as a user writes one, with a state of its own.
struct OwnState : torch::optim::OptimizerCloneableParamState<OwnState> {};
class OwnOptimizer : public torch::optim::Optimizer {
 public:
  explicit OwnOptimizer(std::vector<Tensor> parameters)
      : Optimizer(std::move(parameters), std::make_unique<torch::optim::SGDOptions>(0.1)) {}
  Tensor step(LossClosure = nullptr) override {
    torch::optim::Adam lender(param_groups()[0].params(), torch::optim::AdamOptions(0));  // whose keys are LibTorch's
    lender.step();
    for (const auto& [key, state] : lender.state()) state_[key] = std::make_unique<OwnState>();
    return {};
  }
};

}  // namespace

TEST_CASE("optimizers: a state of an unknown type costs one line, and the others are shown") {
  LogLines log;
  Watched watched(quick(Values::Optimizer));
  Net net;
  watched.beholder.attach(net);
  OwnOptimizer own(net->conv->parameters());
  torch::optim::Adam adam(net->fc->parameters(), torch::optim::AdamOptions(1e-3));
  watched.beholder.attach(own);
  watched.beholder.attach(adam);
  const auto picture = watched.next([](const Picture& p) { return !p.sections.empty(); },
                                    [&] {
                                      forward_backward(net);
                                      own.step();
                                      adam.step();
                                      watched.beholder.update();
                                    });
  CHECK(names(picture) == Names{"exp_avg.fc.weight", "exp_avg_sq.fc.weight", "exp_avg.fc.bias", "exp_avg_sq.fc.bias"});
  CHECK(log.count("are of a type that is not known here") == 1);
}

TEST_CASE("sparse gradients are shown") {
  Watched watched(quick(Values::Gradients));
  torch::nn::Embedding embedding(torch::nn::EmbeddingOptions(20, 4).sparse(true));
  watched.beholder.attach(embedding, "embedding");
  Tensor dense;
  const Shown picture = watched.next([](const Picture& p) { return !p.sections.empty(); },
                                     [&] {
                                       embedding->zero_grad();
                                       embedding->forward(torch::tensor({1, 5, 5, 7})).pow(2).sum().backward();
                                       dense = embedding->weight.grad().to_dense();
                                       watched.beholder.update();
                                     });
  CHECK(shows(picture, "embedding.weight", dense));
}

TEST_CASE("dtypes, shapes and storages that change after attach are followed") {
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  const auto is = [](const std::string& dtype) {
    return [dtype](const Picture& p) { return !p.sections.empty() && p.sections[2].dtype == dtype; };
  };
  net->to(torch::kDouble);
  CHECK(shows(watched.next(is("float64")), "fc.weight", net->fc->weight));
  net->to(torch::kBFloat16);
  CHECK(shows(watched.next(is("bfloat16")), "fc.weight", net->fc->weight));
  net->to(torch::kFloat);
  CHECK(shows(watched.next(is("float32")), "fc.weight", net->fc->weight));
  net->fc->weight.set_data(torch::randn({3, 144}));  // another storage, the same shape
  CHECK(shows(watched.next(), "fc.weight", net->fc->weight));
  net->fc->weight.set_data(torch::randn({144, 3}).t());  // other strides
  CHECK(shows(watched.next(), "fc.weight", net->fc->weight));
  net->fc->weight.set_data(torch::randn({5, 7}));  // another shape
  CHECK(
      shows(watched.next([](const Picture& p) { return p.sections[2].shape[0] == 5; }), "fc.weight", net->fc->weight));
  net->fc->weight.set_data(torch::empty({0, 7}));
  Shown picture = watched.next([](const Picture& p) { return p.sections.size() == 3; });
  CHECK(section(picture, "fc.weight") == nullptr);
  net->fc->weight.set_data(torch::randn({5, 7}));
  CHECK(shows(watched.next([](const Picture& p) { return p.sections.size() == 4; }), "fc.weight", net->fc->weight));
  CHECK(watched.beholder.state().errors == 0);
}

TEST_CASE("arrays may have another number, order, name, shape and dtype at each update") {
  Watched watched(quick(Values::Arrays));
  int64_t n = 0;
  size_t all_shown = 0;
  std::map<int64_t, Arrays> given;
  const auto step = [&] {
    Arrays arrays;
    for (int64_t i = 0; i <= n / 20 % 3; ++i) {
      arrays.push_back({"a" + std::to_string((n / 20 + i) % 4), torch::randn({n / 20 % 4 + 1, i + 2})});
    }
    given[n++] = arrays;
    watched.beholder.update(arrays);
  };
  REQUIRE(eventually([&] { return watched.collector->count() >= 20 && n > 200; }, step));
  REQUIRE(watched.settle());
  for (const auto& picture : watched.collector->pictures()) {
    const Arrays& arrays = given.at(picture->step);
    size_t shown = 0;
    for (const auto& info : picture->sections) {
      if (info.absent_since) {  // it came before, and keeps its place
        CHECK(*info.absent_since <= picture->step);
        continue;
      }
      const auto found = std::find_if(arrays.begin(), arrays.end(), [&](const auto& a) { return a.name == info.name; });
      REQUIRE(found != arrays.end());
      CHECK(info.shape == found->tensor.sizes().vec());
      CHECK(info.complete == (info.statistics.count == found->tensor.numel()));  // or its place was too small this time
      if (info.complete) CHECK(info.statistics.max == found->tensor.max().item<float>());
      ++shown;
    }
    CHECK(shown >= 1);
    all_shown += shown == arrays.size() ? 1 : 0;
  }
  CHECK(all_shown * 2 > watched.collector->count());
}

TEST_CASE("two arrays of one name are both shown") {
  Watched watched(quick(Values::Arrays));
  const Shown picture = watched.next([&] {
    watched.beholder.update({{"a", torch::full({3}, 1.0)}, {"a", torch::full({3}, 2.0)}});
  });
  REQUIRE(picture);
  REQUIRE(picture->sections.size() == 2);
  CHECK(picture->sections[0].statistics.max == 1);
  CHECK(picture->sections[1].statistics.max == 2);
}

TEST_CASE("the same parameter under two names is shown once, under the first") {
  struct Outer : torch::nn::Module {
    Outer() {
      auto inner = torch::nn::Linear(3, 2);
      register_module("first", inner);
      register_module("second", inner);
      auto other = torch::nn::Linear(3, 2);
      register_parameter("tied", inner->weight);
      register_module("other", other);
    }
  };
  Watched watched;
  Outer outer;
  watched.beholder.attach(outer);
  CHECK(names(watched.next()) == Names{"tied", "first.bias", "other.weight", "other.bias"});
}

TEST_CASE("what cannot be shown is named once in the log, and in the state") {
  LogLines log;
  Watched watched(quick(Values::Arrays));
  int64_t size = 0;
  const auto step = [&] {
    watched.beholder.update({{"good", torch::ones({size})},
                             {"hollow", torch::zeros({0, 4})},
                             {"ghost", torch::zeros({3}, torch::kMeta)},
                             {"vast", torch::zeros({1, 1}).expand({int64_t{1} << 25, int64_t{1} << 24})},
                             {"nobody", Tensor()}});
  };
  while (++size < 5) {  // each time another plan
    CHECK(watched.next([&](const Picture& p) { return p.sections.at(0).shape[0] == size; }, step));
  }
  CHECK(log.all() == Names{"not shown: hollow (empty), ghost (a meta tensor, which has no values), "
                           "vast (more than 2^48 elements), nobody (undefined)"});
  const auto left_out = watched.beholder.state().not_shown;
  REQUIRE(left_out.size() == 4);
  CHECK(left_out[0] == std::make_pair(std::string("hollow"), std::string("empty")));
  CHECK(left_out[1].first == "ghost");
  CHECK(left_out[3] == std::make_pair(std::string("nobody"), std::string("undefined")));
  const Shown all =
      watched.next([](const Picture& p) { return p.sections.size() == 2; },
                   [&] {
                     watched.beholder.update({{"good", torch::ones({3})}, {"hollow", torch::zeros({2, 4})}});
                   });
  CHECK(all);
  CHECK(watched.beholder.state().not_shown.empty());
}

TEST_CASE("names and shapes that are others at each update are a few lines in the log, and all of them in the state") {
  LogLines log;
  Watched watched(quick(Values::Arrays));
  const auto update_until_left_out = [&](const beholder::Arrays& arrays, const Names& hollow) {
    return eventually(
        [&] {
          Names left_out;
          for (const auto& [name, reason] : watched.beholder.state().not_shown) left_out.push_back(name);
          return left_out == hollow;
        },
        [&] { watched.beholder.update(arrays); });
  };
  const Tensor good = torch::rand({4, 4});
  for (int image = 0; image < 40; ++image) {
    const std::string boxes = "boxes of image" + std::string(image, 'e'), mask = "mask " + std::to_string(image);
    REQUIRE(update_until_left_out({{boxes, torch::zeros({0, 4})}, {mask, Tensor()}, {"good", good}}, {boxes, mask}));
  }
  CHECK(log.all().size() == 4);
  CHECK(log.all().at(0) == "not shown: boxes of image (empty), mask 0 (undefined)");
  CHECK(log.all().back().find("state().not_shown") != std::string::npos);
  // A kind that was not there yet is told, whatever its numbers are.
  for (int size = 4; size < 30; ++size) {
    const std::string name = "frame " + std::to_string(size);
    REQUIRE(update_until_left_out({{name, torch::zeros({size, 2, 2}), beholder::Kind::Frame}, {"good", good}}, {name}));
  }
  CHECK(log.all().size() == 7);
  CHECK(log.all().back().find("not shown: frame 6 (a frame is") == 0);
  CHECK(log.count("state().not_shown") == 1);
}

// ---- activations

TEST_CASE("activations: the outputs of the training forward, of exactly the step that the picture names") {
  Watched watched(quick(Values::Activations));
  Net net;
  watched.beholder.attach(net);
  torch::optim::SGD optimizer(net->parameters(), 0.1);
  std::map<int64_t, Tensor> fc, tapped;
  int64_t n = 0;
  const auto step = [&] {
    optimizer.zero_grad();
    const Tensor x = batch();
    const Tensor hidden = net->conv(x).relu();
    CHECK(watched.beholder.tap("relu", hidden).is_same(hidden));
    const Tensor out = net->fc(hidden.flatten(1));
    tapped[n] = hidden.detach();
    fc[n] = out.detach();
    out.pow(2).mean().backward();
    optimizer.step();
    watched.beholder.update();
    ++n;
  };
  REQUIRE(eventually([&] { return watched.collector->count() >= 6; }, step));
  REQUIRE(watched.settle());
  for (const auto& picture : watched.collector->pictures()) {
    CHECK(names(picture) == Names{"conv", "relu", "fc"});
    CHECK(shows(picture, "fc", fc.at(picture->step)));
    CHECK(shows(picture, "relu", tapped.at(picture->step)));
    CHECK(section(picture, "fc")->kind == Kind::Activation);
  }
  CHECK(watched.beholder.state().errors == 0);
}

namespace {

/// Taps inside, and knows no Beholder.
struct TappingImpl : torch::nn::Module {
  torch::nn::Linear fc{3, 2};
  TappingImpl() { register_module("fc", fc); }
  Tensor forward(const Tensor& x) { return beholder::tap(std::string("out"), fc(beholder::tap("in", x)).relu()); }
};
TORCH_MODULE(Tapping);

/// One that is copied, and whose forward runs on a thread of LibTorch's.
struct ReplicaImpl : torch::nn::Cloneable<ReplicaImpl> {
  torch::nn::Linear fc{nullptr};
  const beholder::Beholder* watched_by = nullptr;
  ReplicaImpl() { reset(); }
  void reset() override { fc = register_module("fc", torch::nn::Linear(3, 2)); }
  Tensor forward(const Tensor& x) {
    const OnThisThread watched(*watched_by, *this, "replica");
    return fc(x);
  }
};
TORCH_MODULE(Replica);

/// Runs `call` on a thread of its own, and waits for its end.
void elsewhere(const std::function<void()>& call) { std::thread(call).join(); }

}  // namespace

TEST_CASE("taps: inside of a module that knows no Beholder, in each Beholder that watches the thread") {
  Watched first(quick(Values::Activations)), second(quick(Values::Activations));
  Tapping net;
  first.beholder.attach(net);
  second.beholder.attach(net, "net");
  Tensor out;
  const auto step = [&] {
    const Tensor x = torch::randn({4, 3});
    out = net->forward(x);
    CHECK(out.sizes() == at::IntArrayRef({4, 2}));
    first.beholder.update();
    second.beholder.update();
  };
  const auto whole = [](const Picture& p) { return p.sections.size() == 3; };
  CHECK(names(first.next(whole, step)) == Names{"in", "fc", "out"});
  CHECK(names(second.next(whole, step)) == Names{"in", "net.fc", "out"});
  // What it returns is what it was given, also where nobody watches.
  const Tensor x = torch::randn({2, 2});
  elsewhere([&] { CHECK(beholder::tap("elsewhere", x).is_same(x)); });
  elsewhere([&] { CHECK(first.beholder.tap("elsewhere", x).is_same(x)); });
  REQUIRE(first.settle());
  for (const auto& picture : first.collector->pictures()) CHECK_FALSE(section(picture, "elsewhere"));
}

TEST_CASE("taps: a Beholder that has ended, or was armed on another thread, gets none") {
  Tapping net;
  const auto forward = [&] { net->forward(torch::randn({4, 3})); };
  for (int round = 0; round < 3; ++round) {
    auto watched = std::make_unique<Watched>(quick(Values::Activations));
    watched->beholder.attach(net);
    elsewhere([&] {
      forward();
      watched->beholder.update();
      forward();
    });
    forward();
    elsewhere([&] { watched.reset(); });
    forward();
  }
}

TEST_CASE("activations: a module without a name that has the class of another's name, and a child that has its class") {
  Watched watched(quick(Values::Activations));
  torch::nn::Linear unnamed(3, 3), named(3, 2);
  struct GRU : torch::nn::Module {
    Tensor h0{register_parameter("h0", torch::zeros({1, 1, 2}))};
    torch::nn::GRU inner{register_module("GRU", torch::nn::GRU(torch::nn::GRUOptions(3, 2)))};
    Tensor forward(const Tensor& x) { return std::get<0>(inner(x, torch::mul(torch::ones({1, 4, 2}), h0))); }
  };
  const auto recurrent = std::make_shared<GRU>();
  SECTION("two that are attached") {
    watched.beholder.attach(unnamed);
    watched.beholder.attach(named, "Linear");
    const Shown picture = watched.next([](const Picture& p) { return p.message.empty(); },
                                       [&] {
                                         named(unnamed(torch::ones({4, 3})));
                                         watched.beholder.update();
                                       });
    CHECK(names(picture) == Names{"Linear_2", "Linear"});
  }
  SECTION("a child") {
    watched.beholder.attach(recurrent);
    const Shown picture = watched.next([](const Picture& p) { return p.message.empty(); },
                                       [&] {
                                         recurrent->forward(torch::ones({5, 4, 3}));
                                         watched.beholder.update();
                                       });
    CHECK(names(picture) == Names{"GRU_2", "GRU"});
  }
}

TEST_CASE("threads: a training on another thread than the one that attached is shown") {
  for (const Values values : {Values::Parameters, Values::Activations}) {
    INFO(to_string(values));
    Watched watched(quick(values));
    Net net;
    watched.beholder.attach(net);  // arms this thread
    Shown picture;
    elsewhere([&] {
      picture = watched.next([](const Picture& p) { return p.sections.size() >= 2; },
                             [&] {
                               forward_backward(net);
                               watched.beholder.update();
                             });
    });
    CHECK(picture);
  }
}

TEST_CASE("threads: a forward on a worker thread is shown with OnThisThread, with the values of its step") {
  Watched watched(quick(Values::Activations));
  Net net;
  watched.beholder.attach(net);
  std::map<int64_t, Tensor> outputs;
  int64_t n = 0;
  const auto forward = [&] {
    const OnThisThread here(watched.beholder), twice_is_once(watched.beholder);
    const Tensor hidden = beholder::tap("relu", net->conv(batch()).relu());
    outputs[n] = watched.beholder.tap("out", net->fc(hidden.flatten(1))).detach();
  };
  std::function<void()> step;
  SECTION("a new thread for each step") {
    step = [&] {
      elsewhere(forward);
      watched.beholder.update();
      ++n;
    };
  }
  SECTION("the thread that calls update() as well") {
    step = [&] {
      forward();
      watched.beholder.update();
      ++n;
    };
  }
  REQUIRE(eventually([&] { return watched.collector->count() >= 4; }, step));
  REQUIRE(watched.settle());
  for (const auto& picture : watched.collector->pictures()) {
    CHECK(names(picture) == Names{"conv", "relu", "fc", "out"});
    CHECK(shows(picture, "fc", outputs.at(picture->step)));
    CHECK(shows(picture, "out", outputs.at(picture->step)));
  }
  CHECK(watched.beholder.state().errors == 0);
}

TEST_CASE("threads: where two run the same module at once both are shown; one after the other are two calls") {
  Watched watched(quick(Values::Activations));
  Net net;
  watched.beholder.attach(net);
  std::atomic<int> inside{0};
  const auto forward = [&](int size, int threads) {
    const OnThisThread here(watched.beholder);
    const Tensor hidden = net->conv(batch(size)).relu();
    // Nobody goes on before all have begun.
    for (++inside; inside % threads != 0;) std::this_thread::yield();
    net->fc(hidden.flatten(1));
  };
  const auto whole = [](const Picture& p) { return p.sections.size() == 4; };
  SECTION("at once") {
    const Shown picture = watched.next(whole, [&] {
      std::thread other([&] { forward(3, 2); });
      forward(5, 2);  // the thread that calls update() takes part
      other.join();
      inside = 0;
      watched.beholder.update();
    });
    Names all = names(picture);
    std::sort(all.begin(), all.end());
    CHECK(all == Names{"conv", "conv @2", "fc", "fc @2"});
    // Whoever came first: a thread's outputs stand under one number.
    REQUIRE(section(picture, "fc @2"));
    CHECK(section(picture, "conv")->shape[0] == section(picture, "fc")->shape[0]);
    CHECK(section(picture, "conv @2")->shape[0] == section(picture, "fc @2")->shape[0]);
  }
  SECTION("one after the other, on one thread") {
    const Shown picture = watched.next(whole, [&] {
      elsewhere([&] {
        forward(3, 1);
        forward(5, 1);
      });
      watched.beholder.update();
    });
    CHECK(names(picture) == Names{"conv", "fc", "conv #2", "fc #2"});
  }
}

TEST_CASE("threads: replicas with parameters of their own are shown where their forward says so") {
  Watched watched(quick(Values::Activations));
  Replica net;
  net->watched_by = &watched.beholder;
  watched.beholder.attach(net, "net");
  const auto step = [&] {
    // As torch::nn::parallel::data_parallel does, whose header only the CUDA build of LibTorch can compile.
    std::vector<std::shared_ptr<ReplicaImpl>> replicas;
    for (int i = 0; i < 2; ++i) replicas.push_back(std::dynamic_pointer_cast<ReplicaImpl>(net->clone()));
    at::parallel_for(0, 2, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) replicas[static_cast<size_t>(i)]->forward(torch::randn({2 + i, 3}));
    });
    watched.beholder.update();
  };
  const Shown picture = watched.next([](const Picture& p) { return p.sections.size() == 2; }, step);
  REQUIRE(picture);
  // Two threads at once, or one that runs both.
  const Names all = names(picture);
  CHECK(all[0] == "replica.fc");
  CHECK((all[1] == "replica.fc @2" || all[1] == "replica.fc #2"));
}

TEST_CASE("threads: what one thread runs under one name is shown each time, also of replicas that have gradients") {
  Watched watched(quick(Values::Activations));
  torch::nn::Linear attached(3, 2), first(3, 2), second(3, 2);
  for (auto net : {attached, first, second}) net(torch::ones({2, 3})).sum().backward();
  watched.beholder.attach(attached);
  const auto step = [&] {
    Tensor loss = attached(torch::ones({2, 3})).sum();
    for (auto& replica : {first, second}) {
      const OnThisThread here(watched.beholder, *replica);
      loss = loss + torch::nn::Linear(replica)->forward(torch::ones({2, 3})).sum();
    }
    loss = loss + watched.beholder.tap("Linear", loss.reshape({1}));
    loss.sum().backward();
    watched.beholder.update();
  };
  const Shown picture = watched.next([](const Picture& p) { return p.sections.size() >= 4; }, step);
  REQUIRE(picture);
  CHECK(names(picture) == Names{"Linear", "Linear #2", "Linear #3", "Linear (tap)"});
}

TEST_CASE("threads: of replicas whose gradients are summed up over several forwards one forward is shown") {
  Watched watched(quick(Values::Activations));
  torch::nn::Linear attached(3, 2), first(3, 2), second(3, 2);
  watched.beholder.attach(attached);
  const auto step = [&] {
    for (int forward = 0; forward < 2; ++forward) {
      Tensor loss = attached(torch::ones({2, 3})).sum();
      for (auto& replica : {first, second}) {
        const OnThisThread here(watched.beholder, *replica);
        loss = loss + torch::nn::Linear(replica)->forward(torch::ones({2, 3})).sum();
      }
      loss.backward();
    }
    watched.beholder.update();
  };
  for (int i = 0; i < 3; ++i) {
    const Shown picture = watched.next([](const Picture& p) { return p.sections.size() >= 3; }, step);
    REQUIRE(picture);
    CHECK(names(picture) == Names{"Linear", "Linear #2", "Linear #3"});
  }
}

TEST_CASE("threads: forwards of a thread that waits for nobody are shown whole, and end when they like") {
  std::atomic<bool> end{false};
  Net net;
  auto watched = std::make_unique<Watched>(quick(Values::Activations));
  watched->beholder.attach(net);
  std::mutex owner;  // of `watched`
  std::thread actor([&] {
    while (!end) {
      std::unique_lock<std::mutex> lock(owner);
      if (!watched) break;
      const OnThisThread here(watched->beholder);
      lock.unlock();
      const torch::NoGradGuard no_grad;
      const Tensor hidden = net->conv(batch()).relu();
      std::this_thread::sleep_for(1ms);
      net->fc(hidden.flatten(1));
    }
  });
  int whole = 0;
  CHECK(eventually(
      [&] {
        whole = 0;
        for (const auto& picture : watched->collector->pictures()) {
          whole += section(picture, "fc") && !section(picture, "fc")->absent_since ? 1 : 0;
        }
        return whole >= 5;
      },
      [&] { watched->beholder.update(); }));
  {
    std::lock_guard<std::mutex> lock(owner);  // in the middle of its forward
    watched.reset();
  }
  end = true;
  actor.join();
  CHECK(whole >= 5);
}

TEST_CASE("taps: dead units, a module's name, what is undefined, and a name that is none") {
  LogLines log;
  Watched watched(quick(Values::Activations));
  torch::nn::Linear fc(4, 3);
  watched.beholder.attach(fc, "fc");
  Tensor map = torch::rand({2, 4, 3, 3}) + 1, flat = torch::rand({6, 5}) + 1;
  map.select(1, 2).zero_();
  flat.select(1, 0).zero_();
  flat.select(1, 3).zero_();
  const Tensor scalar = torch::tensor(3.0), series = torch::rand({2, 3, 4});
  const Shown picture = watched.next([](const Picture& p) { return !p.sections.empty(); },
                                     [&] {
                                       auto& beholder = watched.beholder;
                                       fc(torch::randn({2, 4}));
                                       CHECK(beholder.tap("map", map).is_same(map));
                                       CHECK(beholder.tap("flat", flat).is_same(flat));
                                       beholder.tap("fc", torch::full({2, 2}, 5.0));
                                       beholder.tap("series", series);
                                       beholder.tap(std::string("scalar"), scalar);
                                       CHECK_FALSE(beholder.tap("nothing", Tensor()).defined());
                                       beholder.tap(nullptr, flat);
                                       beholder.update();
                                     });
  CHECK(names(picture) == Names{"fc", "map", "flat", "fc (tap)", "series", "scalar"});
  REQUIRE(section(picture, "fc (tap)"));
  CHECK(section(picture, "fc (tap)")->statistics.max == 5);
  REQUIRE(section(picture, "map")->dead_share);
  CHECK(*section(picture, "map")->dead_share == Approx(0.25));
  REQUIRE(section(picture, "flat")->dead_share);
  CHECK(*section(picture, "flat")->dead_share == Approx(0.4));
  CHECK_FALSE(section(picture, "series")->dead_share);
  CHECK_FALSE(section(picture, "fc")->dead_share);
  CHECK(log.all() == Names{"not shown: nothing (undefined)"});
}

TEST_CASE("activations: an evaluation without grad does not overwrite the training pass, in any order") {
  Watched watched(quick(Values::Activations));
  Net net;
  watched.beholder.attach(net);
  const bool before = GENERATE(true, false);
  std::map<int64_t, Tensor> trained;
  int64_t n = 0;
  const auto evaluate = [&] {
    const torch::NoGradGuard no_grad;
    net->eval();
    net->fc(torch::zeros({2, 144}));  // a part alone
    net->forward(batch(9));
    net->forward(batch(2));
    net->train();
  };
  REQUIRE(eventually([&] { return watched.collector->count() >= 4; },
                     [&] {
                       if (before) evaluate();
                       const Tensor out = net->forward(batch());
                       trained[n++] = out.detach();
                       out.sum().backward();
                       if (!before) evaluate();
                       watched.beholder.update();
                     }));
  REQUIRE(watched.settle());
  for (const auto& picture : watched.collector->pictures()) {
    CHECK(names(picture) == Names{"conv", "fc"});
    CHECK(shows(picture, "fc", trained.at(picture->step)));
  }
}

TEST_CASE("activations: a run without grad shows the first forward") {
  Watched watched(quick(Values::Activations));
  Net net;
  watched.beholder.attach(net);
  const torch::NoGradGuard no_grad;
  std::map<int64_t, Tensor> first;
  int64_t n = 0;
  REQUIRE(eventually([&] { return watched.collector->count() >= 4; },
                     [&] {
                       first[n++] = net->forward(batch());
                       net->forward(batch());
                       watched.beholder.update();
                     }));
  REQUIRE(watched.settle());
  for (const auto& picture : watched.collector->pictures()) CHECK(shows(picture, "fc", first.at(picture->step)));
}

TEST_CASE("activations: of several forwards between two updates the first is shown (accumulated gradients)") {
  Watched watched(quick(Values::Activations));
  Net net;
  watched.beholder.attach(net);
  std::map<int64_t, Tensor> first;
  int64_t n = 0;
  REQUIRE(eventually([&] { return watched.collector->count() >= 4; },
                     [&] {
                       net->zero_grad();
                       for (int part = 0; part < 3; ++part) {
                         const Tensor out = net->forward(batch());
                         if (part == 0) first[n] = out.detach();
                         out.pow(2).sum().backward();
                       }
                       watched.beholder.update();
                       ++n;
                     }));
  REQUIRE(watched.settle());
  for (const auto& picture : watched.collector->pictures()) {
    CHECK(names(picture) == Names{"conv", "fc"});
    CHECK(shows(picture, "fc", first.at(picture->step)));
  }
}

TEST_CASE("activations: a forward that throws leaves the training and the next pictures whole") {
  Watched watched(quick(Values::Activations));
  Net net;
  watched.beholder.attach(net);
  int n = 0;
  const auto step = [&] {
    if (++n % 2 == 0) {
      CHECK_THROWS(net->forward(torch::randn({5, 1, 9, 9})));  // conv runs, fc throws
    } else {
      net->forward(batch());
    }
    watched.beholder.update();
  };
  for (int i = 0; i < 3; ++i) {
    CHECK(names(watched.next([](const Picture& p) { return p.sections.size() == 2; }, step)) == Names{"conv", "fc"});
  }
  CHECK(watched.beholder.state().errors == 0);
}

TEST_CASE("activations: batches of changing sizes are shown") {
  Watched watched(quick(Values::Activations));
  Net net;
  watched.beholder.attach(net);
  int n = 0;
  const auto step = [&] {
    net->forward(batch(++n % 50 < 25 ? 5 : 3));  // the last batch of an epoch
    watched.beholder.update();
  };
  CHECK(watched.next([](const Picture& p) { return p.sections.at(0).shape[0] == 5; }, step));
  CHECK(watched.next([](const Picture& p) { return p.sections.at(0).shape[0] == 3; }, step));
}

TEST_CASE("activations: hooks are armed for the iterations that are shown, and for no other") {
  Options options = quick(Values::Activations);
  options.settings.fps = 5;
  Watched watched(options);
  Net net;
  watched.beholder.attach(net);
  int armed = 0, steps = 0;
  const auto step = [&] {
    ++steps;
    armed += at::hasThreadLocalCallbacks() ? 1 : 0;
    net->forward(batch());
    watched.beholder.update();
  };
  REQUIRE(watched.next(step));
  REQUIRE(watched.settle());
  const State before = watched.beholder.state();
  armed = steps = 0;
  REQUIRE(eventually([&] { return watched.beholder.state().captured >= before.captured + 4; }, step));
  const State after = watched.beholder.state();
  CHECK(armed <= after.captured - before.captured + after.dropped - before.dropped + 1);
  CHECK(steps > 2 * armed);
  watched.beholder.settings().edit([](Settings& s) { s.values = Values::Parameters; });
  REQUIRE(watched.next(step));
  CHECK_FALSE(at::hasThreadLocalCallbacks());
}

TEST_CASE("activations: a tensor that LibTorch cannot read is left out, and the others are shown") {
  LogLines log;
  const auto values = GENERATE(Values::Activations, Values::Arrays);
  Watched watched(quick(values));
  const Tensor numbers = torch::ones({2, 2}).to(torch::kComplexHalf);
  const Tensor odd =
      torch::sparse_coo_tensor(torch::tensor({{0, 1}, {1, 0}}), torch::ones({2}).to(torch::kComplexHalf), {2, 2});
  bool readable = true;
  try {
    odd.to_dense();
  } catch (const c10::Error&) {
    readable = false;
  }
  const auto show = [&](const Tensor& tensor, bool shown) {
    const auto is_shown = [](const Picture& p) {
      return std::any_of(p.sections.begin(), p.sections.end(), [](const auto& info) { return info.name == "odd"; });
    };
    return watched.next([&](const Picture& p) { return !p.sections.empty() && is_shown(p) == shown; },
                        [&] {
                          watched.beholder.tap("odd", tensor);
                          watched.beholder.tap("good", torch::ones({3}));
                          watched.beholder.update({{"odd", tensor}, {"good", torch::ones({3})}});
                        });
  };
  for (int i = 0; i < 3; ++i) {
    const Shown picture = show(odd, readable);
    REQUIRE(picture);
    CHECK(section(picture, "good"));
  }
  if (!readable) {  // (a LibTorch that can read it has nothing to leave out)
    CHECK(log.count("odd (cannot be read: ") == 1);
    CHECK(watched.beholder.state().errors == 1);
    CHECK(watched.beholder.state().not_shown.at(0).second.find("cannot be read: ") == 0);
  }
  CHECK(section(show(numbers, true), "odd"));  // another tensor of this name
}

TEST_CASE("a tensor whose memory was freed under its sizes is left out") {
  LogLines log;
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  net->fc->weight.storage().set_data_ptr({nullptr, torch::kCPU});
  net->fc->weight.storage().set_nbytes(0);
  const Shown picture = watched.next([](const Picture& p) { return p.sections.size() == 3; });
  CHECK(names(picture) == Names{"conv.weight", "conv.bias", "fc.bias"});
  CHECK(log.count("fc.weight (cannot be read: its memory was freed)") == 1);
}

namespace {

/// Of sizes, but without memory.
Tensor hollow(int64_t size) {
  Tensor tensor = torch::ones({size});
  tensor.storage().set_data_ptr({nullptr, torch::kCPU});
  tensor.storage().set_nbytes(0);
  return tensor;
}

/// What the last picture shows with values of its own step.
Names come(const Shown& picture) {
  Names all;
  if (picture) {
    for (const auto& info : picture->sections) {
      if (!info.absent_since) all.push_back(info.name);
    }
  }
  return all;
}

}  // namespace

TEST_CASE("a tensor that cannot be read takes no other out of a picture, however rarely update() is called") {
  LogLines log;
  Watched watched;
  Net net;
  net->fc->weight.storage().set_nbytes(0);
  watched.beholder.attach(net);
  REQUIRE(eventually([&] { return watched.beholder.state().host_bytes > 0; }));  // planned
  const auto left_out = [&] { return watched.beholder.state().not_shown; };
  for (size_t call = 1; call <= 3; ++call) {
    watched.beholder.update(beholder::Now);
    REQUIRE(watched.settle());
    REQUIRE(watched.collector->count() == call);
    CHECK(come(watched.collector->last()) == Names{"conv.weight", "conv.bias", "fc.bias"});
    if (call == 1) {
      REQUIRE(eventually([&] { return left_out().size() == 1; }));
      CHECK(left_out()[0].first == "fc.weight");
      CHECK(left_out()[0].second == "cannot be read: its memory was freed");
      std::this_thread::sleep_for(2100ms);
    } else if (call == 2) {  // it is tried again
      REQUIRE(eventually([&] { return left_out().empty(); }));
    }
  }
  CHECK(log.count("fc.weight cannot be read: its memory was freed") == 1);
  CHECK(log.count("fc.weight (cannot be read: its memory was freed)") == 1);
}

TEST_CASE("arrays that cannot be read, under another name each time, keep no picture from the others") {
  LogLines log;
  Watched watched(quick(Values::Arrays));
  REQUIRE(watched.next([&] {
    watched.beholder.update({{"good", torch::ones({3})}, {"odd", torch::ones({3})}, {"odder", torch::ones({4})}});
  }));
  REQUIRE(watched.settle());
  const size_t before = watched.collector->count();
  for (size_t call = 1; call <= 40; ++call) {
    const Arrays arrays{{"good", torch::full({3}, static_cast<float>(call))},
                        {"odd " + std::to_string(call), hollow(3)},
                        {"odder " + std::to_string(call), hollow(4)}};
    watched.beholder.update(beholder::Now, arrays);
    REQUIRE(watched.settle());
    const Shown last = watched.collector->last();
    REQUIRE(watched.collector->count() == before + call);
    CHECK(come(last) == Names{"good"});
    CHECK(section(last, "good")->statistics.max == static_cast<double>(call));
  }
  CHECK(log.count("update() failed: odd ") <= 20);  // other errors are told too
  CHECK(log.count("update() failed: another tensor cannot be read: ") == 1);
}

TEST_CASE("arrays of every dtype in every layout in one update()") {
  Arrays arrays;
  Names shown, left_out;
  for (const auto& odd : odd_tensors()) {
    arrays.push_back({odd.name, odd.tensor});
    (odd.shown.defined() ? shown : left_out).push_back(odd.name);
  }
  Options options = quick(Values::Arrays);
  options.settings.mode = GENERATE(Mode::Current, Mode::Variance, Mode::Change);
  Watched watched(options);
  const auto update = [&] {
    watched.beholder.update(beholder::Now, arrays);
    watched.settle();
  };
  REQUIRE(watched.next([&](const Picture& p) { return *p.names == shown; }, update));
  Names named;
  for (const auto& one : watched.beholder.state().not_shown) named.push_back(one.first);
  CHECK(named == left_out);
}

TEST_CASE("a tensor of any dtype and layout under a name that is planned otherwise takes no other out of a picture") {
  Watched watched(quick(Values::Arrays));
  Arrays arrays = {{"x", torch::ones({4, 6})}, {"good", torch::ones({3})}};
  const auto update = [&] {
    watched.beholder.update(beholder::Now, arrays);
    watched.settle();
  };
  const Tensor first = arrays[0].tensor;
  for (const auto& odd : odd_tensors()) {
    INFO(odd.name);
    arrays[0].tensor = first;
    REQUIRE(
        watched.next([&](const Picture& p) { return p.sections.size() == 2 && !p.sections[0].absent_since; }, update));
    const size_t before = watched.collector->count();
    arrays[0].tensor = odd.tensor;
    update();
    REQUIRE(watched.collector->count() == before + 1);
    const Names came = come(watched.collector->last());
    CHECK(std::count(came.begin(), came.end(), "good") == 1);
  }
}

TEST_CASE("where no tensor can be read the picture says so, and which") {
  Watched watched(quick(Values::Arrays));
  const Shown picture =
      watched.next([](const Picture& p) { return !p.message.empty(); },
                   [&] {
                     watched.beholder.update(beholder::Now, Arrays{{"a", hollow(3)}, {"b", hollow(4)}});
                   });
  REQUIRE(picture);
  CHECK(picture->message ==
        "none of 2 arrays can be shown: a (cannot be read: its memory was freed), "
        "b (cannot be read: its memory was freed)");
  CHECK(watched.beholder.state().last_error == "a cannot be read: its memory was freed (and 1 more)");
}

// ---- budgets

TEST_CASE("a moving rate is amount per time, however uneven the intervals") {
  MovingRate rate(0.1);
  CHECK(rate.add(1, 0.5) == Approx(2));
  double last = 0;
  for (int i = 0; i < 100; ++i) {
    rate.add(1, 0.01);
    last = rate.add(1, 0.19);
  }
  CHECK(last == Approx(10).epsilon(0.1));
  for (int i = 0; i < 100; ++i) last = rate.add(0, 0.1);
  CHECK(last < 0.01);
  CHECK(MovingRate(0.5).add(1, 0) == 0);
}

TEST_CASE("the training thread's time is kept within max_overhead, and FPS adapts", "[.long]") {
  at::set_num_threads(1);
  Options options;
  options.canvas_width = 1280;
  options.canvas_height = 720;
  options.max_overhead = 0.02;
  options.max_background = 64;
  options.settings.fps = 60;
  options.settings.layout = LayoutKind::Classic;
  options.settings.show_all = true;
  Watched watched(options);
  torch::nn::Sequential net(torch::nn::Linear(700, 700), torch::nn::Linear(700, 700), torch::nn::Linear(700, 700));
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  const State before = watched.beholder.state();
  const auto begun = steady_clock::now();
  const double cpu_begun = thread_cpu();
  double outside = 0;
  constexpr auto kTime = 3s;
  while (steady_clock::now() - begun < kTime) {
    const double cpu = thread_cpu();
    for (int i = 0; i < 1000000; ++i) asm volatile("" : : "r"(i));  // long beside the clocks themselves
    outside += thread_cpu() - cpu;
    watched.beholder.update();
  }
  const double share = (thread_cpu() - cpu_begun - outside) / seconds(kTime);
  const State state = watched.beholder.state();
  const double pictures_per_second = static_cast<double>(state.captured - before.captured) / seconds(kTime);
  INFO("share " << share << " (says " << state.overhead << "), " << pictures_per_second
                << " pictures a second, an update takes " << state.update_seconds << " s");
  CHECK(share < 2.5 * options.max_overhead);  // with the clocks of this test
  CHECK(state.captured > before.captured);
  CHECK(state.overhead < 2 * options.max_overhead);
  CHECK(state.max_overhead == options.max_overhead);
  CHECK(pictures_per_second < std::max(1.0, 4 * options.max_overhead / state.update_seconds));
}

TEST_CASE("the CPU time of our own threads is kept within max_background, and FPS adapts", "[.long]") {
  at::set_num_threads(1);
  Options options;
  options.max_overhead = 1;
  options.max_background = 0.1;
  options.settings.fps = 60;
  Watched watched(options);
  struct Busy : Callback {
    std::string name() const override { return "busy"; }
    void show(Shown) override {
      for (const double begun = thread_cpu(); thread_cpu() - begun < 0.01;) {
      }
    }
  };
  watched.beholder.add(std::make_shared<Busy>());
  Net net;
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  const State before = watched.beholder.state();
  const double cpu_begun = process_cpu() - thread_cpu();
  const auto begun = steady_clock::now();
  constexpr auto kTime = 3s;
  while (steady_clock::now() - begun < kTime) {
    watched.beholder.update();
    std::this_thread::sleep_for(1ms);
  }
  const double share = (process_cpu() - thread_cpu() - cpu_begun) / seconds(steady_clock::now() - begun);
  const State state = watched.beholder.state();
  INFO("share " << share << " (says " << state.background << ")");
  // What a busy machine delays is paid for later, and these are but 3 seconds.
  CHECK(share < 2.5 * options.max_background);
  CHECK(state.captured > before.captured + 3);
  CHECK(state.background < 3 * options.max_background);
  CHECK(state.max_background == options.max_background);
  CHECK(static_cast<double>(state.captured - before.captured) / seconds(kTime) < 20);
  CHECK(state.fps_real < 20);
}

TEST_CASE("our own threads get what the training's leave of a core, and push none off it when they wake") {
  const int policy = ::sched_getscheduler(0), niceness = ::getpriority(PRIO_PROCESS, 0);
  Watched watched(quick());
  Net net;
  watched.beholder.attach(net);
  REQUIRE(watched.next());
  const auto threads = own_threads();
  CHECK(threads.size() >= 2);  // render, and the callback's
  for (const OwnThread& thread : threads) {
    INFO(thread.name);
    CHECK(thread.policy == (policy == SCHED_OTHER ? SCHED_BATCH : policy));
    CHECK(thread.niceness == 19);
  }
  CHECK(::getpriority(PRIO_PROCESS, 0) == niceness);
  CHECK(::sched_getscheduler(0) == policy);
}

TEST_CASE("counters: every capture is rendered and shown, and memory is told") {
  Watched watched;
  Net net;
  watched.beholder.attach(net);
  int64_t updates = 0;
  REQUIRE(eventually([&] { return watched.collector->count() >= 20; },
                     [&] {
                       watched.beholder.update();
                       ++updates;
                     }));
  REQUIRE(watched.settle());
  const State state = watched.beholder.state();
  CHECK(state.updates == updates);
  CHECK(state.step == updates - 1);
  CHECK(state.captured == state.rendered);
  REQUIRE(state.callbacks.size() == 1);
  CHECK(state.callbacks[0].name == "collector");
  CHECK(state.callbacks[0].open);
  CHECK(state.callbacks[0].shown == state.rendered);
  CHECK(state.callbacks[0].dropped == 0);
  CHECK(state.errors == 0);
  CHECK(state.host_bytes > 0);
  CHECK(state.host_bytes <= state.max_host_bytes);
  CHECK(state.device_bytes == 0);
  CHECK(state.fps_real > 0);
  CHECK(state.fps_real <= 90);
  CHECK_FALSE(state.waiting_for_update);
  uint64_t sequence = 0;
  int64_t step = -1;
  for (const auto& picture : watched.collector->pictures()) {
    CHECK(picture->sequence > sequence);
    CHECK(picture->step > step);
    sequence = picture->sequence;
    step = picture->step;
  }
}

// ---- callbacks

TEST_CASE("a callback may ask for the state, pictures and values until it is closed") {
  struct Asks : Collector {
    void show(Shown picture) override {
      state_in_show = run.state().updates;
      if (!asked) value = run.value_at(picture->sequence, at_x, at_y);
      asked = true;
      Collector::show(std::move(picture));
    }
    void close() override {
      updates_at_close = run.state().updates;
      callbacks_at_close = run.state().callbacks.size();
      last_at_close = run.last_picture();
      run.settings->get();
    }
    int64_t state_in_show = 0, updates_at_close = 0;
    size_t callbacks_at_close = 0;
    Shown last_at_close;
    bool asked = false;
    int at_x = 0, at_y = 0;
    std::optional<ShownValue> value;
  };
  const auto asks = std::make_shared<Asks>();
  Run run;
  {
    Watched watched(quick(Values::Arrays));
    const Shown first = watched.next([&] { watched.beholder.update({{"a", torch::full({4, 4}, 2.5)}}); });
    REQUIRE(first);
    asks->at_x = first->layout->sections[0].picture.x + 1;
    asks->at_y = first->layout->sections[0].picture.y + 1;
    watched.beholder.settings().edit([](Settings& s) { s.fps = 0; });
    watched.beholder.update();
    watched.beholder.add(asks);
    REQUIRE(eventually([&] { return asks->opened(); }));
    watched.beholder.settings().edit([](Settings& s) { s.filter = "a"; });
    REQUIRE(eventually([&] { return asks->count() == 1; },
                       [&] {
                         watched.beholder.update({{"a", torch::full({4, 4}, 2.5)}});
                       }));
    CHECK(asks->run.directory == watched.beholder.directory());
    CHECK(asks->run.settings.get() == &watched.beholder.settings());
    run = asks->run;
  }
  CHECK(asks->state_in_show > 0);
  REQUIRE(asks->value);
  CHECK(asks->value->value == 2.5F);
  CHECK(asks->value->index == std::vector<int64_t>{0, 0});
  CHECK(asks->updates_at_close > 0);
  CHECK(asks->callbacks_at_close == 2);
  CHECK(asks->last_at_close == asks->last());
  CHECK(run.state().updates == 0);  // the Beholder is gone: nothing to tell, and nothing breaks
  CHECK(run.last_picture() == nullptr);
  CHECK_FALSE(run.value_at(1, 10, 10));
}

TEST_CASE("failing and slow callbacks are nobody else's problem") {
  struct Fails : Collector {
    std::string name() const override { return "fails"; }
    void show(Shown) override { throw std::runtime_error("always"); }
  };
  struct Slow : Collector {
    std::string name() const override { return "slow"; }
    Overflow overflow() const override { return Overflow::KeepLatest; }
    void show(Shown picture) override {
      std::this_thread::sleep_for(100ms);
      Collector::show(std::move(picture));
    }
  };
  LogLines log;
  const auto slow = std::make_shared<Slow>();
  {
    Watched watched;
    Net net;
    watched.beholder.attach(net);
    watched.beholder.add(std::make_shared<Fails>());
    watched.beholder.add(slow);
    watched.beholder.add(nullptr);
    REQUIRE(eventually([&] { return watched.collector->count() >= 20; }, [&] { watched.beholder.update(); }));
    const State state = watched.beholder.state();
    CHECK(state.callbacks.at(1).errors > 0);
    CHECK(state.callbacks.at(1).last_error == "always");
    CHECK(state.callbacks.at(1).shown == 0);
    CHECK(state.callbacks.at(2).dropped > 0);
    CHECK(state.callbacks.at(0).dropped == 0);
  }
  CHECK(log.all() == Names{"fails: showing a picture failed: always; the training goes on"});
  REQUIRE(slow->count() > 1);
}

// ---- several, and the end

TEST_CASE("two Beholders in one process show the same module, each as its own settings say") {
  Watched first(quick(Values::Activations)), second(quick(Values::Gradients));
  Net net;
  first.beholder.attach(net);
  second.beholder.attach(net, "net");
  const auto step = [&] {
    forward_backward(net);
    first.beholder.update();
    second.beholder.update();
  };
  CHECK(names(first.next([](const Picture& p) { return p.sections.size() == 2; }, step)) == Names{"conv", "fc"});
  CHECK(names(second.next([](const Picture& p) { return p.sections.size() == 4; }, step)) == with_prefix("net", kNet));
  second.beholder.settings().edit([](Settings& s) { s.values = Values::Activations; });
  CHECK(names(second.next([](const Picture& p) { return p.sections.size() == 2; }, step)) ==
        Names{"net.conv", "net.fc"});
  CHECK(first.next(step));
}

TEST_CASE("each of two training threads has a Beholder of its own") {
  std::array<bool, 2> good{false, false};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 2; ++t) {
    threads.emplace_back([t, &good] {
      Watched watched(quick(Values::Activations));
      Net net;
      watched.beholder.attach(net);
      std::map<int64_t, Tensor> trained;
      int64_t n = 0;
      bool ok = eventually([&] { return watched.collector->count() >= 10; },
                           [&] {
                             const Tensor out = net->forward(batch(3 + static_cast<int64_t>(t)));
                             trained[n++] = out.detach();
                             out.sum().backward();
                             watched.beholder.update();
                           });
      ok = ok && watched.settle() && watched.beholder.state().errors == 0;
      for (const auto& picture : watched.collector->pictures())
        ok = ok && shows(picture, "fc", trained.at(picture->step));
      good[t] = ok;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(good[0]);
  CHECK(good[1]);
}

TEST_CASE("a Beholder can be moved, also while it captures") {
  const auto values = GENERATE(Values::Parameters, Values::Activations);
  const auto collector = std::make_shared<Collector>();
  Net net;
  beholder::Beholder first(logdir(), quick(values));
  first.attach(net);
  first.add(collector);
  const auto pictures_come = [&](beholder::Beholder& beholder) {
    const size_t before = collector->count();
    return eventually([&] { return collector->count() > before + 2; },
                      [&] {
                        net->forward(batch());
                        beholder.update();
                      });
  };
  CHECK(pictures_come(first));
  beholder::Beholder second(std::move(first));
  CHECK(pictures_come(second));
  second.tap("x", torch::ones({2}));
  first.update();  // moved from: does nothing
  CHECK_FALSE(first.due());
  first.tap("x", torch::ones({2}));
  const auto other = std::make_shared<Collector>();
  beholder::Beholder third(logdir(), quick(values));
  third.add(other);
  third.attach(net);
  third.update();
  third = std::move(second);  // ends the one that third was
  CHECK(pictures_come(third));
  CHECK(third.state().callbacks.size() == 1);
  std::vector<beholder::Beholder> several;
  several.push_back(std::move(third));
  several.emplace_back(logdir(), quick(values));
  several.emplace_back(logdir(), quick(values));
  CHECK(pictures_come(several[0]));
}

TEST_CASE("what was captured is shown before the destructor returns") {
  for (int i = 0; i < 20; ++i) {
    const auto collector = std::make_shared<Collector>();
    int64_t captured = 0;
    {
      Watched watched;
      watched.beholder.add(collector);
      Net net;
      watched.beholder.attach(net);
      REQUIRE(eventually([&] { return watched.beholder.state().captured >= 2; }, [&] { watched.beholder.update(); }));
      captured = watched.beholder.state().captured;
    }
    CHECK(static_cast<int64_t>(collector->count()) == captured);
  }
}

TEST_CASE("a Beholder may end on another thread, while hooks of the training thread are armed") {
  Net net;
  auto watched = std::make_unique<Watched>(quick(Values::Activations));
  watched->beholder.attach(net);
  REQUIRE(eventually([] { return at::hasThreadLocalCallbacks(); }, [&] { watched->beholder.update(); }));
  std::thread([&] { watched.reset(); }).join();
  net->forward(batch());
  net->forward(batch());
  CHECK_FALSE(at::hasThreadLocalCallbacks());
}

TEST_CASE("Beholders come and go without leaving a thread or a file") {
  Net net;
  const auto once = [&](int i) {
    Watched watched(quick(static_cast<Values>(i % 5)));
    watched.beholder.attach(net);
    for (int n = 0; n < i % 7; ++n) {
      net->forward(batch(1)).sum().backward();
      watched.beholder.update({{"a", torch::ones({3})}}, torch::ones({2, 2}));
    }
  };
  for (int i = 0; i < 20; ++i) once(i);
  const int threads = entries_of("/proc/self/task"), files = entries_of("/proc/self/fd");
  for (int i = 0; i < 200; ++i) once(i);
  REQUIRE(eventually([&] { return entries_of("/proc/self/task") <= threads; }));
  CHECK(entries_of("/proc/self/fd") <= files);
  CHECK_FALSE(at::hasThreadLocalCallbacks());
}

TEST_CASE("a logdir that cannot be created is one warning, and the training goes on") {
  LogLines log;
  const auto collector = std::make_shared<Collector>();
  beholder::Beholder beholder("/proc/no/such/place", quick());
  beholder.add(collector);
  Net net;
  beholder.attach(net);
  REQUIRE(eventually([&] { return collector->count() >= 3; }, [&] { beholder.update(); }));
  CHECK(log.all().size() == 1);
  CHECK(log.count("cannot create /proc/no/such/place/plugins/beholder") == 1);
  CHECK(beholder.directory() == "/proc/no/such/place/plugins/beholder");
}
