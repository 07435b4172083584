// What a training loses while it is watched: the example's network on random images, by turns without Beholder and with
// a recorder, or with all of watch(): film, live server, and a viewer of its stream. Prints the ratio of steps per
// second, pair by pair.
//
//   throughput_benchmark [PAIRS = 9] [SECONDS of each half = 2] [FPS = 10] [THREADS of the training = one for each
//                        core] [NAME of the lines for compare_table.py] [recorder | watch]
//
// With as many threads as cores no core is free for Beholder's own threads; with fewer, one is.

#include <torch/torch.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "beholder/beholder.h"
#include "beholder/callbacks/live_server.h"
#include "beholder/callbacks/recorder.h"
#include "tests/benchmarks/measure.h"
#include "tests/benchmarks/viewer.h"

namespace {

using namespace beholder::benchmarks;
namespace nn = torch::nn;

/// The network and the optimizer of examples/fashion_mnist.cpp.
struct Training {
  nn::Sequential net{nn::Conv2d(nn::Conv2dOptions(1, 16, 7).stride(2).padding(3)),
                     nn::BatchNorm2d(16),
                     nn::ReLU(),
                     nn::Conv2d(nn::Conv2dOptions(16, 32, 5).padding(2)),
                     nn::BatchNorm2d(32),
                     nn::ReLU(),
                     nn::MaxPool2d(2),
                     nn::Flatten(),
                     nn::Linear(32 * 7 * 7, 64),
                     nn::ReLU(),
                     nn::Linear(64, 10)};
  torch::optim::SGD optimizer{net->parameters(), torch::optim::SGDOptions(0.01).momentum(0.9).weight_decay(1e-4)};
  torch::Tensor images = torch::randn({64, 1, 28, 28}), labels = torch::randint(10, {64});

  void step() {
    optimizer.zero_grad();
    torch::cross_entropy_loss(net->forward(images), labels).backward();
    optimizer.step();
  }
};

template <typename Update>
double steps_per_second(Training& training, double seconds, const Update& update) {
  const auto begun = Clock::now();
  int64_t steps = 0;
  while (seconds_since(begun) < seconds) {
    training.step();
    update();
    ++steps;
  }
  return static_cast<double>(steps) / seconds_since(begun);
}

/// Until everything that was captured is in the film: nothing of it shall run beside the next half.
void settle(const beholder::Beholder& beholder) {
  for (const auto begun = Clock::now(); seconds_since(begun) < 10;) {
    const auto state = beholder.state();
    if (state.rendered == state.captured && state.callbacks[0].shown == state.rendered) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int pairs = argc > 1 ? std::atoi(argv[1]) : 9;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 2;
  if (argc > 4) torch::set_num_threads(std::atoi(argv[4]));
  const TemporaryFolder logdir;
  Training training;
  beholder::Options options;
  options.settings.fps = argc > 3 ? std::atof(argv[3]) : 10;
  beholder::Beholder beholder(logdir.path(), options);
  beholder.attach(training.net);
  beholder.add(std::make_shared<beholder::Recorder>());
  std::unique_ptr<Viewer> viewer;
  if (argc > 6 && std::strcmp(argv[6], "watch") == 0) {
    const auto server = std::make_shared<beholder::LiveServer>();
    beholder.add(server);
    for (const auto begun = Clock::now(); server->state().url.empty() && seconds_since(begun) < 10;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    viewer = std::make_unique<Viewer>(server->state().port, server->state().token);
  }
  steps_per_second(training, 1, [&] { beholder.update(); });
  settle(beholder);

  std::vector<double> ratios;
  double background_cpu = 0;
  int64_t pictures = 0;
  for (int pair = 0; pair < pairs; ++pair) {
    double alone = 0, watched = 0;
    const auto before = beholder.state();
    for (const bool with : {pair % 2 == 0, pair % 2 != 0}) {  // a machine that becomes slower is no trend
      if (with) {
        watched = steps_per_second(training, seconds, [&] { beholder.update(); });
        settle(beholder);
      } else {
        alone = steps_per_second(training, seconds, [] {});
      }
    }
    const auto state = beholder.state();
    pictures += state.rendered - before.rendered;
    background_cpu = state.background;
    ratios.push_back(watched / alone);
    std::printf("alone %.1f steps/s, watched %.1f steps/s (%.1f pictures/s), ratio %.3f\n", alone, watched,
                static_cast<double>(state.rendered - before.rendered) / seconds, ratios.back());
  }
  std::printf("pictures per second %.2f\n", static_cast<double>(pictures) / seconds / pairs);
  std::printf("background %.4f\n", background_cpu);
  std::printf("median ratio %.4f\n", median(ratios));
  if (argc > 5) {
    const std::string name = std::string("throughput.") + argv[5];
    for (const double ratio : ratios) tell(name + ".ratio", ratio);
    tell(name + ".fps", static_cast<double>(pictures) / seconds / pairs);
    tell(name + ".background", background_cpu);
  }
}
