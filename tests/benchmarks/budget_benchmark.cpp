// Whether the promises of time and memory are kept, measured from outside: the training thread's CPU time inside
// update(), the CPU time of all other threads, and how much the process grows, for models and settings that would cost
// much more than they may.
//
//   budget_benchmark SECONDS   of each case
//
// FPS is 60, so that it is the budgets that hold the pictures back; a recorder takes them.

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <malloc.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/beholder.h"
#include "beholder/callbacks/recorder.h"
#include "tests/benchmarks/measure.h"
#include "tests/benchmarks/networks.h"

namespace {

using namespace beholder;
using namespace beholder::benchmarks;

/// `count` matrices with `parameters` values together, every page of them written.
struct MatricesImpl : torch::nn::Module {
  MatricesImpl(int count, double parameters) {
    const torch::NoGradGuard no_grad;
    const auto side = static_cast<int64_t>(std::sqrt(parameters / count));
    const auto noise = torch::randn({1 << 20});
    for (int i = 0; i < count; ++i) {
      auto matrix = torch::empty({side, side});
      auto* to = matrix.data_ptr<float>();
      for (int64_t k = 0; k < matrix.numel(); k += noise.numel()) {
        std::memcpy(to + k, noise.data_ptr<float>(),
                    static_cast<size_t>(std::min(noise.numel(), matrix.numel() - k)) * sizeof(float));
      }
      register_parameter("w" + std::to_string(i), matrix);
    }
  }
};
TORCH_MODULE(Matrices);

/// Two milliseconds of work that is not ours.
void work() {
  for (const double begun = thread_cpu(); thread_cpu() - begun < 2e-3;) {
  }
}

/// Runs until the next capture, and adds up what update() took.
double until_capture(Beholder& beholder, double patience) {
  double spent = 0;
  const int64_t before = beholder.state().captured;
  for (const auto begun = Clock::now(); beholder.state().captured == before;) {
    if (seconds_since(begun) > patience)
      throw std::runtime_error("no picture within " + std::to_string(patience) + " s");
    work();
    const double clocks = timed([] {}).cpu;
    spent += timed([&] { beholder.update(); }).cpu - clocks;
  }
  return spent;
}

/// One case: NAME.overhead and NAME.background, shares of whole intervals between pictures; NAME.fps.
void promise(const std::string& name, torch::nn::Module& module, Options options, double seconds) {
  const TemporaryFolder logdir;
  options.settings.fps = 60;
  Beholder beholder(logdir.path(), options);
  beholder.attach(module);
  beholder.add(std::make_shared<Recorder>());
  for (int i = 0; i < 2; ++i) until_capture(beholder, 60);
  double first = until_capture(beholder, 60);  // each interval pays for the picture that it begins with

  const State before = beholder.state();
  const auto begun = Clock::now();
  const double others = process_cpu() - thread_cpu();
  double spent = 0;
  while (seconds_since(begun) < seconds) spent += std::exchange(first, until_capture(beholder, 120));
  const State after = beholder.state();
  const double elapsed = seconds_since(begun);
  tell(name + ".overhead", spent / elapsed);
  tell(name + ".background", (process_cpu() - thread_cpu() - others) / elapsed);
  tell(name + ".fps", static_cast<double>(after.captured - before.captured) / elapsed);
  tell(name + ".max_overhead", options.max_overhead);
  tell(name + ".max_background", options.max_background);
}

int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != key + ":") continue;
    int64_t kib = 0;
    status >> kib;
    return kib * 1024;
  }
  throw std::runtime_error("no " + key + " in /proc/self/status");
}

/// Everything of 1 billion parameters, in variance over 20 pictures: NAME.growth_bytes is how much the process has
/// grown at most since before the Beholder was made.
void memory(const std::string& name, torch::nn::Module& module, LayoutKind layout, int64_t max_host_bytes,
            int pictures) {
  const TemporaryFolder logdir;
  Options options;
  options.max_host_bytes = max_host_bytes;
  options.max_overhead = 1;
  options.max_background = 64;
  options.settings.fps = 60;
  options.settings.layout = layout;
  options.settings.mode = Mode::Variance;
  options.settings.window_size = 20;
  options.settings.show_all = true;
  malloc_trim(0);                                 // what earlier cases have freed is not there to be used again unseen
  std::ofstream("/proc/self/clear_refs") << "5";  // the highest size of before is forgotten
  const int64_t before = status_bytes("VmRSS");
  Beholder beholder(logdir.path(), options);
  beholder.attach(module);
  beholder.add(std::make_shared<Recorder>());
  for (int i = 0; i < pictures; ++i) until_capture(beholder, 120);
  const State state = beholder.state();
  tell(name + ".growth_bytes", static_cast<double>(status_bytes("VmHWM") - before));
  tell(name + ".estimate_bytes", static_cast<double>(state.host_bytes));
  tell(name + ".max_host_bytes", static_cast<double>(max_host_bytes));
}

Options default_options(Values values = Values::Parameters, Mode mode = Mode::Current) {
  Options options;
  options.settings.values = values;
  options.settings.mode = mode;
  return options;
}

}  // namespace

int main(int argc, char** argv) try {
  at::set_num_threads(1);
  const double seconds = argc > 1 ? std::stod(argv[1]) : 6;
  {
    const auto training = training_of("resnet18");
    const auto resnet = [&](const std::string& name, const std::function<void(Options&)>& change) {
      Options options = default_options();
      change(options);
      promise("resnet18." + name, training->module(), options, seconds);
    };
    resnet("fit", [](Options&) {});
    resnet("classic", [](Options& o) { o.settings.layout = LayoutKind::Classic; });
    resnet("classic_variance_20", [](Options& o) {
      o.settings.layout = LayoutKind::Classic;
      o.settings.mode = Mode::Variance;
      o.settings.window_size = 20;
    });
    resnet("show_all", [](Options& o) {
      o.settings.layout = LayoutKind::Classic;
      o.settings.show_all = true;
    });
    resnet("4k", [](Options& o) {
      o.canvas_width = 3840;
      o.canvas_height = 2160;
    });
    resnet("low_budgets", [](Options& o) {
      o.settings.layout = LayoutKind::Classic;
      o.max_overhead = 0.001;
      o.max_background = 0.03;
    });
  }
  {
    const auto training = training_of("transformer");
    promise("transformer.fit", training->module(), default_options(), seconds);
  }
  for (const int tensors : {10, 100, 1000}) {
    Matrices matrices(tensors, 1e7);
    promise("tensors." + std::to_string(tensors), *matrices, default_options(), seconds);
    if (tensors < 1000) continue;
    Options options = default_options();
    options.settings.layout = LayoutKind::Classic;
    promise("tensors.1000_classic", *matrices, options, seconds);
  }
  for (const int millions : {1, 100, 1000}) {
    Matrices matrices(8, 1e6 * millions);
    promise("parameters." + std::to_string(millions), *matrices, default_options(), seconds);
    if (millions < 1000) continue;
    constexpr int64_t kMiB = int64_t{1} << 20;
    constexpr int kPictures = 25;
    memory("memory.fit_1024", *matrices, LayoutKind::Fit, 1024 * kMiB, kPictures);
    memory("memory.classic_1024", *matrices, LayoutKind::Classic, 1024 * kMiB, kPictures);
    memory("memory.classic_256", *matrices, LayoutKind::Classic, 256 * kMiB, kPictures);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "budget_benchmark: %s\n", error.what());
  return 1;
}
