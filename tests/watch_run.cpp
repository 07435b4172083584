// A small training run with beholder::watch, as a user would write it: for the tests of the window that it opens. Runs
// until its standard input closes; prints the number of updates, a line now and then.
//
//   watch_run LOGDIR

#include <beholder/callbacks/watch.h>
#include <poll.h>
#include <torch/torch.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

namespace {

bool input_closed() {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  char byte;
  return ::poll(&input, 1, 0) > 0 && ::read(STDIN_FILENO, &byte, 1) <= 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw std::invalid_argument("usage: watch_run LOGDIR");
  at::set_num_threads(1);
  torch::nn::Sequential net(torch::nn::Linear(8, 32), torch::nn::Tanh(), torch::nn::Linear(32, 2));
  torch::optim::SGD optimizer(net->parameters(), 0.05);
  auto beholder = beholder::watch(net, argv[1]);
  for (int updates = 1; !input_closed(); ++updates) {
    optimizer.zero_grad();
    const auto x = torch::randn({32, 8});
    torch::mse_loss(net->forward(x), x.narrow(1, 0, 2)).backward();
    optimizer.step();
    beholder.update();
    if (updates % 20 == 0) {
      std::printf("%d\n", updates);
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "watch_run: %s\n", error.what());
  return 1;
}
