// Shows tensors of your own: a small network learns which of two spirals a point lies on. The frame is its decision
// surface, the arrays are what its hidden units make of the plane. No module is attached.
//
//   toy_2d [SECONDS [LOGDIR]]

#include <beholder/beholder.h>
#include <beholder/callbacks/live_server.h>
#include <beholder/callbacks/recorder.h>
#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>

namespace nn = torch::nn;

constexpr int64_t kPoints = 400, kHeight = 90, kWidth = 160;

/// Points (2 * kPoints, 2) of two spirals with a little noise, and their classes (2 * kPoints, 1).
std::pair<torch::Tensor, torch::Tensor> spirals() {
  const auto t = torch::rand({kPoints}).sqrt() * (3 * M_PI);
  const auto arm = torch::stack({t.cos() * t, t.sin() * t}, 1) / (3 * M_PI);
  const auto noise = torch::randn({2 * kPoints, 2}) * 0.015;
  return {torch::cat({arm, -arm}) + noise, torch::cat({torch::ones({kPoints, 1}), torch::zeros({kPoints, 1})})};
}

/// Every point of the plane that the frame shows: (kHeight * kWidth, 2).
torch::Tensor plane() {
  const auto y = torch::linspace(-1.1, 1.1, kHeight), x = torch::linspace(-1.95, 1.95, kWidth);
  return torch::stack({x.repeat({kHeight}), y.repeat_interleave(kWidth)}, 1);
}

int main(int argc, char** argv) try {
  const std::chrono::duration<double> time_limit(argc > 1 ? std::stod(argv[1]) : 20.0);
  const std::string logdir = argc > 2 ? argv[2] : "runs/toy_2d";

  torch::manual_seed(0);
  nn::Sequential features(nn::Linear(2, 48), nn::Tanh(), nn::Linear(48, 48), nn::Tanh());
  nn::Linear decide(48, 1);
  auto parameters = features->parameters();
  for (const auto& parameter : decide->parameters()) parameters.push_back(parameter);
  torch::optim::Adam optimizer(parameters, torch::optim::AdamOptions(2e-3));
  const auto [points, classes] = spirals();
  const auto grid = plane();

  // Called only for pictures that will be shown.
  const auto decision_surface = [&] {
    const torch::NoGradGuard no_grad;
    return torch::sigmoid(decide(features->forward(grid))).reshape({kHeight, kWidth});
  };
  const auto hidden_units = [&] {
    const torch::NoGradGuard no_grad;
    const auto hidden = features->forward(grid);  // one picture of the plane for each hidden unit
    return beholder::Arrays{{"hidden units", hidden.t().reshape({1, -1, kHeight, kWidth}), beholder::Kind::Activation}};
  };

  beholder::Options options;
  options.settings.values = beholder::Values::Frame;  // key v shows the arrays
  options.max_overhead = 0.25;  // the surface is dearer than a training step: for a smooth film it may take its time
  beholder::Beholder beholder(logdir, options);
  beholder.add(std::make_shared<beholder::Recorder>());
  beholder.add(std::make_shared<beholder::LiveServer>());  // the log says where

  const auto start = std::chrono::steady_clock::now();
  for (int64_t step = 0; std::chrono::steady_clock::now() - start < time_limit; ++step) {
    optimizer.zero_grad();
    const auto logits = decide(features->forward(points));
    const auto loss = torch::binary_cross_entropy_with_logits(logits, classes);
    loss.backward();
    optimizer.step();
    beholder.update(hidden_units, decision_surface);
    if (step % 200 == 0) {
      const auto accuracy = logits.gt(0).eq(classes.gt(0)).to(torch::kFloat).mean().item<double>();
      std::printf("\rstep %6ld   loss %.4f   accuracy %.1f %%", static_cast<long>(step), loss.item<double>(),
                  100 * accuracy);
      std::fflush(stdout);
    }
  }
  std::printf("\nthe film is in %s/plugins/beholder\n", logdir.c_str());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "toy_2d: %s\n", error.what());
  return 1;
}
