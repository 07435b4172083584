// What a real training pays for being watched, measured from outside: the time that the training thread spends in
// Beholder for each picture, beside the training step alone, and the gather alone beside a memcpy of the values that
// are shown.
//
//   training_benchmark NETWORK SECONDS [WAY]
//                                        trains it, by turns alone and watched in each way (or in that one, for a
//                                        profiler); NETWORK.* lines
//   training_benchmark face SECONDS      due updates of ResNet-18 one after the other, nothing between them
//
// One thread; a viewer of the live server is another process (curl).

#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "beholder/beholder.h"
#include "beholder/callbacks/live_server.h"
#include "beholder/callbacks/recorder.h"
#include "tests/benchmarks/bare_watch.h"
#include "tests/benchmarks/measure.h"
#include "tests/benchmarks/networks.h"
#include "tests/benchmarks/viewer.h"

namespace {

using namespace beholder;
using namespace beholder::benchmarks;

/// One way of being watched: a Beholder of its own, and what each round has shown.
struct Way {
  std::string name;
  std::unique_ptr<Beholder> beholder;  // nullptr: alone
  std::shared_ptr<LiveServer> server;
  std::unique_ptr<Viewer> viewer;
  // One entry a round.
  std::vector<double> step_cpu, blocked_cpu, blocked_wall;
  // Of all rounds: the forward of armed and other steps (activations).
  std::vector<double> plain_forwards, armed_forwards;

  Way(std::string name_, const std::string& logdir, Training& training, Options options) : name(std::move(name_)) {
    beholder = std::make_unique<Beholder>(logdir + "/" + name, std::move(options));
    beholder->attach(training.module());
  }
  explicit Way(std::string name_) : name(std::move(name_)) {}

  /// Trains for `seconds`.
  void round(Training& training, double seconds);
};

void Way::round(Training& training, double seconds) {
  std::vector<double> steps;
  Times in_update;
  int64_t pictures = 0;
  const auto begun = Clock::now();
  int64_t captured = beholder ? beholder->state().captured : 0;
  const bool activations = beholder && beholder->settings().get().values == Values::Activations;
  bool armed = false;
  while (seconds_since(begun) < seconds || armed) {
    double forward_cpu = 0;
    const double step =
        timed([&] { training.step([&](const auto& forward) { forward_cpu = timed(forward).cpu; }); }).cpu;
    steps.push_back(step);
    if (activations) (armed ? armed_forwards : plain_forwards).push_back(forward_cpu);
    if (!beholder) continue;
    const Times update = timed([&] { beholder->update(); });
    in_update.cpu += update.cpu;
    in_update.wall += update.wall;
    const int64_t now = std::exchange(captured, beholder->state().captured);
    pictures += captured - now;
    if (!activations) continue;
    armed = at::hasThreadLocalCallbacks();  // hooks are installed
    // Of every three steps one is watched at most: the others are what it is compared with.
    if (beholder->settings().get().fps * 3 * median(steps) > 1)
      beholder->settings().set_by_name("fps", std::to_string(0.9 / (3 * median(steps))));
  }
  step_cpu.push_back(median(steps));
  if (pictures == 0) return;
  blocked_cpu.push_back(in_update.cpu / static_cast<double>(pictures));
  blocked_wall.push_back(in_update.wall / static_cast<double>(pictures));
}

Options at(double fps, LayoutKind layout = LayoutKind::Fit, Values values = Values::Parameters) {
  Options options;
  options.settings.fps = fps;
  options.settings.layout = layout;
  options.settings.values = values;
  return options;
}

std::vector<std::unique_ptr<Way>> all_ways(const std::string& logdir, Training& training) {
  std::vector<std::unique_ptr<Way>> ways;
  ways.push_back(std::make_unique<Way>("alone"));
  const auto watched = [&](const char* name, Options options) {
    ways.push_back(std::make_unique<Way>(name, logdir, training, std::move(options)));
    return ways.back().get();
  };
  const auto recorded = [&](const char* name, Options options) {
    watched(name, std::move(options))->beholder->add(std::make_shared<Recorder>());
  };
  recorded("recorder_10", at(10));
  recorded("recorder_30", at(30));
  recorded("classic_10", at(10, LayoutKind::Classic));
  recorded("activations_10", at(10, LayoutKind::Fit, Values::Activations));
  Way* live = watched("live_10", at(10));
  live->server = std::make_shared<LiveServer>();
  live->beholder->add(live->server);
  return ways;
}

/// A memcpy that finds the caches as cold as a due update() does.
struct Floor {
  explicit Floor(int64_t bytes) : from(bytes, 1), to(bytes, 2) {}
  std::vector<char> from, to;
  std::vector<double> cpu;

  void copy() {
    cpu.push_back(timed([&] {
                    std::memcpy(to.data(), from.data(), from.size());
                    asm volatile("" : : "r"(to.data()) : "memory");
                  }).cpu);
  }
};

/// The network's own parameters, as BareWatch takes them.
Arrays parameters_of(torch::nn::Module& module) {
  Arrays tensors;
  for (const auto& parameter : module.named_parameters()) {
    const auto& tensor = parameter.value();
    const Kind kind = tensor.dim() == 4 ? Kind::ConvWeight : tensor.dim() == 2 ? Kind::LinearWeight : Kind::Vector;
    tensors.push_back({parameter.key(), tensor, kind});
  }
  return tensors;
}

/// What a due update() does with the values alone, and a memcpy of as many, each right after a training step.
struct GatherBesideMemcpy {
  GatherBesideMemcpy(Training& training, LayoutKind layout)
      : watch(parameters_of(training.module()), settings_of(layout)), floor(4 * watch.values()) {}
  BareWatch watch;
  Floor floor;
  std::vector<double> cpu;

  void round(Training& training) {
    for (int i = 0; i < 3; ++i) {
      training.step();
      Slot* slot = nullptr;
      cpu.push_back(timed([&] { slot = watch.capture(); }).cpu);
      abandon(*slot);
      training.step();
      floor.copy();
    }
  }
};

void train(const std::string& network, double seconds, const std::string& only) {
  const TemporaryFolder logdir;
  const auto training = training_of(network);
  auto ways = all_ways(logdir.path(), *training);
  if (!only.empty()) {
    ways.erase(std::remove_if(ways.begin(), ways.end(), [&](const auto& way) { return way->name != only; }),
               ways.end());
  }
  GatherBesideMemcpy fit(*training, LayoutKind::Fit), classic(*training, LayoutKind::Classic);
  const auto warm_up = [&] {
    for (auto& way : ways) way->round(*training, 0.5);
    for (auto& way : ways) {
      way->step_cpu.clear();
      way->blocked_cpu.clear();
      way->blocked_wall.clear();
      way->plain_forwards.clear();
      way->armed_forwards.clear();
    }
  };
  warm_up();
  for (auto& way : ways) {
    if (!way->server) continue;
    way->viewer = std::make_unique<Viewer>(way->server->state().port, way->server->state().token);
    way->round(*training, 1);
  }
  constexpr int kRounds = 7;
  for (int i = 0; i < kRounds; ++i) {
    for (auto& way : ways) way->round(*training, seconds / kRounds / static_cast<double>(ways.size()));
    fit.round(*training);
    classic.round(*training);
  }
  for (const auto& way : ways) {
    const std::string name = network + "." + way->name;
    tell(name + ".step_ms", 1e3 * median(way->step_cpu));
    if (!way->beholder) continue;
    double blocked = median(way->blocked_cpu), wall = median(way->blocked_wall);
    if (!way->armed_forwards.empty() && !way->plain_forwards.empty()) {
      const double hooks = median(way->armed_forwards) - median(way->plain_forwards);
      tell(name + ".hooks_cpu_ms", 1e3 * hooks);  // copies of activations included
      blocked += std::max(0.0, hooks);
      wall += std::max(0.0, hooks);
    }
    tell(name + ".blocked_cpu_ms", 1e3 * blocked);
    tell(name + ".blocked_wall_ms", 1e3 * wall);
  }
  for (const auto& [name, values] :
       {std::pair<const char*, const GatherBesideMemcpy&>{"fit", fit}, {"classic", classic}}) {
    tell(network + ".gather_" + name + "_ms", 1e3 * median(values.cpu));
    tell(network + ".memcpy_" + name + "_ms", 1e3 * median(values.floor.cpu));
  }
}

void face(double seconds) {
  const TemporaryFolder logdir;
  const auto training = training_of("resnet18");
  for (const auto layout : {LayoutKind::Classic, LayoutKind::Fit}) {
    Options options = at(60, layout);
    options.max_overhead = 1;
    options.max_background = 64;
    Beholder beholder(logdir.path(), options);
    beholder.attach(training->module());
    std::vector<double> cpu, wall;
    // Copied where the update() was: as cold as that.
    Floor floor(4 * BareWatch(parameters_of(training->module()), settings_of(layout)).values());
    int64_t captured = 0;
    for (const auto begun = Clock::now(); seconds_since(begun) < seconds / 2;) {
      const Times update = timed([&] { beholder.update(); });
      const int64_t before = std::exchange(captured, beholder.state().captured);
      if (captured == before) continue;
      cpu.push_back(update.cpu);
      wall.push_back(update.wall);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));  // the picture is rendered, and the caches are its
      floor.copy();
    }
    const std::string name = std::string("face.") + to_string(layout);
    tell(name + ".cpu_us", 1e6 * median(cpu));
    tell(name + ".wall_us", 1e6 * median(wall));
    tell(name + ".memcpy_us", 1e6 * median(floor.cpu));
  }
}

}  // namespace

int main(int argc, char** argv) try {
  at::set_num_threads(1);
  if (argc != 3 && argc != 4)
    throw std::invalid_argument("expected: resnet18, transformer or face, seconds, and perhaps a way");
  const std::string what = argv[1];
  if (what == "face") {
    face(std::stod(argv[2]));
  } else {
    train(what, std::stod(argv[2]), argc > 3 ? argv[3] : "");
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "training_benchmark: %s\n", error.what());
  return 1;
}
