// A real, small training run with everything that a viewer can show, for the tests of the page and of the window:
// trains a convolutional network on random data, with a film and a live server, until its standard input closes,
// SIGTERM comes, or --seconds are over. Prints "ready" when viewers can find it.

#include <beholder/beholder.h>
#include <beholder/callbacks/live_server.h>
#include <beholder/callbacks/recorder.h>
#include <poll.h>
#include <torch/torch.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace nn = torch::nn;

namespace {

constexpr const char* kUsage =
    "usage: live_run --logdir DIR [options]\n"
    "  --fps N          pictures per second wished (10)\n"
    "  --seconds N      ends after that (0: runs until standard input closes)\n"
    "  --canvas WxH     size of the picture (1280x720)\n"
    "  --no-record      no film\n"
    "  --layers N       linear layers in the middle, each with a weight and a bias (2)\n"
    "  --step-ms N      at least so long between two updates (5)\n"
    "  --port N         of the live server (the first free one from 6007 on)\n"
    "  --token T        of the live server (a random one)\n";

struct Arguments {
  std::string logdir, token;
  double fps = 10, seconds = 0;
  int width = 1280, height = 720, layers = 2, step_ms = 5, port = 0;
  bool record = true;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--no-record") {
      a.record = false;
      continue;
    }
    if (i + 1 == argc) throw std::invalid_argument(name + ": expected a known option with a value\n" + kUsage);
    const std::string value = argv[++i];
    if (name == "--logdir") {
      a.logdir = value;
    } else if (name == "--fps") {
      a.fps = std::stod(value);
    } else if (name == "--seconds") {
      a.seconds = std::stod(value);
    } else if (name == "--canvas") {
      if (std::sscanf(value.c_str(), "%dx%d", &a.width, &a.height) != 2) {
        throw std::invalid_argument("--canvas: expected WxH; found '" + value + "'");
      }
    } else if (name == "--layers") {
      a.layers = std::stoi(value);
    } else if (name == "--step-ms") {
      a.step_ms = std::stoi(value);
    } else if (name == "--port") {
      a.port = std::stoi(value);
    } else if (name == "--token") {
      a.token = value;
    } else {
      throw std::invalid_argument("unknown option '" + name + "'\n" + kUsage);
    }
  }
  if (a.logdir.empty()) throw std::invalid_argument(std::string("--logdir is needed\n") + kUsage);
  return a;
}

struct NetImpl : nn::Module {
  explicit NetImpl(int layers) {
    register_module("conv1", conv1);
    register_module("bn1", bn1);
    register_module("conv2", conv2);
    for (int i = 0; i < layers; ++i) middle->push_back(nn::Linear(48, 48));
    register_module("entry", entry);
    register_module("middle", middle);
    register_module("head", head);
  }

  torch::Tensor forward(torch::Tensor x, beholder::Beholder& beholder) {
    x = torch::max_pool2d(beholder.tap("relu1", torch::relu(bn1(conv1(x)))), 2);
    x = torch::max_pool2d(beholder.tap("relu2", torch::relu(conv2(x))), 2);
    x = torch::relu(entry(x.flatten(1)));
    for (auto& layer : *middle) x = torch::relu(layer->as<nn::Linear>()->forward(x));
    return head(x);
  }

  nn::Conv2d conv1{nn::Conv2dOptions(3, 12, 5).padding(2)};
  nn::BatchNorm2d bn1{12};
  nn::Conv2d conv2{nn::Conv2dOptions(12, 24, 3).padding(1)};
  nn::Linear entry{24 * 4 * 4, 48};
  nn::ModuleList middle;
  nn::Linear head{48, 10};
};
TORCH_MODULE(Net);

volatile std::sig_atomic_t terminated = 0;

bool input_closed() {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  if (::poll(&input, 1, 0) <= 0) return false;
  char bytes[256];
  return ::read(STDIN_FILENO, bytes, sizeof bytes) <= 0;
}

// Two arrays of the user's own: one moves, the other has values that are not finite.
beholder::Arrays arrays(int64_t step) {
  const auto row = torch::arange(40.0).unsqueeze(1), column = torch::arange(60.0).unsqueeze(0);
  auto waves = torch::sin(row / 4 + static_cast<double>(step) / 20) * torch::cos(column / 7);
  auto broken = waves.clone();
  broken[3][5] = broken[3][6] = broken[20][30] = std::numeric_limits<float>::quiet_NaN();
  broken[10][10] = std::numeric_limits<float>::infinity();
  return {{"waves", waves}, {"broken", broken}};
}

void run(const Arguments& a) {
  using Clock = std::chrono::steady_clock;
  beholder::Options options;
  options.canvas_width = a.width;
  options.canvas_height = a.height;
  options.settings.fps = a.fps;
  options.max_overhead = 1;  // a busy machine must not slow the pictures down
  options.max_background = 8;
  beholder::Beholder beholder(a.logdir, options);

  torch::manual_seed(0);
  Net net(a.layers);
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.01).weight_decay(1e-3));
  beholder.attach(net);
  if (a.record) beholder.add(std::make_shared<beholder::Recorder>());
  beholder::LiveServerOptions server;
  server.port = a.port;
  server.token = a.token;
  beholder.add(std::make_shared<beholder::LiveServer>(server));

  const auto live = std::filesystem::path(beholder.directory()) / "live.json";
  const auto start = Clock::now();
  bool ready = false;
  for (int64_t step = 0; !terminated && !input_closed(); ++step) {
    const auto begin = Clock::now();
    if (a.seconds > 0 && std::chrono::duration<double>(begin - start).count() >= a.seconds) break;
    // Classes differ in their mean, so that there is something to learn.
    const auto targets = torch::randint(10, {16}, torch::kLong);
    const auto images = torch::randn({16, 3, 16, 16}) + (targets.to(torch::kFloat) / 10).view({-1, 1, 1, 1});
    optimizer.zero_grad();
    torch::cross_entropy_loss(net->forward(images, beholder), targets).backward();
    optimizer.step();
    beholder.update([step] { return arrays(step); },
                    [step] {
                      return torch::sin(torch::arange(9600.0).view({80, 120}) / 300 + step / 10.0);
                    });
    if (!ready && std::filesystem::exists(live)) {
      std::printf("ready\n");
      std::fflush(stdout);
      ready = true;
    }
    std::this_thread::sleep_until(begin + std::chrono::milliseconds(a.step_ms));
  }
}

}  // namespace

int main(int argc, char** argv) try {
  std::signal(SIGTERM, [](int) { terminated = 1; });
  at::set_num_threads(1);
  run(parse(argc, argv));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "live_run: %s\n", error.what());
  return 1;
}
