// What Beholder costs on a device: the table of gpu_check. Each figure is a median.
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include "beholder/beholder.h"
#include "beholder/capture.h"
#include "beholder/device_work.h"
#include "beholder/plan.h"
#include "beholder/renderer.h"
#include "benchmarks/resnet18.h"
#include "gpu_check.h"
#include "small_network.h"

namespace {

using namespace beholder;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

std::string directory() { return (std::filesystem::temp_directory_path() / "beholder-gpu-check").string(); }

std::string milliseconds(double seconds) { return text("%.3f ms", 1e3 * seconds); }

/// Values that nobody trains, as parameters of a module.
struct ParametersImpl : torch::nn::Module {
  ParametersImpl() {
    for (const auto& named : ResNet18::parameters()) {
      std::string name = named.name;
      std::replace(name.begin(), name.end(), '.', '_');
      register_parameter(name, named.tensor.clone());
    }
  }
};
TORCH_MODULE(Parameters);

class Ignoring : public Callback {
 public:
  std::string name() const override { return "ignoring"; }
};

// ---- update() on the host

void measure_update(const Target& target, Report& report, bool quick) {
  Parameters net;
  target.move(*net, target.device());
  target.synchronize();
  {
    Options options;
    options.settings.fps = 0;
    Beholder beholder(directory(), options);
    beholder.attach(net);
    for (int i = 0; i < 10; ++i) beholder.update();
    const int updates = quick ? 100000 : 3000000;
    const auto start = Clock::now();
    for (int i = 0; i < updates; ++i) beholder.update();
    report.row("update() when nothing is due", text("%.0f ns", 1e9 * seconds_since(start) / updates));
  }
  for (const LayoutKind layout : {LayoutKind::Fit, LayoutKind::Classic}) {
    Options options;
    options.settings.layout = layout;
    options.settings.fps = 60;
    options.max_overhead = 1;
    options.max_background = 64;
    Beholder beholder(directory(), options);
    beholder.attach(net);
    beholder.add(std::make_shared<Ignoring>());
    std::vector<double> times;
    const size_t wanted = quick ? 10 : 150;
    const auto end = Clock::now() + std::chrono::seconds(60);
    while (times.size() < wanted && Clock::now() < end) {
      if (!beholder.due()) {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
        continue;
      }
      const int64_t before = beholder.state().captured;
      const auto start = Clock::now();
      beholder.update();
      const double seconds = seconds_since(start);
      if (beholder.state().captured > before) times.push_back(seconds);
    }
    if (!times.empty()) {
      report.row(text("the first of these, which may load kernels, %s", to_string(layout)),
                 milliseconds(times.front()));
    }
    report.check(times.size() == wanted && beholder.state().errors == 0,
                 text("%zu pictures of ResNet-18's parameters, %s", wanted, to_string(layout)),
                 beholder.state().last_error);
    report.row(text("a due update() on the host, ResNet-18's parameters, %s", to_string(layout)),
               milliseconds(median(times)));
  }
}

// ---- capture and render on the device

/// The training thread's and the render thread's work on ResNet-18's parameters, without the threads.
class Bench {
 public:
  Bench(const Target& target, const Settings& settings) : target_(target), tensors_(ResNet18::parameters()) {
    for (auto& named : tensors_) named.tensor = named.tensor.to(target.device());
    PlanRequest request;
    request.settings = settings;
    Options options;
    options.settings = settings;
    for (const auto& t : tensors_) candidates_.push_back({&t.name, &t.module, t.kind, false, t.tensor});
    for (const auto& c : candidates_) request.tensors.push_back(describe(c));
    target.synchronize();
    plan_ = make_plan(request, options);
    index_ = std::make_unique<GatherIndex>(*plan_);
  }
  ~Bench() { target_.synchronize(); }

  /// Seconds of the device: a capture, and the rendering of what was captured (with the copy to the host).
  std::pair<double, double> capture_and_render() {
    Slot* slot = nullptr;
    const double capture = target_.seconds([&] {
      slot = acquire_slot(*plan_);
      for (size_t i = 0; i < candidates_.size(); ++i) gather(*plan_, *index_, *slot, i, candidates_[i].tensor);
      record_filled(*slot);
      finish(*slot);
    });
    const at::NoGradGuard no_grad;
    const double render = target_.seconds([&] {
      renderer_.render(plan_, 0, *slot, {step_++, {}}, plan_->settings, /*statistics=*/true);
      for (auto& event : slot->drained) event.record();
    });
    abandon(*slot);
    picture_bytes_ = static_cast<int64_t>(renderer_.finish()->rgb.size());
    return {capture, render};
  }

  int64_t values() const {
    int64_t sum = 0;
    for (const auto& section : plan_->views[0].sections) sum += section.count;
    return sum;
  }
  int64_t picture_bytes() const { return picture_bytes_; }

 private:
  const Target& target_;
  Arrays tensors_;
  std::vector<Candidate> candidates_;
  std::shared_ptr<const Plan> plan_;
  std::unique_ptr<GatherIndex> index_;
  ViewRenderer renderer_{std::make_shared<PixelPool>()};
  int64_t step_ = 0, picture_bytes_ = 0;
};

/// Gigabytes per second from the device into pinned memory.
double copy_gigabytes(const Target& target, int64_t bytes, int repeats) {
  const at::Tensor from = at::ones({bytes}, at::TensorOptions().dtype(at::kByte).device(target.device()));
  const at::Tensor to = host_buffer(bytes, target.device());
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) times.push_back(target.seconds([&] { to.copy_(from, /*non_blocking=*/true); }));
  return static_cast<double>(bytes) / median(times) / 1e9;
}

void measure_device(const Target& target, Report& report, bool quick) {
  const int repeats = quick ? 3 : 30;
  for (const LayoutKind layout : {LayoutKind::Fit, LayoutKind::Classic}) {
    for (const Mode mode : {Mode::Current, Mode::Variance}) {
      Settings settings;
      settings.layout = layout;
      settings.mode = mode;
      Bench bench(target, settings);
      for (int i = 0; i < (quick ? 2 : 20); ++i) bench.capture_and_render();  // the window is full
      std::vector<double> captures, renders;
      for (int i = 0; i < repeats; ++i) {
        const auto [capture, render] = bench.capture_and_render();
        captures.push_back(capture);
        renders.push_back(render);
      }
      if (mode == Mode::Current) {
        report.row(text("capture on the device, ResNet-18's parameters, %s (%lld values)", to_string(layout),
                        static_cast<long long>(bench.values())),
                   milliseconds(median(captures)));
      }
      report.row(text("render on the device with the copy to the host, %s, %s (%.1f MB)", to_string(layout),
                      to_string(mode), static_cast<double>(bench.picture_bytes()) / 1e6),
                 milliseconds(median(renders)));
      if (mode == Mode::Current && layout == LayoutKind::Fit) {
        report.row("copy of such a picture to pinned memory",
                   text("%.1f GB/s", copy_gigabytes(target, bench.picture_bytes(), repeats)));
      }
    }
  }
  report.row("copy of 64 MB to pinned memory", text("%.1f GB/s", copy_gigabytes(target, int64_t{64} << 20, repeats)));
}

// ---- a training with and without

struct Training {
  torch::nn::Sequential net = small_network();
  torch::Tensor images = torch::randn({64, 1, 28, 28}), labels = torch::randint(10, {64});
  std::unique_ptr<torch::optim::SGD> optimizer;

  explicit Training(const Target& target) {
    target.move(*net, target.device());
    images = images.to(target.device());
    labels = labels.to(target.device());
    optimizer = std::make_unique<torch::optim::SGD>(net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
  }
  void step() {
    optimizer->zero_grad();
    torch::nn::functional::cross_entropy(net->forward(images), labels).backward();
    optimizer->step();
  }
};

/// Steps that the device has finished, per second.
template <typename Update>
double steps_per_second(const Target& target, Training& training, double seconds, const Update& update) {
  target.synchronize();
  const auto start = Clock::now();
  int64_t steps = 0;
  while (seconds_since(start) < seconds) {
    training.step();
    update();
    ++steps;
  }
  target.synchronize();
  return static_cast<double>(steps) / seconds_since(start);
}

void measure_training(const Target& target, Report& report, bool quick) {
  Training training(target);
  steps_per_second(target, training, quick ? 0.2 : 2, [] {});
  for (const Values values : {Values::Parameters, Values::Activations}) {
    std::vector<double> alone, ratios, shown;
    bool came = true;
    std::string error;
    for (int pair = 0; pair < (quick ? 1 : 5); ++pair) {
      const double seconds = quick ? 0.5 : 3;
      alone.push_back(steps_per_second(target, training, seconds, [] {}));
      Options options;
      options.settings.values = values;
      Beholder beholder(directory(), options);
      beholder.attach(training.net);
      beholder.add(std::make_shared<Ignoring>());
      const double watched = steps_per_second(target, training, seconds, [&] { beholder.update(); });
      ratios.push_back(watched / alone.back());
      shown.push_back(static_cast<double>(beholder.state().rendered) / seconds);
      // On a slow machine the first picture may take longer than that.
      for (const auto end = Clock::now() + std::chrono::seconds(60);
           beholder.state().rendered == 0 && Clock::now() < end;) {
        training.step();
        beholder.update();
      }
      came = came && beholder.state().rendered > 0 && beholder.state().errors == 0;
      error = beholder.state().last_error;
    }
    report.check(came, text("a training of a small network is shown, %s", to_string(values)), error);
    report.row(text("training throughput of a small network, %s, 10 pictures a second wished", to_string(values)),
               text("%.0f steps/s alone; %.1f %% of it watched (%.1f pictures/s)", median(alone), 100 * median(ratios),
                    median(shown)));
  }
}

}  // namespace

void measure(const Target& target, Report& report, bool quick) {
  measure_update(target, report, quick);
  measure_device(target, report, quick);
  measure_training(target, report, quick);
}
