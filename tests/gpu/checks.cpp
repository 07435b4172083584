// The promises, checked on a device that may be real: what tests/no_wait_test.cpp proves on the test-only device, as
// far as a real one lets itself be observed.
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "beholder/beholder.h"
#include "beholder/device_work.h"
#include "beholder/still_renderer.h"
#include "gpu_check.h"

namespace {

using namespace beholder;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using torch::Tensor;

constexpr auto kDeadline = 60s;

template <typename Condition>
bool eventually(const Condition& condition) {
  for (const auto end = Clock::now() + kDeadline; Clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(500us);
  }
  return condition();
}

std::string directory() { return (std::filesystem::temp_directory_path() / "beholder-gpu-check").string(); }

/// No budget stands between the checks and their pictures.
Options options_for(Settings settings) {
  Options options;
  options.canvas_width = 320;
  options.canvas_height = 240;
  options.max_overhead = 1;
  options.max_background = 64;
  settings.fps = 60;
  settings.window_size = 3;
  options.settings = settings;
  return options;
}

Settings settings_for(Values values, LayoutKind layout, Mode mode) {
  Settings settings;
  settings.values = values;
  settings.layout = layout;
  settings.mode = mode;
  return settings;
}

/// Share of the pixels that differ; 1 where the pictures have nothing in common.
double difference(const Picture& a, const Picture& b) {
  if (a.width != b.width || a.height != b.height || a.rgb.size() != b.rgb.size() ||
      a.sections.size() != b.sections.size()) {
    return 1;
  }
  int64_t differing = 0;
  for (size_t i = 0; i + 2 < a.rgb.size(); i += 3) differing += !std::equal(&a.rgb[i], &a.rgb[i] + 3, &b.rgb[i]);
  return static_cast<double>(differing) / (static_cast<double>(a.rgb.size()) / 3);
}

/// Sums that a device forms in another order than the CPU may move a value over the border of two colours.
constexpr double kTolerated = 0.001;

// ---- what is trained

struct NetImpl : torch::nn::Module {
  torch::nn::Conv2d conv{torch::nn::Conv2dOptions(1, 6, 3)};
  torch::nn::BatchNorm2d norm{6};
  torch::nn::Linear linear{6 * 5 * 5, 10};
  std::vector<NamedTensor> outputs;  // of the last forward

  NetImpl() {
    register_module("conv", conv);
    register_module("norm", norm);
    register_module("linear", linear);
  }

  Tensor keep(const char* name, const Tensor& x) {
    outputs.push_back({name, x.detach(), Kind::Activation});
    return x;
  }

  /// Batch × 1 × 12 × 12 to batch × 10.
  Tensor forward(const Tensor& x) {
    outputs.clear();
    return keep("linear", linear(torch::max_pool2d(keep("norm", norm(keep("conv", conv(x)))).relu(), 2).flatten(1)));
  }
};
TORCH_MODULE(Net);

Kind kind_of(const std::string& parameter) {
  if (parameter == "conv.weight") return Kind::ConvWeight;
  return parameter == "linear.weight" ? Kind::LinearWeight : Kind::Vector;
}

class Collector : public Callback {
 public:
  std::string name() const override { return "collector"; }
  void show(std::shared_ptr<const Picture> picture) override {
    std::lock_guard<std::mutex> lock(mutex_);
    pictures_.push_back(std::move(picture));
  }
  std::vector<std::shared_ptr<const Picture>> pictures() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return pictures_;
  }
  size_t count() const { return pictures().size(); }

 private:
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const Picture>> pictures_;  // guarded by mutex_
};

/// A training that is shown, and what was seen of its update()s. Lives on the stream that is current when it is made.
class Training {
 public:
  Training(const Target& target, const Settings& settings)
      : target_(target), options_(options_for(settings)), values_(settings.values) {
    torch::manual_seed(3);
    net_ = Net();
    x_ = torch::randn({4, 1, 12, 12});
    y_ = torch::randint(10, {4});
    move(target.device());
    optimizer_ = std::make_unique<torch::optim::SGD>(net_->parameters(), 0.05);
    shown_.emplace(directory(), options_);
    shown_->attach(net_);
    shown_->add(collector_);
  }

  void move(c10::Device device) {
    target_.move(*net_, device);
    x_ = x_.to(device);
    y_ = y_.to(device);
  }

  void train() {
    optimizer_->zero_grad();
    torch::cross_entropy_loss(net_->forward(x_), y_).backward();
    optimizer_->step();
  }

  /// A due update(). False when none became due.
  bool update() {
    if (!eventually([&] { return shown_->due(); })) return false;
    snapshots_[updates_++] = snapshot();
    const Asked before = target_.asked_by_this_thread();
    const auto start = Clock::now();
    shown_->update();
    slowest_ = std::max(slowest_, std::chrono::duration<double>(Clock::now() - start).count());
    in_update_ += target_.asked_by_this_thread() - before;
    return true;
  }

  /// Trains until `pictures` more have come, and nothing is under way.
  bool show(size_t pictures) {
    const size_t wanted = collector_->count() + pictures;
    const auto end = Clock::now() + kDeadline;
    while (collector_->count() < wanted) {
      train();
      if (!update() || Clock::now() > end) return false;
    }
    return eventually([&] {
      const State state = shown_->state();
      return state.captured == state.rendered && static_cast<int64_t>(collector_->count()) == state.rendered;
    });
  }

  void end() { shown_.reset(); }

  /// Ends the Beholder, and returns the largest difference() of a picture and what the CPU makes of the same values.
  double largest_difference() {
    end();
    double largest = 0;
    StillRenderer still(options_);
    for (const auto& picture : collector_->pictures()) {
      if (!picture->message.empty()) continue;  // a picture that says that there is nothing yet
      auto seen = snapshots_.at(picture->step);
      for (auto& named : seen) named.tensor = named.tensor.cpu();
      largest = std::max(largest, difference(*picture, *still.render(seen, picture->step)));
    }
    return largest;
  }

  /// Other values, by fewer operators than a training has.
  void scale_parameters(double factor) {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : net_->parameters()) parameter.mul_(factor);
  }

  Beholder& shown() { return *shown_; }
  size_t pictures() const { return collector_->count(); }
  const Asked& in_update() const { return in_update_; }
  double slowest_seconds() const { return slowest_; }
  int64_t updates() const { return updates_; }
  void measure_anew() {
    in_update_ = {};
    slowest_ = 0;
  }

 private:
  /// What Beholder should see: copies on the device, so that nothing waits.
  std::vector<NamedTensor> snapshot() const {
    std::vector<NamedTensor> seen;
    if (values_ == Values::Activations) {
      for (const auto& output : net_->outputs) seen.push_back({output.name, output.tensor.clone(), output.kind});
      return seen;
    }
    for (const auto& item : net_->named_parameters()) {
      const Tensor shown = values_ == Values::Gradients ? item.value().grad() : item.value();
      if (shown.defined()) seen.push_back({item.key(), shown.detach().clone(), kind_of(item.key())});
    }
    return seen;
  }

  const Target& target_;
  const Options options_;
  const Values values_;
  Net net_{nullptr};
  Tensor x_, y_;
  std::unique_ptr<torch::optim::SGD> optimizer_;
  const std::shared_ptr<Collector> collector_ = std::make_shared<Collector>();
  std::optional<Beholder> shown_;
  std::map<int64_t, std::vector<NamedTensor>> snapshots_;  // by step
  int64_t updates_ = 0;
  double slowest_ = 0;
  Asked in_update_;
};

std::string described(const Asked& asked) {
  return text("%lld waits, %lld copies to the host, %lld to the device, %lld allocations",
              static_cast<long long>(asked.waits), static_cast<long long>(asked.copies_to_host),
              static_cast<long long>(asked.copies_to_device), static_cast<long long>(asked.allocations));
}

bool nothing(const Asked& asked) {
  return asked.waits == 0 && asked.copies_to_host == 0 && asked.copies_to_device == 0 && asked.allocations == 0;
}

void wait_for(const c10::Stream& waiting, const c10::Stream& awaited) {
  c10::Event event(awaited.device_type());
  event.record(awaited);
  event.block(waiting);
}

// ---- the checks

/// Whether waits are counted at all: without this, a count of 0 would mean nothing.
bool counts_waits(const Target& target, Report& report) {
  if (target.how_counted().empty()) {
    report.left_out("waits are counted", "this device has none");
    return false;
  }
  const Tensor x = torch::ones({1000}, torch::TensorOptions().device(target.device()));
  Asked before = target.asked_by_this_thread();
  x.sum().item<float>();
  const Asked by_item = target.asked_by_this_thread() - before;
  before = target.asked_by_this_thread();
  x.cpu();
  const Asked by_copy = target.asked_by_this_thread() - before;
  const Tensor pinned = host_buffer(4000, target.device()).view(torch::kFloat);
  before = target.asked_by_this_thread();
  pinned.copy_(x, /*non_blocking=*/true);
  const Asked by_pinned_copy = target.asked_by_this_thread() - before;
  target.synchronize();
  const bool counted = by_item.waits > 0 && by_copy.waits > 0 && by_pinned_copy.copies_to_host == 1;
  report.check(counted, "an item() and a blocking copy are counted as waits",
               "item(): " + described(by_item) + "; cpu(): " + described(by_copy));
  report.check(by_pinned_copy.waits == 0, "a non-blocking copy to pinned memory does not wait",
               described(by_pinned_copy));
  return counted;
}

/// Tensors of many kinds, dtypes and troubles.
std::vector<NamedTensor> many_tensors(int64_t step, c10::Device device) {
  torch::manual_seed(100 + step);
  const auto put = [&](const Tensor& tensor) { return tensor.to(device); };
  Tensor troubled = torch::randn({12, 20});
  troubled[3][4] = std::numeric_limits<float>::quiet_NaN();
  troubled[step % 5][5] = std::numeric_limits<float>::infinity();
  troubled[7][step % 6] = -std::numeric_limits<float>::infinity();
  return {
      {"conv", put(torch::randn({8, 3, 5, 5})), Kind::ConvWeight, "a"},
      {"conv bias", put(torch::randn({8})), Kind::Vector, "a"},
      {"large conv", put(torch::randn({200, 100, 3, 3})), Kind::ConvWeight},
      {"linear", put(torch::randn({40, 300})), Kind::LinearWeight},
      {"activation", put(torch::randn({4, 6, 9, 9})), Kind::Activation},
      {"rank 5", put(torch::randn({2, 3, 4, 5, 6}))},
      {"float64", put(torch::randn({7, 9}, torch::kDouble).mul_(1e30))},
      {"float16", put(torch::randn({12, 20}).to(torch::kHalf))},
      {"bfloat16", put(torch::randn({12, 20}).to(torch::kBFloat16))},
      {"int64", put(torch::randint(-1000, 1000, {11, 13}, torch::kLong))},
      {"bool", put(torch::rand({11, 13}).lt(0.5))},
      {"troubled", put(troubled)},
      {"constant", put(torch::full({5, 6}, 3.5))},
      {"transposed", put(torch::randn({30, 20})).t()},
      {"sliced", put(torch::randn({30, 40})).slice(1, 3, 33, 5)},
      {"expanded", put(torch::randn({1, 20})).expand({10, 20})},
  };
}

void check_still_pictures(const Target& target, Report& report) {
  double largest = 0;
  for (const LayoutKind layout : {LayoutKind::Fit, LayoutKind::Classic}) {
    for (const Mode mode : {Mode::Current, Mode::Variance, Mode::Change}) {
      double worst = 0;
      for (const Scaling scaling : {Scaling::Section, Scaling::All, Scaling::ZeroCentred}) {
        for (const bool show_all : {false, true}) {
          Settings settings = settings_for(Values::Parameters, layout, mode);
          settings.scaling = scaling;
          settings.show_all = show_all;
          StillRenderer on_cpu(options_for(settings)), on_device(options_for(settings));
          for (int64_t step = 0; step < 3; ++step) {
            const auto expected = on_cpu.render(many_tensors(step, torch::kCPU), step);
            worst =
                std::max(worst, difference(*on_device.render(many_tensors(step, target.device()), step), *expected));
          }
        }
      }
      report.check(worst <= kTolerated,
                   text("pictures as the CPU makes them: %s, %s", to_string(layout), to_string(mode)),
                   text("%.4f %% of the pixels differ", 100 * worst));
      largest = std::max(largest, worst);
    }
  }
  report.row("pixels unlike the CPU's, at most", text("%.4f %%", 100 * largest));
}

void check_trainings(const Target& target, Report& report, bool counted) {
  Asked in_updates, by_others;
  int64_t updates = 0, pictures = 0;
  for (const Values values : {Values::Parameters, Values::Gradients, Values::Activations}) {
    for (const Mode mode : {Mode::Current, Mode::Variance, Mode::Change}) {
      const std::string what = std::string("a training, ") + to_string(values) + ", " + to_string(mode);
      Training training(target, settings_for(values, LayoutKind::Fit, mode));
      bool came = training.show(2);  // a plan was made
      const Asked all_before = target.asked_by_all_threads(), mine_before = target.asked_by_this_thread();
      const int64_t updates_before = training.updates(), rendered_before = training.shown().state().rendered;
      came = came && training.show(6);
      const State state = training.shown().state();
      report.check(came && state.errors == 0, what + ": pictures come", state.last_error);
      by_others += (target.asked_by_all_threads() - all_before) - (target.asked_by_this_thread() - mine_before);
      pictures += state.rendered - rendered_before;
      updates += training.updates() - updates_before;
      if (counted) {
        report.check(nothing(training.in_update()), what + ": update() waits for nothing, copies and allocates nothing",
                     described(training.in_update()));
      }
      in_updates += training.in_update();
      const double largest = training.largest_difference();
      report.check(largest <= kTolerated, what + ": each picture shows what was there when update() was called",
                   text("%.4f %% of the pixels differ", 100 * largest));
    }
  }
  if (!counted || pictures == 0) return;
  report.row(text("asked of the device in %lld due update()s", static_cast<long long>(updates)), described(in_updates));
  report.row("waits of all threads but the training's, per picture (the render thread sleeps until an event has come)",
             text("%.2f", static_cast<double>(by_others.waits) / static_cast<double>(pictures)));
  report.row("copies to the host of all threads but the training's, per picture",
             text("%.2f", static_cast<double>(by_others.copies_to_host) / static_cast<double>(pictures)));
}

void check_busy(const Target& target, Report& report) {
  const char* what = "update() returns while the device is seconds behind";
  Training training(target, settings_for(Values::Parameters, LayoutKind::Fit, Mode::Current));
  bool came = training.show(2);
  training.measure_anew();
  int updates = 0;
  double busy_seconds = 0;
  const bool tried = target.while_busy([&](const Target::StillBusy& still_busy) {
    const auto start = Clock::now();
    for (int i = 0; i < 8; ++i) {
      training.scale_parameters(-1.01);
      came = training.update() && came;
      if (!still_busy()) break;
      busy_seconds = std::chrono::duration<double>(Clock::now() - start).count();
      ++updates;
    }
  });
  if (!tried) {
    report.left_out(what, "this device is never behind");
    return;
  }
  report.check(updates >= 4, text("%d update()s came while the device was busy", updates), "expected 4 or more");
  report.check(training.slowest_seconds() < 0.25, what,
               text("the slowest took %.0f ms", 1e3 * training.slowest_seconds()));
  report.check(nothing(training.in_update()), "... and asks nothing of it", described(training.in_update()));
  report.row("the slowest update() while the device was behind",
             text("%.3f ms (%d update()s in %.2f s)", 1e3 * training.slowest_seconds(), updates, busy_seconds));
  came = training.show(3) && came;
  report.check(came && training.shown().state().errors == 0, "... and pictures come again afterwards",
               training.shown().state().last_error);
  const double largest = training.largest_difference();
  report.check(largest <= kTolerated, "... which are right", text("%.4f %% of the pixels differ", 100 * largest));
}

void check_side_stream(const Target& target, Report& report, bool counted) {
  const char* what = "a whole training on a side stream";
  if (!target.autograd_follows_streams()) {
    report.left_out(what, "autograd knows no streams of this device here");
    return;
  }
  const c10::impl::VirtualGuardImpl guard(target.device().type());
  const c10::Stream main = guard.getStream(target.device());
  const c10::Stream side = guard.getStreamFromGlobalPool(target.device());
  wait_for(side, main);
  {
    const c10::StreamGuard stream(side);
    for (const Values values : {Values::Parameters, Values::Gradients, Values::Activations}) {
      Training training(target, settings_for(values, LayoutKind::Fit, Mode::Change));
      const bool came = training.show(6);
      report.check(came && training.shown().state().errors == 0, text("%s, %s", what, to_string(values)),
                   training.shown().state().last_error);
      if (counted)
        report.check(nothing(training.in_update()), "... asks nothing of it", described(training.in_update()));
      const double largest = training.largest_difference();
      report.check(largest <= kTolerated, "... and the pictures are right",
                   text("%.4f %% of the pixels differ", 100 * largest));
    }
  }
  wait_for(main, side);
}

void check_moves(const Target& target, Report& report) {
  if (target.device().is_cpu()) {
    report.left_out("a model that moves to the CPU and back while it is shown", "this is the CPU");
    return;
  }
  Training training(target, settings_for(Values::Parameters, LayoutKind::Fit, Mode::Current));
  bool came = training.show(2);
  for (const c10::Device device : {c10::Device(c10::kCPU), target.device()}) {
    training.move(device);
    came = training.show(3) && came;
  }
  report.check(came && training.shown().state().errors == 0,
               "a model moves to the CPU and back while it is shown, and pictures come",
               training.shown().state().last_error);
  const double largest = training.largest_difference();
  report.check(largest <= kTolerated, "... which are right", text("%.4f %% of the pixels differ", 100 * largest));
}

/// Runs of the device's work by a graph that `work` was recorded into; nothing where the device knows none.
void check_graphs(const Target& target, Report& report) {
  const char* what = "a graph is recorded while pictures are made, in the mode that forbids all threads everything";
  const c10::impl::VirtualGuardImpl guard(target.device().type());
  if (!target.records_graphs()) {
    report.left_out(what, "this device has none here");
    return;
  }
  const c10::Stream main = guard.getStream(target.device());
  for (const Values values : {Values::Parameters, Values::Activations}) {
    const c10::Stream side = guard.getStreamFromGlobalPool(target.device());
    wait_for(side, main);
    {
      const c10::StreamGuard stream(side);
      Training training(target, settings_for(values, LayoutKind::Classic, Mode::Variance));
      bool came = training.show(3);
      const Tensor x = torch::ones({1000}, torch::TensorOptions().device(target.device()));
      int64_t during = 0, asked = 0;  // 40 operators a turn: kExpectedGraphNodes
      std::string error;
      for (int turn = 0; turn < 5 && error.empty(); ++turn) {
        // A picture and a plan are under way: the render thread asks for memory and events while the graph is recorded.
        training.shown().settings().set_by_name("filter", turn % 2 == 0 ? "conv*" : "");
        training.train();
        came = training.update() && came;
        error = target.record_graph([&] {
          for (int i = 0; i < 40; ++i) {
            x.add_(1);
            training.shown().update();
            training.shown().tap("x", x);
            std::this_thread::sleep_for(1ms);
            ++asked;
          }
        });
        during = training.shown().state().in_graphs;
      }
      report.check(error.empty(), text("%s, %s", what, to_string(values)), error);
      report.check(
          during > 0, "... of which nothing of ours became a part",
          text("%lld of %lld calls were held back", static_cast<long long>(during), static_cast<long long>(asked)));
      came = training.show(3) && came;
      report.check(came && training.shown().state().errors == 0, "... and pictures come again",
                   training.shown().state().last_error);
      training.end();
    }
    wait_for(main, side);
  }
}

void check_end(const Target& target, Report& report) {
  Training training(target, settings_for(Values::Gradients, LayoutKind::Classic, Mode::Variance));
  const bool came = training.show(2);
  for (int i = 0; i < 20; ++i) {
    training.train();
    training.shown().update();
  }
  const auto start = Clock::now();
  training.end();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  report.check(came && seconds < 10, "a Beholder ends while pictures are under way", text("it took %.1f s", seconds));
}

}  // namespace

void check_promises(const Target& target, Report& report) {
  const bool counted = counts_waits(target, report);
  check_still_pictures(target, report);
  check_trainings(target, report, counted);
  check_busy(target, report);
  check_side_stream(target, report, counted);
  check_moves(target, report);
  check_graphs(target, report);
  check_end(target, report);
}
