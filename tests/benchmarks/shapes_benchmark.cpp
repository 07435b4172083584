// Trainings whose shapes are others at each step: pictures that are made of those wished.
//
//   shapes_benchmark SECONDS   of each: activations, arrays

#include <torch/torch.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>

#include "beholder/beholder.h"
#include "tests/benchmarks/measure.h"

namespace {

using namespace beholder;
using namespace beholder::benchmarks;

/// Pictures that were made of those wished, while `step` is called over and over.
double shown(Beholder& beholder, double seconds, const std::function<void()>& step) {
  for (const auto begun = Clock::now(); seconds_since(begun) < 2;) step();  // the first plans
  const State before = beholder.state();
  const auto begun = Clock::now();
  while (seconds_since(begun) < seconds) step();
  return static_cast<double>(beholder.state().captured - before.captured) / (before.fps_wished * seconds_since(begun));
}

int64_t random_length() { return torch::randint(10, 60, {1}).item<int64_t>(); }

struct TaggerImpl : torch::nn::Module {
  torch::nn::LSTM lstm = register_module("lstm", torch::nn::LSTM(torch::nn::LSTMOptions(16, 32).batch_first(true)));
  torch::nn::Linear tags = register_module("tags", torch::nn::Linear(32, 4));
  torch::Tensor forward(const torch::Tensor& x) { return tags(std::get<0>(lstm(x))); }
};
TORCH_MODULE(Tagger);

void shapes(double seconds) {
  const TemporaryFolder logdir;
  Tagger net;
  torch::optim::SGD optimizer(net->parameters(), 0.01);
  const auto train_on = [&](const torch::Tensor& x) {
    optimizer.zero_grad();
    net(x).square().mean().backward();
    optimizer.step();
  };
  Options options;
  const auto watched = [&](Values values, const std::function<void(Beholder&)>& step) {
    options.settings.values = values;
    Beholder beholder(logdir.path() + "/" + to_string(values), options);
    beholder.attach(net);
    tell(std::string("shapes.") + to_string(values), shown(beholder, seconds, [&] { step(beholder); }));
  };
  watched(Values::Activations, [&](Beholder& beholder) {
    train_on(torch::randn({random_length(), random_length(), 16}));
    beholder.update();
  });
  watched(Values::Arrays, [&](Beholder& beholder) {
    const auto x = torch::randn({random_length(), random_length(), 16});
    train_on(x);
    beholder.update({{"batch", x}, {"squares", x.square().mean(2)}});
  });
}

}  // namespace

int main(int argc, char** argv) try {
  at::set_num_threads(1);
  if (argc != 2) throw std::invalid_argument("expected: SECONDS");
  shapes(std::stod(argv[1]));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "shapes_benchmark: %s\n", error.what());
  return 1;
}
