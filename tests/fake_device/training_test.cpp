// A network trains on the fake device as it does on the CPU: exactly the same losses.
#include <torch/torch.h>

#include <sstream>

#include "catch.h"
#include "fake_device/fake_device.h"

namespace {

using torch::Tensor;

struct NetImpl : torch::nn::Module {
  torch::nn::Conv2d conv{torch::nn::Conv2dOptions(1, 8, 3)};
  torch::nn::BatchNorm2d norm{8};
  torch::nn::Dropout dropout{0.2};
  torch::nn::Linear linear{8 * 5 * 5, 10};

  NetImpl() {
    register_module("conv", conv);
    register_module("norm", norm);
    register_module("dropout", dropout);
    register_module("linear", linear);
  }

  /// Batch × 1 × 12 × 12 to batch × 10.
  Tensor forward(Tensor x) {
    x = torch::max_pool2d(torch::relu(norm(conv(x))), 2);
    return linear(dropout(x.flatten(1)));
  }

  /// With the first layer on one device and the rest on another.
  Tensor forward_across(const Tensor& x, c10::Device rest) {
    const Tensor features = torch::max_pool2d(torch::relu(norm(conv(x))), 2);
    return linear(features.flatten(1).to(rest));
  }
};
TORCH_MODULE(Net);

using MakeOptimizer = std::function<std::unique_ptr<torch::optim::Optimizer>(std::vector<Tensor>)>;

template <class Optimizer, class Options>
MakeOptimizer make(const Options& options) {
  return
      [options](std::vector<Tensor> parameters) { return std::make_unique<Optimizer>(std::move(parameters), options); };
}

constexpr int kSteps = 5;

std::vector<double> losses(c10::Device device, const MakeOptimizer& make_optimizer) {
  torch::manual_seed(7);
  Net net;
  Tensor x = torch::randn({4, 1, 12, 12});
  Tensor y = torch::randint(10, {4});
  if (device.type() == fake_device::kType) {
    fake_device::move_module(*net, device);
    x = x.to(device);
    y = y.to(device);
  }
  const auto optimizer = make_optimizer(net->parameters());
  std::vector<double> losses;
  for (int step = 0; step < kSteps; ++step) {
    optimizer->zero_grad();
    const Tensor loss = torch::cross_entropy_loss(net(x), y);
    loss.backward();
    optimizer->step();
    losses.push_back(loss.item<double>());
  }
  return losses;
}

}  // namespace

TEST_CASE("a network trains with the CPU's losses, to the last bit") {
  using namespace torch::optim;
  const std::pair<const char*, MakeOptimizer> optimizers[] = {
      {"SGD", make<SGD>(SGDOptions(0.1).momentum(0.9).weight_decay(1e-3))},
      {"Adam", make<Adam>(AdamOptions(0.01))},
      {"AdamW", make<AdamW>(AdamWOptions(0.01))},
  };
  for (const auto& [name, make_optimizer] : optimizers) {
    DYNAMIC_SECTION(name) {
      const auto expected = losses(torch::kCPU, make_optimizer);
      fake_device::reset();
      CHECK(losses(fake_device::device(0), make_optimizer) == expected);
      CHECK(fake_device::counts().items == kSteps);
      CHECK(losses(fake_device::device(1), make_optimizer) == expected);
      CHECK(fake_device::races().empty());
    }
  }
}

TEST_CASE("a model with layers on two devices trains with the CPU's losses") {
  const auto train = [](bool split) {
    const c10::Device first = split ? fake_device::device(0) : c10::Device(torch::kCPU);
    const c10::Device second = split ? fake_device::device(1) : c10::Device(torch::kCPU);
    torch::manual_seed(7);
    Net net;
    const Tensor x = torch::randn({4, 1, 12, 12}).to(first);
    const Tensor y = torch::randint(10, {4}).to(second);
    if (split) {
      fake_device::move_module(*net->conv, first);
      fake_device::move_module(*net->norm, first);
      fake_device::move_module(*net->linear, second);
    }
    torch::optim::SGD optimizer(net->parameters(), 0.1);
    std::vector<double> losses;
    for (int step = 0; step < kSteps; ++step) {
      optimizer.zero_grad();
      const Tensor loss = torch::cross_entropy_loss(net->forward_across(x, second), y);
      loss.backward();
      optimizer.step();
      losses.push_back(loss.item<double>());
    }
    return losses;
  };
  fake_device::reset();
  CHECK(train(true) == train(false));
  CHECK(fake_device::races().empty());
  const fake_device::Counts counts = fake_device::total_counts();
  CHECK(counts.items == kSteps);
  CHECK(counts.synchronizations() == counts.items + counts.blocking_copies_to_device);  // those of setting up
}

TEST_CASE("other modules run, forward and backward") {
  const c10::Device device = fake_device::device();
  const auto agree = [&](auto module, const Tensor& input, const auto& output_of) {
    module->eval();
    const Tensor expected = output_of(module, input);
    expected.sum().backward();
    const Tensor expected_grad = module->parameters().front().grad().clone();
    module->zero_grad();
    fake_device::move_module(*module, device);
    const Tensor output = output_of(module, input.to(device));
    output.sum().backward();
    CHECK(torch::equal(output.cpu(), expected));
    CHECK(torch::allclose(module->parameters().front().grad().cpu(), expected_grad, 1e-5, 1e-7));
  };
  const auto call = [](auto& module, const Tensor& x) { return module(x); };
  [[maybe_unused]] const auto first_of = [](auto& module, const Tensor& x) { return std::get<0>(module(x)); };
  torch::manual_seed(1);
  SECTION("Conv1d") { agree(torch::nn::Conv1d(torch::nn::Conv1dOptions(3, 4, 3)), torch::randn({2, 3, 8}), call); }
  SECTION("ConvTranspose2d") {
    agree(torch::nn::ConvTranspose2d(torch::nn::ConvTranspose2dOptions(3, 4, 3)), torch::randn({2, 3, 8, 8}), call);
  }
  SECTION("LayerNorm") { agree(torch::nn::LayerNorm(torch::nn::LayerNormOptions({8})), torch::randn({2, 8}), call); }
  SECTION("GroupNorm") { agree(torch::nn::GroupNorm(2, 4), torch::randn({2, 4, 3}), call); }
  SECTION("Embedding") { agree(torch::nn::Embedding(10, 4), torch::randint(10, {2, 3}), call); }
#if TORCH_VERSION_MAJOR < 2  // later versions want fused cells from every device that is not the CPU
  SECTION("LSTM") { agree(torch::nn::LSTM(4, 5), torch::randn({3, 2, 4}), first_of); }
  SECTION("GRU") { agree(torch::nn::GRU(4, 5), torch::randn({3, 2, 4}), first_of); }
#endif
  SECTION("TransformerEncoderLayer") {
    agree(torch::nn::TransformerEncoderLayer(torch::nn::TransformerEncoderLayerOptions(8, 2)), torch::randn({3, 2, 8}),
          call);
  }
}

TEST_CASE("moving a module keeps tensors' identities, gradients and what needs one") {
  Net net;
  const Tensor weight = net->linear->weight;
  net->conv->bias.set_requires_grad(false);
  net(torch::randn({2, 1, 12, 12})).sum().backward();
  fake_device::move_module(*net, fake_device::device(1));
  CHECK(weight.device() == fake_device::device(1));
  CHECK(weight.requires_grad());
  CHECK(weight.grad().device() == fake_device::device(1));
  CHECK_FALSE(net->conv->bias.requires_grad());
  CHECK(net->norm->running_mean.device() == fake_device::device(1));

  std::stringstream file;
  CHECK_NOTHROW(torch::save(net, file));
}
