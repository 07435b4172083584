// What viewers cost a real training: 50 of them, 10 of which stall. Their programs run in another process. Prints what
// it measures; the limits here are wide, because other programs run on the machine too.
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "beholder/beholder.h"
#include "beholder/callbacks/live_server.h"
#include "catch.h"
#include "small_network.h"

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

bool eventually(const std::function<bool()>& condition) {
  for (const auto end = Clock::now() + 180s; Clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return condition();
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

struct Training {
  torch::nn::Sequential net = small_network();
  torch::optim::SGD optimizer{net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9)};
  torch::Tensor images = torch::randn({64, 1, 28, 28}), labels = torch::randint(10, {64});

  /// Steps per second.
  double train(double seconds, const std::function<void()>& update) {
    const auto start = Clock::now();
    int64_t steps = 0;
    double elapsed = 0;
    for (; elapsed < seconds; elapsed = std::chrono::duration<double>(Clock::now() - start).count(), ++steps) {
      optimizer.zero_grad();
      torch::nn::functional::cross_entropy(net->forward(images), labels).backward();
      optimizer.step();
      update();
    }
    return static_cast<double>(steps) / elapsed;
  }
};

/// A Beholder with a live server, in a folder of its own.
struct Watched {
  std::filesystem::path logdir;
  std::shared_ptr<beholder::LiveServer> server = std::make_shared<beholder::LiveServer>();
  std::unique_ptr<beholder::Beholder> beholder;

  explicit Watched(Training& training) {
    std::string name = (std::filesystem::temp_directory_path() / "beholder-load-XXXXXX").string();
    if (!::mkdtemp(&name[0])) throw std::runtime_error("no temporary folder");
    logdir = name;
    beholder = std::make_unique<beholder::Beholder>(logdir.string());
    beholder->attach(training.net);
    beholder->add(server);
    REQUIRE(eventually([this] { return server->state().port != 0; }));
  }
  ~Watched() {
    beholder.reset();
    std::error_code ignored;
    std::filesystem::remove_all(logdir, ignored);
  }
};

/// The viewers' process; they leave in stop().
class Viewers {
 public:
  Viewers(const beholder::LiveServerState& server, int reading, int stalled, const char* format) {
    int to[2], from[2];
    if (::pipe(to) != 0 || ::pipe(from) != 0) throw std::runtime_error("no pipe");
    const std::string port = std::to_string(server.port), readers = std::to_string(reading),
                      others = std::to_string(stalled);
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(to[0], 0);
      ::dup2(from[1], 1);
      for (int fd : {to[0], to[1], from[0], from[1]}) ::close(fd);
      ::execl(BEHOLDER_LIVE_VIEWERS, "live_viewers", port.c_str(), server.token.c_str(), readers.c_str(),
              others.c_str(), format, nullptr);
      ::_exit(127);
    }
    ::close(to[0]);
    ::close(from[1]);
    to_ = to[1];
    from_ = from[0];
  }
  ~Viewers() { stop(); }
  /// How many pictures were read by all, and the fewest by one.
  std::pair<long long, long long> stop() {
    long long all = 0, fewest = 0;
    if (child_ <= 0) return {all, fewest};
    ::close(to_);
    FILE* out = ::fdopen(from_, "r");
    if (std::fscanf(out, "%lld %lld", &all, &fewest) != 2) all = fewest = 0;
    std::fclose(out);
    ::waitpid(child_, nullptr, 0);
    child_ = 0;
    return {all, fewest};
  }

 private:
  pid_t child_ = 0;
  int to_ = -1, from_ = -1;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

TEST_CASE("50 viewers, 10 of which stall, leave the training its throughput, and nothing when they go") {
  Training training;
  training.train(1, [] {});
  constexpr double kSeconds = 3;
  std::vector<double> to_alone, to_unseen;
  for (int round = 0; round < 9; ++round) {
    const double alone = training.train(kSeconds, [] {});
    Watched watched(training);
    const auto update = [&] { watched.beholder->update(); };
    const double unseen = training.train(kSeconds, update);
    const char* format = round % 2 ? "png" : "jpeg";
    Viewers viewers(watched.server->state(), 40, 10, format);
    REQUIRE(eventually([&] {
      update();
      return watched.server->state().connections >= 50;
    }));
    const double seen = training.train(kSeconds, update);
    const auto state = watched.server->state();
    CHECK(state.threads <= 64 + 4);
    const auto [all, fewest] = viewers.stop();
    CHECK(fewest > 0);
    CHECK(eventually([&] { return watched.server->state().viewers == 0 && watched.server->state().connections == 0; }));
    to_alone.push_back(seen / alone);
    to_unseen.push_back(seen / unseen);
    std::printf(
        "%s: alone %.1f steps/s, no viewer %.1f, 50 viewers %.1f (%.1f pictures/s each, server %.1f %% of a "
        "core): ratio to alone %.3f, to no viewer %.3f\n",
        format, alone, unseen, seen, static_cast<double>(all) / 40 / kSeconds, 100 * state.cpu, seen / alone,
        seen / unseen);
    std::fflush(stdout);
  }
  std::printf("median ratio to the training alone %.3f, to no viewer %.3f\n", median(to_alone), median(to_unseen));
  CHECK(median(to_unseen) > 0.8);
}

TEST_CASE("memory does not grow with viewers who come, stall and go; threads end") {
  Training training;
  Watched watched(training);
  std::vector<int64_t> memory;
  const auto threads = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
  };
  training.train(1, [&] { watched.beholder->update(); });
  const auto threads_before = threads();
  for (int round = 0; round < 8; ++round) {
    Viewers viewers(watched.server->state(), 40, 10, "raw");
    training.train(1.5, [&] { watched.beholder->update(); });
    viewers.stop();
    CHECK(eventually([&] { return watched.server->state().viewers == 0; }));
    memory.push_back(resident_bytes());
    std::printf("round %d: %lld MiB\n", round, static_cast<long long>(memory.back() >> 20));
  }
  CHECK(memory.back() - memory[2] < 48 << 20);
  CHECK(eventually([&] { return watched.server->state().threads == 0 && threads() <= threads_before; }));
}

TEST_CASE("one local viewer at 10 pictures per second costs the server little") {
  Training training;
  Watched watched(training);
  for (const char* format : {"raw", "png", "jpeg"}) {
    Viewers viewers(watched.server->state(), 1, 0, format);
    const double seconds = 6;
    training.train(seconds, [&] { watched.beholder->update(); });
    const double cpu = watched.server->state().cpu;
    const auto [all, fewest] = viewers.stop();
    std::printf("%s: %.1f pictures/s of 1280 x 720, server %.2f %% of a core\n", format,
                static_cast<double>(all) / seconds, 100 * cpu);
    CHECK(all > 0);
    CHECK(cpu > 0);
    if (std::string(format) == "raw") CHECK(cpu < 0.1);
    std::this_thread::sleep_for(1s);
  }
}
