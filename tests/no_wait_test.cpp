// The promises to the training thread, proved on the test-only device against the real Beholder: update() waits for
// nothing, copies nothing to the host and allocates nothing on the device; pictures come without a race, each by one
// non-blocking copy, and show exactly what the CPU would have shown.
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <torch/library.h>
#include <torch/torch.h>
#include <torch/version.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
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

#include "beholder/beholder.h"
#include "beholder/graph_capture.h"
#include "beholder/history.h"
#include "beholder/narrowing.h"
#include "beholder/still_renderer.h"
#include "catch.h"
#include "fake_device/fake_device.h"

namespace {

using namespace std::chrono_literals;
using namespace beholder;
using fake_device::Counts;
using std::chrono::steady_clock;
using torch::Tensor;

const c10::Device kCpu(torch::kCPU);

// A machine that others use as well must not make these fail.
constexpr auto kDeadline = 60s;

/// True as soon as `condition` is; false when the deadline has passed.
bool eventually(const std::function<bool()>& condition) {
  for (const auto end = steady_clock::now() + kDeadline; steady_clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(500us);
  }
  return condition();
}

// ---- what is trained

struct NetImpl : torch::nn::Module {
  torch::nn::Conv2d conv{torch::nn::Conv2dOptions(1, 6, 3)};
  torch::nn::BatchNorm2d norm{6};
  torch::nn::Linear linear{6 * 5 * 5, 10};
  std::vector<NamedTensor> outputs;    // of the last forward
  beholder::Beholder* taps = nullptr;  // where the ReLU is shown

  NetImpl() {
    register_module("conv", conv);
    register_module("norm", norm);
    register_module("linear", linear);
    // One channel that is dead after the ReLU.
    const torch::NoGradGuard no_grad;
    norm->weight[2] = 0;
    norm->bias[2] = -1;
  }

  Tensor keep(const char* name, const Tensor& x) {
    outputs.push_back({name, x.detach(), Kind::Activation});
    return x;
  }

  Tensor features(const Tensor& x) {
    outputs.clear();
    Tensor h = keep("norm", norm(keep("conv", conv(x)))).relu();
    if (taps) h = keep("relu", taps->tap("relu", h));
    return torch::max_pool2d(h, 2).flatten(1);
  }

  /// Batch × 1 × 12 × 12 to batch × 10. The last layer may be on another device than the others.
  Tensor forward(const Tensor& x) { return keep("linear", linear(features(x).to(linear->weight.device()))); }
};
TORCH_MODULE(Net);

Kind kind_of(const std::string& parameter) {
  if (parameter == "conv.weight") return Kind::ConvWeight;
  return parameter == "linear.weight" ? Kind::LinearWeight : Kind::Vector;
}

/// What Beholder should have seen of `net`: copies, made on the tensors' own devices, so that nothing waits.
std::vector<NamedTensor> snapshot(const Net& net, Values values) {
  std::vector<NamedTensor> seen;
  if (values == Values::Activations) {
    for (const auto& output : net->outputs) seen.push_back({output.name, output.tensor.clone(), output.kind});
    return seen;
  }
  for (const auto& item : net->named_parameters()) {
    const Tensor shown = values == Values::Gradients ? item.value().grad() : item.value();
    if (!shown.defined()) continue;
    seen.push_back(
        {item.key(), shown.detach().clone(), kind_of(item.key()), item.key().substr(0, item.key().find('.'))});
  }
  return seen;
}

std::vector<NamedTensor> on(const c10::Device& device, std::vector<NamedTensor> tensors) {
  for (auto& named : tensors) named.tensor = named.tensor.to(device);
  return tensors;
}

// ---- what is shown

class Collector : public Callback {
 public:
  explicit Collector(bool film = false) : film_(film) {}
  std::string name() const override { return film_ ? "film collector" : "collector"; }
  Needs needs() const override { return {film_, /*statistics=*/true}; }
  void show(std::shared_ptr<const Picture> picture) override {
    std::lock_guard<std::mutex> lock(mutex_);
    pictures_.push_back(std::move(picture));
  }

  std::vector<std::shared_ptr<const Picture>> pictures() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return pictures_;
  }
  size_t count() const { return pictures().size(); }
  /// Waits until there are more than `before`.
  std::shared_ptr<const Picture> next(size_t before) const {
    return eventually([&] { return count() > before; }) ? pictures()[before] : nullptr;
  }

 private:
  const bool film_;
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const Picture>> pictures_;  // guarded by mutex_
};

/// No budget stands between these tests and their pictures.
Options options_for(Settings settings) {
  Options options;
  options.canvas_width = 320;
  options.canvas_height = 240;
  options.max_overhead = 1;
  options.max_background = 64;
  settings.fps = 60;
  options.settings = settings;
  return options;
}

Settings settings_for(Values values, LayoutKind layout = LayoutKind::Fit, Mode mode = Mode::Current) {
  Settings settings;
  settings.values = values;
  settings.layout = layout;
  settings.mode = mode;
  settings.window_size = 3;
  return settings;
}

std::string directory() { return std::string(BEHOLDER_BINARY_DIR) + "/tests/no_wait"; }

int64_t differing_bytes(const Picture& a, const Picture& b) {
  if (a.width != b.width || a.height != b.height || a.rgb.size() != b.rgb.size()) return -1;
  int64_t differing = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) differing += a.rgb[i] != b.rgb[i] ? 1 : 0;
  return differing;
}

/// Equal within 1e-9 of `scale`; NaN equals NaN.
bool near(double a, double b, double scale) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::abs(a - b) <= 1e-9 * std::max({std::abs(a), std::abs(b), scale});
}

/// What is wrong with the numbers of `found`, where those of `expected` are right.
std::string differing_numbers(const Picture& found, const Picture& expected) {
  if (found.sections.size() != expected.sections.size()) return "another number of sections";
  if (found.notice != expected.notice) return "notice: " + found.notice + " instead of " + expected.notice;
  if (found.history_size != expected.history_size) return "history size";
  if (found.change_steps != expected.change_steps) return "steps of the change";
  for (size_t i = 0; i < found.sections.size(); ++i) {
    const SectionInfo &f = found.sections[i], &e = expected.sections[i];
    const Statistics &a = f.statistics, &b = e.statistics;
    const double reach = std::isnan(b.max) ? 0 : std::max(std::abs(b.min), std::abs(b.max));
    // (Sums of squares differ in their order of summation; a small deviation is the difference of two large sums.)
    const bool equal_std = near(a.std * a.std, b.std * b.std, reach * reach);
    if (f.name != e.name) return "name: " + f.name + " instead of " + e.name;
    if (a.count != b.count || a.zeros != b.zeros || a.nans != b.nans || a.infs != b.infs || a.beyond != b.beyond) {
      return f.name + ": counts";
    }
    if (!near(a.min, b.min, 0) || !near(a.max, b.max, 0)) return f.name + ": min or max";
    if (!near(a.mean, b.mean, reach)) return f.name + ": mean";
    if (!equal_std) return f.name + ": std";
    if (!near(f.scale_low, e.scale_low, 0) || !near(f.scale_high, e.scale_high, 0)) return f.name + ": scale";
    if (f.relative_change.has_value() != e.relative_change.has_value()) return f.name + ": relative change";
    if (f.relative_change && !near(*f.relative_change, *e.relative_change, 0)) return f.name + ": relative change";
  }
  return "";
}

void check_same(const Picture& found, const Picture& expected) {
  CHECK(differing_bytes(found, expected) == 0);
  CHECK(differing_numbers(found, expected) == "");
}

/// Whether the places of `found` were made for these tensors, and for nothing larger or else.
bool same_places(const Picture& found, const Picture& expected) {
  const auto &a = found.layout->sections, &b = expected.layout->sections;
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Section& x, const Section& y) {
                      return x.picture == y.picture && x.selection.size() == y.selection.size();
                    }) &&
         std::none_of(found.sections.begin(), found.sections.end(), [](const auto& s) { return s.absent_since; });
}

/// Like check_same(); where places were made for larger tensors, or for some that did not come this time, whatever came
/// has its own numbers. (The pixels of such pictures are compared with the CPU's in a test of their own.)
void check_what_came(const Picture& found, const Picture& expected) {
  if (same_places(found, expected)) {
    check_same(found, expected);
    return;
  }
  int came = 0;
  for (const SectionInfo& info : found.sections) {
    if (info.absent_since) continue;
    const auto right = std::find_if(expected.sections.begin(), expected.sections.end(),
                                    [&](const SectionInfo& other) { return other.name == info.name; });
    INFO(info.name);
    REQUIRE(right != expected.sections.end());
    CHECK(info.shape == right->shape);
    CHECK(info.dtype == right->dtype);
    ++came;
    if (found.settings.mode != Mode::Current || info.statistics.count != right->statistics.count) continue;
    CHECK(near(info.statistics.min, right->statistics.min, 0));
    CHECK(near(info.statistics.max, right->statistics.max, 0));
    CHECK(info.statistics.zeros == right->statistics.zeros);
  }
  CHECK(came >= 1);
}

/// What all threads but this one did: the render thread's transfers and waits. (Autograd's threads have none.)
Counts others() { return fake_device::total_counts() - fake_device::counts(); }

void wait_for(const c10::Stream& waiting, const c10::Stream& awaited) {
  c10::Event event(fake_device::kType);
  event.record(awaited);
  event.block(waiting);
}

// ---- a training that is shown

class Training {
 public:
  using Arrange = std::function<void(Training&)>;

  /// `arrange` may move modules before the first forward.
  explicit Training(Settings settings, const Arrange& arrange = {}) : values(settings.values), settings_(settings) {
    torch::manual_seed(3);
    net = Net();
    x = torch::randn({4, 1, 12, 12});
    y = torch::randint(10, {4});
    if (arrange) {
      arrange(*this);
    } else {
      move(fake_device::device());
    }
    optimizer = std::make_unique<torch::optim::SGD>(net->parameters(), 0.05);
    for (int i = 0; i < 2; ++i) {  // what a forward costs without Beholder
      const Counts before = fake_device::counts();
      forward(*this);
      forward_alone = fake_device::counts() - before;
    }
    shown.emplace(directory(), options_for(settings));
    shown->attach(net);
    shown->add(collector);
  }

  void move(const c10::Device& device) {
    fake_device::move_module(*net, device);
    x = x.to(device);
    y = y.to(device);
  }

  /// One step of training, and an update() when one is due.
  void step() {
    optimizer->zero_grad();
    Counts before = fake_device::counts();
    Tensor out;
    {
      const fake_device::NoSync no_sync;
      out = forward(*this);
    }
    in_forward += fake_device::counts() - before;
    ++forwards;
    if (trains) {
      torch::cross_entropy_loss(out, y).backward();
      optimizer->step();
    }
    REQUIRE(eventually([&] { return shown->due(); }));
    snapshots[updates] = values == Values::Arrays ? arrays() : snapshot(net, values);
    if (before_update) before_update();
    before = fake_device::counts();
    const auto start = steady_clock::now();
    {
      const fake_device::NoSync no_sync;
      update(*this);
    }
    slowest_update = std::max(slowest_update, steady_clock::now() - start);
    in_update += fake_device::counts() - before;
    ++updates;
  }

  /// Trains until `pictures` more have come, and nothing is under way.
  void show(size_t pictures) {
    const size_t wanted = collector->count() + pictures;
    const auto end = steady_clock::now() + kDeadline;
    while (collector->count() < wanted) {
      step();
      REQUIRE(steady_clock::now() < end);
    }
    settle();
  }

  void settle() {
    REQUIRE(eventually([&] {
      const State state = shown->state();
      return state.captured == state.rendered && static_cast<int64_t>(collector->count()) == state.rendered;
    }));
  }

  /// From here on what is asked is counted anew.
  void count_anew() {
    in_update = in_forward = Counts();
    forwards = 0;
    others_before = others();
    rendered_before = shown->state().rendered;
  }

  int64_t rendered() const { return shown->state().rendered - rendered_before; }

  void check_that_nothing_waited() {
    REQUIRE(rendered() > 0);
    CHECK(in_update.synchronizations() == 0);
    CHECK(in_update.copies_to_host() == 0);
    CHECK(in_update.copies_to_device() == 0);
    CHECK(in_update.device_allocations == 0);
    CHECK(in_update.pinned_allocations == 0);
    CHECK(in_forward.synchronizations() == 0);
    CHECK(in_forward.copies_to_host() == 0);
    CHECK(in_forward.copies_to_device() == 0);
    CHECK(in_forward.device_allocations == forwards * forward_alone.device_allocations);
    CHECK(in_forward.pinned_allocations == 0);
    // The render thread: one copy a picture, for which it waits asleep.
    const Counts theirs = others() - others_before;
    CHECK(theirs.async_copies_to_host == rendered());
    CHECK(theirs.synchronizations() == 0);  // so no copy was a blocking one
    CHECK(theirs.pinned_allocations == 0);
    const State state = shown->state();
    CHECK(state.last_error == "");
    CHECK(state.errors == 0);
  }

  /// Ends the Beholder; no race, and every picture shows what was there when update() was called. `restarts`: steps
  /// before which the history began anew.
  void check_pictures(const std::vector<int64_t>& restarts = {}) {
    CHECK(shown->state().callbacks.at(0).dropped == 0);
    shown.reset();
    for (const auto& race : fake_device::races()) UNSCOPED_INFO(race);
    CHECK(fake_device::races().size() == 0);
    std::optional<StillRenderer> still;
    auto restart = restarts.begin();
    for (const auto& picture : collector->pictures()) {
      if (!picture->message.empty()) continue;  // a picture that says that there is nothing yet
      if (!still || (restart != restarts.end() && picture->step >= *restart)) {
        if (still) ++restart;
        still.emplace(options_for(settings_));
      }
      INFO("picture of step " << picture->step);
      REQUIRE(snapshots.count(picture->step) == 1);
      check_what_came(*picture, *still->render(on(kCpu, snapshots[picture->step]), picture->step));
    }
  }

  std::vector<NamedTensor> arrays() const {
    std::vector<NamedTensor> seen = given;
    for (auto& named : seen) named.tensor = named.tensor.clone();
    return seen;
  }

  const Values values;
  Net net{nullptr};
  Tensor x, y;
  Arrays given;  // for values arrays
  std::unique_ptr<torch::optim::SGD> optimizer;
  std::function<Tensor(Training&)> forward = [](Training& training) { return training.net->forward(training.x); };
  std::function<void(Training&)> update = [](Training& training) {
    if (training.values == Values::Arrays) {
      training.shown->update([&] { return training.given; });
    } else {
      training.shown->update();
    }
  };
  std::function<void()> before_update;  // what else a test wants to know of this step
  bool trains = true;
  const std::shared_ptr<Collector> collector = std::make_shared<Collector>();
  std::optional<beholder::Beholder> shown;

  std::map<int64_t, std::vector<NamedTensor>> snapshots;  // by step
  int64_t updates = 0, forwards = 0, rendered_before = 0;
  steady_clock::duration slowest_update{};
  Counts forward_alone, in_forward, in_update, others_before;

 private:
  const Settings settings_;
};

const Values kOfTheModel[] = {Values::Parameters, Values::Gradients, Values::Activations};
const LayoutKind kLayouts[] = {LayoutKind::Fit, LayoutKind::Classic};
const Mode kModes[] = {Mode::Current, Mode::Variance, Mode::Change};

}  // namespace

TEST_CASE("a training on a device never waits for its pictures, and they are right") {
  for (const Values values : kOfTheModel) {
    for (const LayoutKind layout : kLayouts) {
      for (const Mode mode : kModes) {
        DYNAMIC_SECTION(to_string(values) << ", " << to_string(layout) << ", " << to_string(mode)) {
          const int64_t memory_before = fake_device::live_bytes();
          {
            fake_device::reset();
            Training training(settings_for(values, layout, mode));
            training.show(2);
            training.count_anew();
            training.show(6);
            training.check_that_nothing_waited();
            if (values != Values::Activations) CHECK(training.in_update.operators > 0);
            training.check_pictures();
          }
          CHECK(fake_device::live_bytes() == memory_before);
        }
      }
    }
  }
}

TEST_CASE("update() returns while the device is frozen, and pictures come again when it goes on") {
  for (const Values values : kOfTheModel) {
    for (const LayoutKind layout : kLayouts) {
      DYNAMIC_SECTION(to_string(values) << ", " << to_string(layout)) {
        fake_device::reset();
        Training training(settings_for(values, layout, Mode::Variance));
        training.show(2);
        const int64_t dropped_before = training.shown->state().dropped;
        const size_t pictures_before = training.collector->count();
        training.in_update = Counts();
        training.slowest_update = {};

        fake_device::freeze(kDeadline);
        for (int i = 0; i < 20; ++i) training.step();
        CHECK(training.collector->count() == pictures_before);
        const State frozen = training.shown->state();
        fake_device::thaw();

        CHECK(training.slowest_update < kDeadline / 4);
        CHECK(training.in_update.synchronizations() == 0);
        CHECK(training.in_update.device_allocations == 0);
        // Two slots are filled, then every picture is dropped. (One picture of activations takes two updates.)
        const int64_t dropped = frozen.dropped - dropped_before;
        CHECK(dropped >= (values == Values::Activations ? 15 : 17));
        CHECK(frozen.captured - static_cast<int64_t>(pictures_before) <= 2);

        training.show(4);
        CHECK(training.shown->state().errors == 0);
        training.check_pictures();
      }
    }
  }
}

TEST_CASE("a plan that is made while the device is frozen holds nobody up") {
  fake_device::reset();
  Training training(settings_for(Values::Parameters));
  fake_device::freeze(kDeadline);
  for (int i = 0; i < 10; ++i) training.step();  // the first of these asks for the plan
  CHECK(training.collector->count() == 0);
  CHECK(training.slowest_update < kDeadline / 4);
  fake_device::thaw();
  training.show(2);
  training.check_pictures();
}

TEST_CASE("a tap's dead units are counted on the device") {
  fake_device::reset();
  Training training(settings_for(Values::Activations));
  training.net->taps = &*training.shown;
  training.show(3);
  training.count_anew();
  training.show(3);
  training.check_that_nothing_waited();
  const auto picture = training.collector->pictures().back();
  REQUIRE(picture->sections.size() == 4);
  REQUIRE(picture->sections[2].name == "relu");
  REQUIRE(picture->sections[2].dead_share.has_value());
  CHECK(*picture->sections[2].dead_share == Catch::Approx(1.0 / 6));
  CHECK_FALSE(picture->sections[1].dead_share.has_value());
  training.net->taps = nullptr;
  training.check_pictures();
}

TEST_CASE("a model on two devices") {
  for (const Values values : kOfTheModel) {
    for (const Mode mode : {Mode::Current, Mode::Change}) {
      DYNAMIC_SECTION(to_string(values) << ", " << to_string(mode)) {
        fake_device::reset();
        Training training(settings_for(values, LayoutKind::Fit, mode), [](Training& t) {
          fake_device::move_module(*t.net->conv, fake_device::device(0));
          fake_device::move_module(*t.net->norm, fake_device::device(0));
          fake_device::move_module(*t.net->linear, fake_device::device(1));
          t.x = t.x.to(fake_device::device(0));
          t.y = t.y.to(fake_device::device(1));
        });
        training.show(2);
        training.count_anew();
        training.show(5);
        training.check_that_nothing_waited();
        const auto& sections = training.collector->pictures().back()->sections;
        CHECK(sections.front().device == fake_device::device(0).str());
        CHECK(sections.back().device == fake_device::device(1).str());
        training.check_pictures();
      }
    }
  }
}

TEST_CASE("arrays of the CPU among those of a device") {
  for (const Mode mode : kModes) {
    DYNAMIC_SECTION(to_string(mode)) {
      fake_device::reset();
      Training training(settings_for(Values::Arrays, LayoutKind::Fit, mode));
      const c10::Device device = fake_device::device();
      training.given = {{"device float", torch::randn({20, 30}).to(device)},
                        {"host double", torch::randn({15, 15}, torch::kDouble)},
                        {"host complex", torch::randn({10, 10}, torch::kComplexFloat)},
                        {"device half", torch::randn({40}).to(torch::kHalf).to(device)},
                        {"host float", torch::randn({8, 3, 5, 5})}};
      const auto forward = training.forward;
      training.forward = [forward](Training& t) {
        for (auto& array : t.given) array.tensor.mul_(-0.75);
        return forward(t);
      };
      training.show(2);
      training.count_anew();
      training.show(5);
      training.check_that_nothing_waited();
      // One transfer for each group of one dtype on the host.
      CHECK((others() - training.others_before).async_copies_to_device == 3 * training.rendered());
      training.check_pictures();
    }
  }
}

Tensor no_hypot(const Tensor&, const Tensor&) { throw std::runtime_error("not for this device"); }

// What a device cannot narrow is known for the whole process: no other case may show complex doubles on that device.
TEST_CASE("what a device cannot convert is named, and the others are shown") {
  fake_device::reset();
  auto vendor = MAKE_TORCH_LIBRARY_IMPL(aten, PrivateUse1);
  vendor.impl("hypot", TORCH_FN(no_hypot));  // what magnitudes are made with
  const c10::Device device = fake_device::device();
  const Tensor wave = torch::full({5, 4}, c10::complex<double>(3, 4), torch::kComplexDouble);
  Training training(settings_for(Values::Arrays));
  training.given = {
      {"device float", torch::randn({20, 30}).to(device)}, {"device wave", wave.to(device)}, {"host wave", wave}};
  training.show(5);
  const State state = training.shown->state();
  REQUIRE(state.not_shown.size() == 1);
  CHECK(state.not_shown[0].first == "device wave");
  CHECK(state.not_shown[0].second.find("ComplexDouble on privateuseone") != std::string::npos);
  CHECK(state.errors == 0);
  const auto last = training.collector->pictures().back();
  REQUIRE(last->sections.size() == 2);
  CHECK(last->sections[0].name == "device float");
  CHECK(last->sections[0].statistics.count == 600);
  CHECK(last->sections[1].name == "host wave");
  CHECK(last->sections[1].statistics.min == 5);
  CHECK(training.in_update.synchronizations() == 0);
  CHECK(training.in_update.device_allocations == 0);
}

TEST_CASE("a user's arrays on the CPU beside a model on a device") {
  fake_device::reset();
  Training training(settings_for(Values::Arrays));
  training.given = {{"mine", torch::randn({20, 30})}};
  training.show(2);
  training.count_anew();
  training.show(4);
  const Counts theirs = others() - training.others_before;
  CHECK(theirs.copies_to_host() == 0);  // no device has to do with these pictures
  CHECK(theirs.copies_to_device() == 0);
  CHECK(theirs.synchronizations() == 0);
  CHECK(training.in_update.operators == 0);
  training.check_pictures();
}

TEST_CASE("a frame on a device") {
  const c10::Device device = fake_device::device();
  torch::manual_seed(1);
  const Tensor frames[] = {torch::randn({30, 40}), torch::randn({3, 30, 40}),
                           torch::randint(256, {3, 9, 7}, torch::kByte)};
  for (const Tensor& frame : frames) {
    DYNAMIC_SECTION(frame.sizes() << " " << frame.dtype()) {
      fake_device::reset();
      const Tensor shown = frame.to(device);
      Options options = options_for(settings_for(Values::Frame));
      const auto collector = std::make_shared<Collector>();
      {
        beholder::Beholder beholder(directory(), options);
        beholder.add(collector);
        Counts in_update;
        REQUIRE(eventually([&] {
          const Counts before = fake_device::counts();
          const fake_device::NoSync no_sync;
          beholder.update(shown);
          in_update += fake_device::counts() - before;
          return collector->count() >= 3;
        }));
        CHECK(in_update.synchronizations() == 0);
        CHECK(in_update.device_allocations == 0);
        CHECK(beholder.state().errors == 0);
      }
      CHECK(fake_device::races().size() == 0);
      StillRenderer still(options);
      check_same(*collector->pictures().back(), *still.render({{"frame", frame, Kind::Frame}}));
    }
  }
}

TEST_CASE("a model that moves from device to device while it is shown") {
  for (const Values values : kOfTheModel) {
    for (const Mode mode : kModes) {
      DYNAMIC_SECTION(to_string(values) << ", " << to_string(mode)) {
        fake_device::reset();
        Training training(settings_for(values, LayoutKind::Fit, mode));
        std::vector<int64_t> restarts;
        training.show(3);
        for (const c10::Device& device : {fake_device::device(1), kCpu, fake_device::device(0)}) {
          training.settle();
          training.move(device);
          restarts.push_back(training.updates);
          training.show(3);
          CHECK(training.collector->pictures().back()->sections.at(0).device == device.str());
        }
        CHECK(training.shown->state().last_error == "");
        CHECK(training.in_update.synchronizations() == 0);
        CHECK(training.in_update.device_allocations == 0);
        training.check_pictures(restarts);
      }
    }
  }
}

TEST_CASE("a forward on a side stream, another one each time") {
  fake_device::reset();
  Training training(settings_for(Values::Activations));
  training.trains = false;  // 1.13.1's autograd follows side streams of CUDA only
  const c10::Stream streams[] = {fake_device::new_stream(), fake_device::new_stream()};
  training.forward = [&](Training& t) {
    const torch::NoGradGuard no_grad;
    const c10::Stream stream = streams[t.updates % 2], main = fake_device::default_stream();
    // Both: the snapshots of the outputs, which belong to the other stream and are freed here, were read on the default
    // one.
    for (const auto& each : streams) wait_for(each, main);
    Tensor out;
    {
      const c10::StreamGuard guard(stream);
      t.net->outputs.clear();  // here belongs their memory
      out = t.net->forward(t.x);
    }
    wait_for(main, stream);
    return out;
  };
  training.show(2);
  training.count_anew();
  training.show(6);
  training.check_that_nothing_waited();
  for (const auto& each : streams) wait_for(each, fake_device::default_stream());
  training.net->outputs.clear();
  training.shown.reset();
  // The snapshots were read on the default stream, so that is where the check of freed memory looks at.
  CHECK(training.collector->count() >= 8);
  StillRenderer still(options_for(settings_for(Values::Activations)));
  for (const auto& picture : training.collector->pictures()) {
    check_same(*picture, *still.render(on(kCpu, training.snapshots[picture->step]), picture->step));
  }
  for (const auto& race : fake_device::races()) {
    // Ours would be those of staging memory; the outputs' memory is this test's own affair.
    UNSCOPED_INFO(race);
  }
  CHECK(fake_device::races().size() == 0);
}

namespace {

struct BranchesImpl : torch::nn::Module {
  torch::nn::Linear left{8, 30}, right{8, 30};
  BranchesImpl() {
    register_module("left", left);
    register_module("right", right);
  }
};
TORCH_MODULE(Branches);

}  // namespace

TEST_CASE("two streams in one forward, and forwards that end early") {
  fake_device::reset();
  const auto collector = std::make_shared<Collector>();
  const c10::Stream one = fake_device::new_stream(), two = fake_device::new_stream();
  const c10::Stream main = fake_device::default_stream();
  std::map<int64_t, std::vector<NamedTensor>> snapshots;
  const Options options = options_for(settings_for(Values::Activations));
  torch::manual_seed(2);
  Branches net;
  fake_device::move_module(*net, fake_device::device());
  const torch::NoGradGuard no_grad;
  const Tensor x = torch::randn({6, 8}).to(fake_device::device());
  int64_t updates = 0;
  {
    beholder::Beholder beholder(directory(), options);
    beholder.attach(net);
    beholder.add(collector);
    const auto step = [&](bool whole, bool swapped) {
      const fake_device::NoSync no_sync;
      x.mul_(-1.01);
      wait_for(one, main);
      wait_for(two, main);
      Tensor left, right;
      {
        const c10::StreamGuard guard(swapped ? two : one);
        left = net->left(x);
      }
      if (whole) {
        const c10::StreamGuard guard(swapped ? one : two);
        right = net->right(x);
      }
      // For the expected pictures, and in the same order: nothing that a user must do.
      auto& seen = snapshots[updates++];
      wait_for(main, one);
      wait_for(main, two);
      seen.push_back({"left", left.clone(), Kind::Activation});
      if (whole) seen.push_back({"right", right.clone(), Kind::Activation});
      wait_for(one, main);
      wait_for(two, main);
      beholder.update();
    };
    // No wait for a picture in between: captures are given up half-way, and their slots used again on other streams.
    for (size_t wanted : {3U, 6U, 9U}) {
      REQUIRE(eventually([&] {
        step(true, updates % 3 == 0);
        return collector->count() >= wanted;
      }));
      for (int i = 0; i < 6; ++i) {
        step(false, i % 2 == 0);
        std::this_thread::sleep_for(20ms);
      }
    }
    CHECK(beholder.state().errors == 0);
  }
  for (const auto& race : fake_device::races()) UNSCOPED_INFO(race);
  CHECK(fake_device::races().size() == 0);
  StillRenderer still(options);
  for (const auto& picture : collector->pictures()) {
    if (!picture->message.empty()) continue;
    INFO("picture of step " << picture->step);
    check_what_came(*picture, *still.render(on(kCpu, snapshots[picture->step]), picture->step));
  }
}

TEST_CASE("update() on a side stream") {
  fake_device::reset();
  Training training(settings_for(Values::Parameters));
  training.trains = false;
  const c10::Stream stream = fake_device::new_stream(), main = fake_device::default_stream();
  wait_for(stream, main);
  {
    const c10::StreamGuard guard(stream);
    training.forward = [](Training& t) {
      const torch::NoGradGuard no_grad;
      for (auto& parameter : t.net->parameters()) parameter.mul_(-1.01);
      return t.x;
    };
    training.show(2);
    training.in_forward = Counts();
    training.show(4);
    CHECK(training.in_update.synchronizations() == 0);
    CHECK(training.in_update.device_allocations == 0);
    CHECK(training.shown->state().errors == 0);
    training.check_pictures();
    training.snapshots.clear();
  }
  wait_for(main, stream);
}

/// What of the test-only device records a graph: the current stream of the training thread, or nothing.
std::atomic<bool> recording{false};

TEST_CASE("while a graph is recorded nothing of ours becomes a part of it, and pictures come again afterwards") {
  set_records_graph(fake_device::kType,
                    [](const c10::Stream& stream) { return recording && stream == fake_device::default_stream(); });
  const Values values = GENERATE(Values::Parameters, Values::Activations);
  fake_device::reset();
  Training training(settings_for(values));
  if (values == Values::Activations) training.net->taps = &*training.shown;
  training.show(3);
  training.count_anew();
  const State before = training.shown->state();
  recording = true;  // as a training that captures a step records forward, backward and optimizer
  const auto update = [&] {
    const Counts asked = fake_device::counts();
    training.shown->update();
    const Counts of_update = fake_device::counts() - asked;
    CHECK(of_update.operators == 0);
    CHECK(of_update.events_recorded == 0);
    CHECK(of_update.successful_queries + of_update.failed_queries == 0);
  };
  for (int i = 0; i < 5; ++i) {
    const Counts asked = fake_device::counts();
    training.forward(training);
    const Counts of_forward = fake_device::counts() - asked;
    CHECK(of_forward.operators == training.forward_alone.operators);
    CHECK(of_forward.events_recorded == 0);
    REQUIRE(eventually([&] { return training.shown->due() || values == Values::Activations; }));
    std::this_thread::sleep_for(2ms);
    update();
  }
  const State during = training.shown->state();
  CHECK(during.captured == before.captured);
  CHECK(during.in_graphs >= 5);
  recording = false;
  training.updates = training.shown->state().updates;
  training.show(3);
  CHECK(training.shown->state().in_graphs == during.in_graphs);
  CHECK(training.shown->state().errors == 0);
  training.check_pictures();
  set_records_graph(fake_device::kType, nullptr);
}

TEST_CASE("other colours, a pause and solo on a device: one copy for each picture, no race") {
  fake_device::reset();
  for (const Mode mode : {Mode::Current, Mode::Change}) {
    DYNAMIC_SECTION(to_string(mode)) {
      fake_device::reset();
      const Settings settings = settings_for(Values::Parameters, LayoutKind::Fit, mode);
      Training training(settings);
      const auto film = std::make_shared<Collector>(/*film=*/true);
      training.shown->add(film);
      auto& live = training.shown->settings();
      training.show(3);
      const auto last = training.collector->pictures().back();
      // What a renderer of stills makes of the pictures up to this one, with other settings at the end.
      const auto expected = [&](const std::function<void(Settings&)>& edit) {
        Options options = options_for(settings);
        StillRenderer still(options);
        std::shared_ptr<const Picture> picture;
        for (const auto& shown : training.collector->pictures()) {
          if (shown->step > last->step || shown->recoloured) continue;
          edit(options.settings);
          if (shown->step == last->step) still.set_settings(options.settings);
          picture = still.render(on(kCpu, training.snapshots[shown->step]), shown->step);
        }
        return picture;
      };

      // Other colours, without an update().
      training.count_anew();
      size_t before = training.collector->count();
      const auto other_colours = [](Settings& s) {
        s.colormap = Colormap::Viridis;
        s.scaling = Scaling::All;
      };
      live.edit(other_colours);
      const auto recoloured = training.collector->next(before);
      REQUIRE(recoloured);
      CHECK(recoloured->recoloured);
      CHECK(differing_bytes(*recoloured, *expected(other_colours)) == 0);
      Counts theirs = others() - training.others_before;
      CHECK(theirs.async_copies_to_host == 1);
      CHECK(theirs.synchronizations() == 0);
      CHECK(theirs.async_copies_to_device <= 1);  // the colours

      // Paused, the film goes on; the live view's picture stays, and takes other colours.
      live.edit([](Settings& s) { s.paused = true; });
      const size_t film_before = film->count();
      REQUIRE(eventually([&] {
        training.step();
        return film->count() >= film_before + 4;
      }));
      const auto colours_in_pause = [&](Settings& s) {
        other_colours(s);
        s.colormap = Colormap::Gray;
      };
      before = training.collector->count();
      live.edit(colours_in_pause);
      REQUIRE(eventually([&] { return training.collector->count() > before; }));
      CHECK(differing_bytes(*training.collector->pictures().back(), *expected(colours_in_pause)) == 0);
      live.edit([](Settings& s) { s.paused = false; });

      // Two views of one capture.
      live.edit([](Settings& s) { s.solo = "linear.weight"; });
      const auto is_solo = [](const Picture& picture) { return picture.settings.solo == "linear.weight"; };
      REQUIRE(eventually([&] {
        training.step();
        const auto pictures = training.collector->pictures();
        return pictures.size() > 3 && is_solo(**(pictures.end() - 1)) && is_solo(**(pictures.end() - 3));
      }));
      CHECK(training.in_update.synchronizations() == 0);
      CHECK(training.in_update.device_allocations == 0);
      theirs = others() - training.others_before;
      REQUIRE(eventually([&] {
        theirs = others() - training.others_before;
        return theirs.async_copies_to_host == training.rendered();
      }));
      CHECK(theirs.blocking_copies_to_host == 0);
      CHECK(training.shown->state().last_error == "");
      training.shown.reset();
      for (const auto& race : fake_device::races()) UNSCOPED_INFO(race);
      CHECK(fake_device::races().size() == 0);
      const auto pictures = training.collector->pictures();
      if (mode == Mode::Current) {
        Options options = options_for(settings);
        colours_in_pause(options.settings);
        options.settings.solo = "linear.weight";
        StillRenderer still(options);
        check_same(*pictures.back(), *still.render(on(kCpu, training.snapshots[pictures.back()->step])));
        for (const auto& picture : film->pictures()) CHECK(picture->settings.solo.empty());
      }
    }
  }
}

TEST_CASE("all values of a training on a device") {
  for (const Values values : kOfTheModel) {
    for (const Mode mode : kModes) {
      // Every second one: they differ in the places of values, not in how these are read.
      const LayoutKind layout = mode == Mode::Variance ? LayoutKind::Classic : LayoutKind::Fit;
      DYNAMIC_SECTION(to_string(values) << ", " << to_string(layout) << ", " << to_string(mode)) {
        fake_device::reset();
        Settings settings = settings_for(values, layout, mode);
        settings.show_all = true;
        Training training(settings);
        training.show(2);
        training.count_anew();
        training.show(4);
        training.check_that_nothing_waited();
        for (const auto& section : training.collector->pictures().back()->sections) CHECK(section.complete);
        training.check_pictures();
      }
    }
  }
}

namespace {

/// What there was to see at each step, for all values at once; and a check of each picture that shows the values of one
/// step alone, whatever its settings.
class Chronicle {
 public:
  explicit Chronicle(Training& training) : training_(training) {
    training.before_update = [this] {
      auto& now = seen_[training_.updates];
      for (const Values values : kOfTheModel) now[values] = snapshot(training_.net, values);
      now[Values::Arrays] = training_.arrays();
      if (frame.defined()) now[Values::Frame] = {{"frame", frame.clone(), Kind::Frame}};
    };
  }

  /// Ends the Beholder. Returns how many pictures of each kind of values were compared.
  std::map<Values, int> check() {
    training_.shown.reset();
    for (const auto& race : fake_device::races()) UNSCOPED_INFO(race);
    CHECK(fake_device::races().size() == 0);
    std::map<Values, int> compared;
    for (const auto& picture : training_.collector->pictures()) {
      if (!picture->message.empty() || picture->settings.mode != Mode::Current) continue;
      INFO("picture of step " << picture->step << ", " << to_string(picture->settings.values) << ", "
                              << to_string(picture->settings.layout) << ", filter '" << picture->settings.filter
                              << "', solo '" << picture->settings.solo << "'");
      REQUIRE(seen_.count(picture->step) == 1);
      StillRenderer still(options_for(picture->settings));
      check_what_came(*picture, *still.render(on(kCpu, seen_[picture->step][picture->settings.values]), picture->step));
      ++compared[picture->settings.values];
    }
    return compared;
  }

  Tensor frame;  // the user's, where there is one

 private:
  Training& training_;
  std::map<int64_t, std::map<Values, std::vector<NamedTensor>>> seen_;  // by step
};

/// One change of one or two settings, as a viewer at play would make it.
void change_something(Settings& settings, std::mt19937& random) {
  const auto one_of = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int i = 0; i < 1 + one_of(2); ++i) {
    switch (one_of(10)) {
      case 0: settings.mode = kModes[one_of(3)]; break;
      case 1: settings.layout = kLayouts[one_of(2)]; break;
      case 2: settings.show_all = !settings.show_all; break;
      case 3: settings.scaling = static_cast<Scaling>(one_of(3)); break;
      case 4: settings.colormap = static_cast<Colormap>(one_of(6)); break;
      case 5: settings.window_size = 2 + one_of(4); break;
      case 6: {
        const char* filters[] = {"", "*weight", "!conv*", "linear*", "norm*", "no such tensor"};
        settings.filter = filters[one_of(6)];
        break;
      }
      case 7: {
        const char* sections[] = {"", "linear.weight", "conv.weight", "linear", "one", "no such tensor"};
        settings.solo = sections[one_of(6)];
        settings.zoom = 1 + one_of(3);
        settings.pan_x = one_of(2) * 0.5;
        break;
      }
      case 8: settings.page = one_of(2); break;
      case 9: settings.info = !settings.info; break;
    }
  }
  if (one_of(3) == 0) settings.mode = Mode::Current;
}

}  // namespace

TEST_CASE("settings that change all the time, on one device and on two") {
  for (const bool two : {false, true}) {
    DYNAMIC_SECTION((two ? "two devices" : "one device")) {
      const int64_t memory_before = fake_device::live_bytes();
      {
        fake_device::reset();
        std::mt19937 random(two ? 2 : 1);
        Training training(settings_for(Values::Parameters), [two](Training& t) {
          t.move(fake_device::device(0));
          if (!two) return;
          fake_device::move_module(*t.net->linear, fake_device::device(1));
          t.y = t.y.to(fake_device::device(1));
        });
        Chronicle chronicle(training);
        training.given = {{"one", torch::randn({20, 30}).to(fake_device::device())},
                          {"host", torch::randn({8, 3, 5, 5})},
                          {"two", torch::randn({50}).to(fake_device::device(two ? 1 : 0))}};
        chronicle.frame = torch::randn({3, 30, 40}).to(fake_device::device());
        training.update = [&](Training& t) {
          t.shown->update([&] { return t.given; }, [&] { return chronicle.frame; });
        };
        auto& live = training.shown->settings();
        for (int round = 0; round < 2; ++round) {
          for (const Values values :
               {Values::Gradients, Values::Activations, Values::Arrays, Values::Frame, Values::Parameters}) {
            live.edit([&](Settings& s) {
              s = settings_for(values);
              s.fps = 60;
            });
            REQUIRE(eventually([&] {
              training.step();
              const auto pictures = training.collector->pictures();
              return !pictures.empty() && pictures.back()->settings.values == values;
            }));
            for (int i = 0; i < 12; ++i) {
              live.edit([&](Settings& s) { change_something(s, random); });
              for (int steps = static_cast<int>(random() % 3); steps > 0; --steps) training.step();
            }
          }
        }
        CHECK(training.in_update.synchronizations() == 0);
        CHECK(training.in_update.copies_to_host() == 0);
        CHECK(training.in_update.copies_to_device() == 0);
        CHECK(training.in_update.device_allocations == 0);
        CHECK(training.in_update.pinned_allocations == 0);
        CHECK(training.in_forward.synchronizations() == 0);
        CHECK(training.in_forward.device_allocations == training.forwards * training.forward_alone.device_allocations);
        CHECK(training.shown->state().last_error == "");
        auto compared = chronicle.check();
        for (const Values values : kOfTheModel) CHECK(compared[values] >= 2);
        CHECK(compared[Values::Arrays] >= 2);
        CHECK(compared[Values::Frame] >= 2);
      }
      CHECK(fake_device::live_bytes() == memory_before);
    }
  }
}

TEST_CASE("shapes and dtypes that change while they are shown") {
  const c10::Device device = fake_device::device();
  SECTION("arrays") {
    fake_device::reset();
    Training training(settings_for(Values::Arrays));
    Chronicle chronicle(training);
    const std::vector<int64_t> shapes[] = {{20, 30}, {31, 17}, {8}, {2, 3, 4, 5}, {200, 300}};
    const auto dtypes = {torch::kFloat, torch::kDouble, torch::kHalf, torch::kLong};
    for (const auto& shape : shapes) {
      for (const auto dtype : dtypes) {
        training.given = {{"first", torch::randn(shape).mul_(10).to(dtype).to(device)},
                          {"second", torch::randn({5, 5}).to(device)}};
        if (shape.size() == 4) training.given.pop_back();  // ... and their number
        training.show(1);
      }
    }
    CHECK(training.in_update.synchronizations() == 0);
    CHECK(training.in_update.device_allocations == 0);
    CHECK(training.shown->state().last_error == "");
    CHECK(chronicle.check()[Values::Arrays] >= 20);
  }
  SECTION("an array of which a device can gather nothing but the whole, and that grows once") {
    fake_device::reset();
    Settings settings = settings_for(Values::Arrays, LayoutKind::Classic);
    settings.show_all = true;
    Training training(settings);
    Chronicle chronicle(training);
    for (const int64_t size : {8, 12, 10}) {
      training.given = {{"grows", torch::randn({3, size, 9}).to(device)}};
      training.show(2);
      CHECK(training.collector->pictures().back()->sections.at(0).shape.at(1) == size);
    }
    CHECK(training.in_update.synchronizations() == 0);
    CHECK(training.shown->state().last_error == "");
    CHECK(chronicle.check()[Values::Arrays] >= 6);
  }
  SECTION("activations of batches of other sizes") {
    fake_device::reset();
    Training training(settings_for(Values::Activations));
    const Tensor x = training.x, y = training.y;
    for (const int64_t batch : {4, 3, 1, 2, 4}) {
      training.settle();
      training.x = x.narrow(0, 0, batch);
      training.y = y.narrow(0, 0, batch);
      if (batch == 1) training.net->eval();
      training.show(3);
      CHECK(training.collector->pictures().back()->sections.at(0).shape.at(0) == batch);
    }
    CHECK(training.in_update.synchronizations() == 0);
    CHECK(training.in_update.device_allocations == 0);
    CHECK(training.in_forward.synchronizations() == 0);
    CHECK(training.shown->state().last_error == "");
    training.check_pictures();
  }
}

TEST_CASE("arrays and a frame as functions: called for pictures alone, and what they make on the device is theirs") {
  for (const Values values : {Values::Arrays, Values::Frame}) {
    for (const LayoutKind layout : kLayouts) {
      for (const Mode mode : kModes) {
        DYNAMIC_SECTION(to_string(values) << ", " << to_string(layout) << ", " << to_string(mode)) {
          fake_device::reset();
          Training training(settings_for(values, layout, mode));
          const Tensor base = torch::randn({30, 40}).to(fake_device::device());
          int64_t array_calls = 0, frame_calls = 0, allocations = 0;
          const auto make = [&] {  // what the user's function allocates is not Beholder's
            const Counts before = fake_device::counts();
            const Tensor made = base.mul(0.5 + static_cast<double>(training.updates % 7));
            allocations += (fake_device::counts() - before).device_allocations;
            return made;
          };
          training.update = [&](Training& t) {
            t.shown->update(
                [&] {
                  ++array_calls;
                  const Tensor made = make();
                  return Arrays{{"made", made}, {"part", made.narrow(0, 3, 20)}};
                },
                [&] {
                  ++frame_calls;
                  return make();
                });
          };
          training.before_update = [&] {
            const Tensor made = base.mul(0.5 + static_cast<double>(training.updates % 7));
            auto& seen = training.snapshots[training.updates];
            if (values == Values::Arrays) {
              seen = {{"made", made}, {"part", made.narrow(0, 3, 20)}};
            } else {
              seen = {{"frame", made, Kind::Frame}};
            }
          };
          training.show(2);
          training.count_anew();
          const int64_t allocations_before = allocations;
          training.show(4);
          // (Nobody else's: the one of the function was made inside update().)
          training.in_update.device_allocations -= allocations - allocations_before;
          training.check_that_nothing_waited();
          const int64_t& calls = values == Values::Arrays ? array_calls : frame_calls;
          CHECK(calls >= training.shown->state().captured);
          CHECK(calls <= training.updates);  // fewer where one was no longer due, as something was billed meanwhile
          CHECK((values == Values::Arrays ? frame_calls : array_calls) == 0);
          training.shown->settings().edit([](Settings& s) { s.fps = 0; });
          const int64_t calls_before = calls;
          for (int i = 0; i < 100; ++i) training.update(training);
          CHECK(calls == calls_before);
          training.check_pictures();
        }
      }
    }
  }
}

TEST_CASE("layers and arrays that change places between two devices while they are shown") {
  for (const Values values : {Values::Parameters, Values::Gradients, Values::Activations, Values::Arrays}) {
    DYNAMIC_SECTION(to_string(values)) {
      fake_device::reset();
      Training training(settings_for(values));
      training.given = {{"one", torch::randn({20, 30}).to(fake_device::device(0))},
                        {"two", torch::randn({30, 20}).to(fake_device::device(1))}};
      const auto place = [&](const c10::Device& first, const c10::Device& second) {
        fake_device::move_module(*training.net->conv, first);
        fake_device::move_module(*training.net->norm, first);
        fake_device::move_module(*training.net->linear, second);
        training.x = training.x.to(first);
        training.y = training.y.to(second);
        training.given[0].tensor = training.given[0].tensor.to(second);
        training.given[1].tensor = training.given[1].tensor.to(first);
      };
      const c10::Device a = fake_device::device(0), b = fake_device::device(1);
      const std::pair<c10::Device, c10::Device> places[] = {{a, b}, {b, a}, {b, b}, {a, a}};
      for (const auto& [first, second] : places) {
        training.settle();
        place(first, second);
        training.show(3);
        const auto& sections = training.collector->pictures().back()->sections;
        CHECK(sections.front().device == (values == Values::Arrays ? second : first).str());
        if (sections.back().absent_since) continue;  // it needs a place on the other device first
        CHECK(sections.back().device == (values == Values::Arrays ? first : second).str());
      }
      CHECK(training.shown->state().last_error == "");
      CHECK(training.in_update.synchronizations() == 0);
      CHECK(training.in_update.device_allocations == 0);
      training.check_pictures();
    }
  }
}

#if TORCH_VERSION_MAJOR >= 2  // 1.13.1's autograd follows side streams of CUDA only
TEST_CASE("a whole training on a side stream") {
  for (const Values values : kOfTheModel) {
    for (const Mode mode : kModes) {
      DYNAMIC_SECTION(to_string(values) << ", " << to_string(mode)) {
        fake_device::reset();
        const c10::Stream side = fake_device::new_stream(), main = fake_device::default_stream();
        wait_for(side, main);
        {
          const c10::StreamGuard guard(side);
          Training training(settings_for(values, LayoutKind::Fit, mode));
          training.show(2);
          training.count_anew();
          training.show(5);
          training.check_that_nothing_waited();
          training.check_pictures();
        }
        wait_for(main, side);
      }
    }
  }
}
#endif

// ---- the same pictures

namespace {

/// Tensors of every kind, dtype and trouble, as step `step` of a run has them.
std::vector<NamedTensor> everything(int64_t step, const c10::Device& device) {
  torch::manual_seed(100 + step);
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const auto put = [&](const Tensor& tensor) { return tensor.to(device); };
  Tensor troubled = torch::randn({12, 20});
  troubled[3][4] = nan;
  troubled[step % 5][5] = inf;
  troubled[7][step % 6] = -inf;
  return {
      {"conv", put(torch::randn({8, 3, 5, 5})), Kind::ConvWeight, "a"},
      {"conv bias", put(torch::randn({8})), Kind::Vector, "a"},
      {"transposed conv", put(torch::randn({4, 8, 3, 3})), Kind::ConvTransposeWeight},
      {"large conv", put(torch::randn({200, 100, 3, 3})), Kind::ConvWeight},
      {"linear", put(torch::randn({40, 300})), Kind::LinearWeight},
      {"wide", put(torch::randn({30, 4000})), Kind::LinearWeight},
      {"embedding", put(torch::randn({500, 16})), Kind::EmbeddingWeight},
      {"activation", put(torch::randn({4, 6, 9, 9})), Kind::Activation},
      {"sequence", put(torch::randn({3, 17, 8})), Kind::Activation},
      {"rank 5", put(torch::randn({2, 3, 4, 5, 6}))},
      {"rank 0", put(torch::randn({}))},
      {"float64", put(torch::randn({7, 9}, torch::kDouble).mul_(1e30))},
      {"beyond float32", put(torch::randn({7, 9}, torch::kDouble).mul_(step % 2 ? 1e300 : 1e38))},
      {"complex beyond float32", put(torch::complex(torch::randn({5, 8}), torch::randn({5, 8})).mul_(2e38))},
      {"float16", put(torch::randn({12, 20}).to(torch::kHalf))},
      {"bfloat16", put(torch::randn({12, 20}).to(torch::kBFloat16))},
      {"int64", put(torch::randint(-1000, 1000, {11, 13}, torch::kLong))},
      {"int32", put(torch::randint(-1000, 1000, {11, 13}, torch::kInt))},
      {"uint8", put(torch::randint(256, {11, 13}, torch::kByte))},
      {"bool", put(torch::rand({11, 13}).lt(0.5))},
      {"complex", put(torch::randn({6, 7}, torch::kComplexFloat))},
      {"troubled", put(troubled)},
      {"only NaN", put(torch::full({5, 6}, nan))},
      {"constant", put(torch::full({5, 6}, 3.5))},
      {"zeros", put(torch::zeros({5, 6}))},
      {"tiny", put(torch::randn({9, 9}).mul_(1e-40))},
      {"huge", put(torch::rand({9, 9}).sub_(0.5).mul_(6e38))},
      {"transposed", put(torch::randn({30, 20})).t()},
      {"sliced", put(torch::randn({30, 40})).slice(1, 3, 33, 5)},
      {"expanded", put(torch::randn({1, 20})).expand({10, 20})},
  };
}

/// A device picture as large as a CPU one, with `settings`, after each of three steps.
void compare_pictures(const Settings& settings,
                      const std::function<std::vector<NamedTensor>(int64_t, const c10::Device&)>& tensors) {
  StillRenderer on_cpu(options_for(settings)), on_device(options_for(settings));
  for (int64_t step = 0; step < 3; ++step) {
    INFO("step " << step);
    const auto expected = on_cpu.render(tensors(step, kCpu), step);
    check_same(*on_device.render(tensors(step, fake_device::device()), step), *expected);
  }
}

}  // namespace

TEST_CASE("the device's pictures equal the CPU's: modes, scalings, layouts, everything") {
  fake_device::reset();
  for (const LayoutKind layout : kLayouts) {
    for (const Mode mode : kModes) {
      DYNAMIC_SECTION(to_string(layout) << ", " << to_string(mode)) {
        for (const Scaling scaling : {Scaling::Section, Scaling::All, Scaling::ZeroCentred}) {
          for (const bool show_all : {false, true}) {
            INFO(to_string(scaling) << ", show all: " << show_all);
            Settings settings = settings_for(Values::Parameters, layout, mode);
            settings.scaling = scaling;
            settings.show_all = show_all;
            compare_pictures(settings, everything);
            CHECK(fake_device::races().size() == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("the device's pictures equal the CPU's: solo, filters, nothing, frames") {
  fake_device::reset();
  Settings settings = settings_for(Values::Parameters);
  SECTION("solo") {
    settings.solo = "large conv";
    settings.zoom = 2;
    settings.pan_x = 0.5;
    compare_pictures(settings, everything);
  }
  SECTION("each alone") {
    for (const auto& named : everything(0, kCpu)) {
      INFO(named.name);
      settings.filter = named.name;
      compare_pictures(settings, everything);
    }
  }
  SECTION("a filter that matches nothing") {
    settings.filter = "no such tensor";
    for (const LayoutKind layout : kLayouts) {
      for (const Mode mode : kModes) {
        settings.layout = layout;
        settings.mode = mode;
        compare_pictures(settings, everything);
      }
    }
  }
  SECTION("nothing") {
    compare_pictures(settings, [](int64_t, const c10::Device&) { return std::vector<NamedTensor>(); });
  }
  SECTION("frames") {
    settings.values = Values::Frame;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (const auto& sizes :
         std::vector<std::vector<int64_t>>{{30, 40}, {3, 30, 40}, {500, 600}, {3, 500, 600}, {3, 1, 1}}) {
      for (const Scaling scaling : {Scaling::Section, Scaling::ZeroCentred}) {
        for (const LayoutKind layout : kLayouts) {
          for (const auto dtype : {torch::kFloat, torch::kDouble, torch::kByte}) {
            INFO(c10::IntArrayRef(sizes) << " " << to_string(layout) << " " << dtype);
            settings.scaling = scaling;
            settings.layout = layout;
            compare_pictures(settings, [&](int64_t step, const c10::Device& device) {
              torch::manual_seed(step);
              Tensor frame = torch::rand(sizes).mul_(200).to(dtype);
              if (dtype != torch::kByte) frame.view({-1})[0] = nan;
              return std::vector<NamedTensor>{{"frame", frame.to(device), Kind::Frame}};
            });
          }
        }
      }
    }
  }
  CHECK(fake_device::races().size() == 0);
}

TEST_CASE("a device's variance of large values is exact, or said to be beyond float32") {
  fake_device::reset();
  constexpr int kWindow = 8;
  for (const int64_t n : {int64_t{100}, History::kExactValues / 7}) {  // both forms
    History history;
    std::vector<Tensor> steps;
    for (int t = 0; t < 3 * kWindow; ++t) {
      Tensor x = torch::rand({n});
      auto* v = x.data_ptr<float>();
      const double at = t % 5 - 2.0;
      v[0] = static_cast<float>(1.6e19 * at);              // squares beyond float32, their mean mostly not
      v[1] = static_cast<float>(1e38 * at);                // variance beyond float32
      v[2] = 3.3e38F;                                      // constant
      v[3] = 3.3e38F + static_cast<float>(t % 3) * 3e31F;  // sums beyond float32, variance far within
      v[4] = t == 10 ? 1e30F : 2.0F + static_cast<float>(t % 2);
      steps.push_back(x);
      const Tensor shown =
          history.push(x.to(fake_device::device()), t, Mode::Variance, kWindow).narrow(0, 0, 6).to(kCpu);
      history.note(!shown.isfinite().all().item<bool>());
      INFO("n " << n << ", step " << t);
      const auto first = static_cast<size_t>(std::max(0, t + 1 - kWindow));
      const Tensor window = torch::stack(std::vector<Tensor>(steps.begin() + static_cast<int64_t>(first), steps.end()));
      const Tensor expected = window.narrow(1, 0, 6).to(torch::kDouble).var(0, /*unbiased=*/false);
      for (int64_t i = 0; i < 6; ++i) {
        INFO("place " << i);
        const double right = expected[i].item<double>();
        const auto got = shown[i].item<float>();
        if (right > std::numeric_limits<float>::max()) {
          CHECK(beyond_sign(shown.data_ptr<float>()[i]) == 1);
        } else {
          CHECK(std::abs(got - right) <= 1e-3 * right + 1e-6);
        }
      }
    }
  }
}

TEST_CASE("the device's variance equals the CPU's over a long window of many values") {
  fake_device::reset();
  constexpr int kWindow = 20, kPoisoned = 8;
  // So many that the window is not computed anew for each picture.
  constexpr int64_t kRows = 600, kColumns = 700;
  static_assert(kRows * kColumns * 12 > (int64_t{1} << 22), "more than History::kExactValues");
  Settings settings = settings_for(Values::Parameters, LayoutKind::Classic, Mode::Variance);
  settings.window_size = kWindow;
  settings.show_all = true;
  StillRenderer on_cpu(options_for(settings)), on_device(options_for(settings));
  torch::manual_seed(1);
  const Tensor base = torch::randn({kRows, kColumns});
  int64_t poisoned_differences = 0;
  for (int step = 0; step < 2 * kWindow + kPoisoned + 4; ++step) {
    INFO("step " << step);
    Tensor values = base.add(torch::randn({kRows, kColumns}), 0.1);
    values.narrow(0, 0, 20).copy_(base.narrow(0, 0, 20));  // these never change
    if (step == kPoisoned) {
      values[30][40] = std::numeric_limits<float>::quiet_NaN();
      values[31][41] = std::numeric_limits<float>::infinity();
    }
    const auto expected = on_cpu.render({{"matrix", values, Kind::LinearWeight}}, step);
    const auto found = on_device.render({{"matrix", values.to(fake_device::device()), Kind::LinearWeight}}, step);
    REQUIRE(found->sections.at(0).statistics.count == kRows * kColumns);
    CHECK(found->history_size == std::min(step + 1, kWindow));
    // On a device, what was poisoned by a value that has left the window is whole again within one more window.
    if (step >= kPoisoned + kWindow && step < kPoisoned + 2 * kWindow) {
      poisoned_differences = std::max(poisoned_differences, differing_bytes(*found, *expected));
      continue;
    }
    check_same(*found, *expected);
  }
  CHECK(poisoned_differences <= 2 * 3);
  CHECK(fake_device::races().size() == 0);
}
