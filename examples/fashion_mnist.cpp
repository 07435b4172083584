// Trains a small convolutional network on Fashion-MNIST and watches it: a film, a page in the browser, and a window
// where there is a display.
//
//   fashion_mnist [--data DIR] [--seconds N] [--logdir DIR]
//
// DIR of --data holds the four unzipped files (train-images-idx3-ubyte, ...); tools/demo.sh puts them there.

#include <beholder/callbacks/watch.h>
#include <torch/torch.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

namespace nn = torch::nn;
namespace data = torch::data;

struct NetImpl : nn::Module {
  NetImpl() {
    register_module("conv1", conv1);
    register_module("bn1", bn1);
    register_module("conv2", conv2);
    register_module("bn2", bn2);
    register_module("fc1", fc1);
    register_module("fc2", fc2);
    // Small first filters: BatchNorm makes up for their size, and one sees them grow out of the noise.
    nn::init::normal_(conv1->weight, 0.0, 0.02);
    nn::init::normal_(conv2->weight, 0.0, 0.02);
  }

  torch::Tensor forward(torch::Tensor x) {
    x = torch::relu(bn1(conv1(x)));
    x = torch::max_pool2d(torch::relu(bn2(conv2(x))), 2);
    x = torch::relu(fc1(x.flatten(1)));
    return fc2(x);
  }

  nn::Conv2d conv1{nn::Conv2dOptions(1, 16, 7).stride(2).padding(3)};
  nn::BatchNorm2d bn1{16};
  nn::Conv2d conv2{nn::Conv2dOptions(16, 32, 5).padding(2)};
  nn::BatchNorm2d bn2{32};
  nn::Linear fc1{32 * 7 * 7, 64};
  nn::Linear fc2{64, 10};
};
TORCH_MODULE(Net);

/// The value of `--name VALUE` on the command line.
std::string option(int argc, char** argv, const std::string& name, const std::string& otherwise) {
  for (int i = 1; i + 1 < argc; i += 2) {
    if (argv[i] == name) return argv[i + 1];
  }
  return otherwise;
}

/// Of all pixels of the dataset.
constexpr double kMean = 0.286, kDeviation = 0.353;

double test_accuracy(Net& net, const std::string& folder) {
  const torch::NoGradGuard no_grad;
  net->eval();
  const data::datasets::MNIST test(folder, data::datasets::MNIST::Mode::kTest);
  const auto images = (test.images().slice(0, 0, 2000) - kMean) / kDeviation;
  return net(images).argmax(1).eq(test.targets().slice(0, 0, 2000)).to(torch::kFloat).mean().item<double>();
}

int main(int argc, char** argv) try {
  const std::string folder = option(argc, argv, "--data", "build/data/fashion-mnist");
  const std::string logdir = option(argc, argv, "--logdir", "runs/fashion-mnist");
  const std::chrono::duration<double> time_limit(std::stod(option(argc, argv, "--seconds", "30")));

  torch::manual_seed(0);
  Net net;
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.01).momentum(0.9).weight_decay(1e-4));
  auto loader = data::make_data_loader(data::datasets::MNIST(folder)
                                           .map(data::transforms::Normalize<>(kMean, kDeviation))
                                           .map(data::transforms::Stack<>()),
                                       data::DataLoaderOptions(64));

  auto beholder = beholder::watch(net, logdir);
  beholder.attach(optimizer);  // its momentum: values "optimizer"

  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  auto last_line = start;
  double loss_average = 0, accuracy_average = 0;
  int64_t step = 0;
  while (Clock::now() - start < time_limit) {
    for (auto& batch : *loader) {
      optimizer.zero_grad();
      const auto scores = net(batch.data);
      const auto loss = torch::cross_entropy_loss(scores, batch.target);
      loss.backward();
      optimizer.step();
      beholder.update();

      const double share = ++step < 50 ? 1.0 / static_cast<double>(step) : 0.02;
      loss_average += share * (loss.item<double>() - loss_average);
      accuracy_average +=
          share * (scores.argmax(1).eq(batch.target).to(torch::kFloat).mean().item<double>() - accuracy_average);
      if (Clock::now() - last_line > std::chrono::seconds(1)) {
        last_line = Clock::now();
        const std::chrono::duration<double> elapsed = last_line - start;
        std::printf("\r%4.0f s   step %6ld   loss %.3f   accuracy %.1f %%", elapsed.count(), static_cast<long>(step),
                    loss_average, 100 * accuracy_average);
        std::fflush(stdout);
      }
      if (Clock::now() - start >= time_limit) break;
    }
  }
  std::printf("\naccuracy on the test images: %.1f %%\n", 100 * test_accuracy(net, folder));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "fashion_mnist: %s\n", error.what());
  return 1;
}
