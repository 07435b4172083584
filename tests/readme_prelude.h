// What the README's snippets take for granted: a model, data, an optimizer.
#pragma once

#include <torch/torch.h>

#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

namespace readme {

struct NetImpl : torch::nn::Module {
  NetImpl() {
    register_module("conv1", conv1);
    register_module("fc", fc);
  }
  torch::Tensor forward(const torch::Tensor& x) { return fc(torch::relu(conv1(x)).flatten(1)); }
  torch::nn::Conv2d conv1{torch::nn::Conv2dOptions(1, 4, 3)};
  torch::nn::Linear fc{4 * 6 * 6, 10};
};
TORCH_MODULE(Net);

using Batch = torch::data::Example<>;

/// A few batches of noise.
inline std::vector<Batch> batches() {
  std::vector<Batch> all;
  for (int i = 0; i < 5; ++i) all.emplace_back(torch::randn({8, 1, 8, 8}), torch::randint(10, {8}, torch::kLong));
  return all;
}

}  // namespace readme

namespace {
readme::Net model;
auto loader = std::make_unique<std::vector<readme::Batch>>(readme::batches());
torch::optim::SGD optimizer(model->parameters(), 0.01);
}  // namespace
