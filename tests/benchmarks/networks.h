// The networks that are trained in benchmarks, as modules: ResNet-18 (62 tensors, 11.7 million parameters) and a
// transformer encoder (300 tensors, 5.0 million). peers.py has the same in Python.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace beholder::benchmarks {

struct BasicBlockImpl : torch::nn::Module {
  BasicBlockImpl(int64_t in, int64_t out, int64_t stride)
      : conv1(torch::nn::Conv2dOptions(in, out, 3).stride(stride).padding(1).bias(false)),
        bn1(out),
        conv2(torch::nn::Conv2dOptions(out, out, 3).padding(1).bias(false)),
        bn2(out) {
    register_module("conv1", conv1);
    register_module("bn1", bn1);
    register_module("conv2", conv2);
    register_module("bn2", bn2);
    if (stride == 1 && in == out) return;
    downsample =
        torch::nn::Sequential(torch::nn::Conv2d(torch::nn::Conv2dOptions(in, out, 1).stride(stride).bias(false)),
                              torch::nn::BatchNorm2d(out));
    register_module("downsample", downsample);
  }

  torch::Tensor forward(const torch::Tensor& x) {
    const auto y = bn2(conv2(torch::relu(bn1(conv1(x)))));
    return torch::relu(y + (downsample.is_empty() ? x : downsample->forward(x)));
  }

  torch::nn::Conv2d conv1;
  torch::nn::BatchNorm2d bn1;
  torch::nn::Conv2d conv2;
  torch::nn::BatchNorm2d bn2;
  torch::nn::Sequential downsample{nullptr};
};
TORCH_MODULE(BasicBlock);

/// What is trained, and how: one network, one batch of random data, SGD with momentum.
class Training {
 public:
  virtual ~Training() = default;
  virtual torch::Tensor loss() = 0;
  torch::nn::Module& module() { return *module_; }

  void step() {
    step([](const auto& forward) { forward(); });
  }
  /// `around(forward)` calls forward(): for who measures it.
  template <typename Around>
  void step(const Around& around) {
    optimizer_->zero_grad();
    torch::Tensor result;
    around([&] { result = loss(); });
    result.backward();
    optimizer_->step();
  }

 protected:
  void train(std::shared_ptr<torch::nn::Module> module) {
    module_ = std::move(module);
    optimizer_ =
        std::make_unique<torch::optim::SGD>(module_->parameters(), torch::optim::SGDOptions(0.001).momentum(0.9));
  }

 private:
  std::shared_ptr<torch::nn::Module> module_;
  std::unique_ptr<torch::optim::SGD> optimizer_;
};

struct ResNet18Impl : torch::nn::Module {
  ResNet18Impl() : conv1(torch::nn::Conv2dOptions(3, 64, 7).stride(2).padding(3).bias(false)), bn1(64), fc(512, 1000) {
    register_module("conv1", conv1);
    register_module("bn1", bn1);
    int64_t in = 64;
    for (const int64_t out : {64, 128, 256, 512}) {
      torch::nn::Sequential layer(BasicBlock(in, out, in == out ? 1 : 2), BasicBlock(out, out, 1));
      layers.push_back(register_module("layer" + std::to_string(layers.size() + 1), layer));
      in = out;
    }
    register_module("fc", fc);
  }

  /// N x 3 x H x W to N x 1000.
  torch::Tensor forward(torch::Tensor x) {
    x = torch::max_pool2d(torch::relu(bn1(conv1(x))), 3, 2, 1);
    for (auto& layer : layers) x = layer->forward(x);
    return fc(torch::adaptive_avg_pool2d(x, {1, 1}).flatten(1));
  }

  torch::nn::Conv2d conv1;
  torch::nn::BatchNorm2d bn1;
  std::vector<torch::nn::Sequential> layers;
  torch::nn::Linear fc;
};
TORCH_MODULE(ResNet18);

class ResNet18Training : public Training {
 public:
  ResNet18Training() { train(net_.ptr()); }
  torch::Tensor loss() override { return torch::nn::functional::cross_entropy(net_(images_), labels_); }

 private:
  ResNet18 net_;
  torch::Tensor images_ = torch::randn({2, 3, 96, 96}), labels_ = torch::randint(1000, {2});
};

class TransformerTraining : public Training {
 public:
  TransformerTraining() {
    encoder_->train();
    train(encoder_.ptr());
  }
  torch::Tensor loss() override { return encoder_(tokens_).square().mean(); }

 private:
  static constexpr int64_t kLayers = 25, kWidth = 128;  // 12 tensors a layer
  torch::nn::TransformerEncoder encoder_{torch::nn::TransformerEncoderOptions(
      torch::nn::TransformerEncoderLayerOptions(kWidth, /*nhead=*/4).dim_feedforward(4 * kWidth).dropout(0), kLayers)};
  torch::Tensor tokens_ = torch::randn({32, 2, kWidth});
};

inline std::unique_ptr<Training> training_of(const std::string& network) {
  if (network == "resnet18") return std::make_unique<ResNet18Training>();
  if (network == "transformer") return std::make_unique<TransformerTraining>();
  throw std::invalid_argument("expected resnet18 or transformer, found " + network);
}

}  // namespace beholder::benchmarks
