// What a process grows by with a large canvas, a film and viewers, against max_host_bytes and what the state tells.
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "beholder/beholder.h"
#include "beholder/callbacks/live_server.h"
#include "beholder/callbacks/recorder.h"
#include "catch.h"
#include "http_client.h"

namespace fs = std::filesystem;
using namespace beholder;
using namespace std::chrono_literals;

namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.compare(0, key.size(), key) == 0) return std::atoll(line.c_str() + key.size() + 1) * 1024;
  }
  return 0;
}

struct Result {
  int64_t grown = 0;  // by how much the process was larger, at most
  int64_t told = 0;   // State::host_bytes, at most
  int64_t frames = 0, answers = 0;
};

/// A training with a film and two viewers, until `frames` frames and as many answers of each form have come.
Result watched_training(const std::string& logdir, const Options& options, int64_t frames) {
  Result result;
  const int64_t before = status_bytes("VmRSS");
  std::ofstream("/proc/self/clear_refs") << "5";  // the highest size of before is forgotten
  {
    torch::manual_seed(1);
    const torch::nn::Sequential net(torch::nn::Linear(300, 400), torch::nn::Linear(400, 100));
    RecorderOptions film;
    film.min_free_bytes = 0;
    LiveServerOptions live;
    live.max_cpu = 64;
    const auto recorder = std::make_shared<Recorder>(film);
    const auto server = std::make_shared<LiveServer>(live);
    beholder::Beholder beholder(logdir, options);
    beholder.attach(net);
    beholder.add(recorder);
    beholder.add(server);
    std::atomic<bool> done{false};
    std::atomic<int64_t> answers[2] = {{0}, {0}};
    std::vector<std::thread> viewers;
    for (int viewer = 0; viewer < 2; ++viewer) {
      viewers.emplace_back([&, viewer] {
        const std::string requests[] = {"GET /frame?format=raw", "GET /frame?format=png&captions=1",
                                        "GET /frame?format=jpeg", "POST /snapshot"};
        for (int64_t n = viewer; !done; ++n) {
          const auto state = server->state();
          if (state.port == 0 || recorder->state().frames == 0) {
            std::this_thread::sleep_for(5ms);
            continue;
          }
          // What comes is not kept: it would count as ours.
          http::Client client(state.port);
          client.send(requests[n % 4] + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + state.token +
                      "\r\nContent-Type: application/json\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
          const auto reply = client.read_head();
          client.closed_within(60s);
          answers[viewer] += reply.status == 200;
        }
      });
    }
    const auto end = std::chrono::steady_clock::now() + 300s;
    while (std::chrono::steady_clock::now() < end &&
           (recorder->state().frames < frames || answers[0] < frames || answers[1] < frames)) {
      beholder.update();
      result.told = std::max(result.told, beholder.state().host_bytes);
      std::this_thread::sleep_for(1ms);
    }
    done = true;
    for (auto& viewer : viewers) viewer.join();
    result.frames = recorder->state().frames;
    result.answers = std::min(answers[0], answers[1]);
  }
  result.grown = status_bytes("VmHWM") - before;
  return result;
}

/// In a process of its own, which has done the same with a small canvas before: what libraries take once does not
/// count.
Result in_child(const Options& options, int64_t frames) {
  std::string folder = (fs::temp_directory_path() / "beholder-memory-XXXXXX").string();
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  int pipe[2];
  REQUIRE(::pipe(pipe) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    try {
      torch::set_num_threads(1);
      Options small = options;
      small.canvas_width = small.canvas_height = 128;
      watched_training(folder, small, 8);
      const Result result = watched_training(folder, options, frames);
      if (::write(pipe[1], &result, sizeof result) == static_cast<ssize_t>(sizeof result)) ::_exit(0);
    } catch (...) {
    }
    ::_exit(1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  Result result;
  const bool whole = status == 0 && ::read(pipe[0], &result, sizeof result) == static_cast<ssize_t>(sizeof result);
  ::close(pipe[0]);
  ::close(pipe[1]);
  fs::remove_all(folder);
  REQUIRE(whole);
  return result;
}

}  // namespace

TEST_CASE("max_host_bytes bounds pictures, copies of them, the film's encoder and what viewers get") {
  Options options;
  options.max_overhead = 1;
  options.max_background = 64;
  options.settings.fps = 60;
  SECTION("a canvas that just fits") {
    options.canvas_width = options.canvas_height = 1990;
    options.max_host_bytes = 264 * kMiB;
  }
  SECTION("with other values in the live view") {
    options.canvas_width = options.canvas_height = 1500;
    options.max_host_bytes = 150 * kMiB;
    options.settings.solo = "0.weight";
    options.settings.mode = Mode::Variance;
    options.settings.window_size = 20;
  }
  const Result result = in_child(options, 12);
  INFO("grown by " << result.grown / kMiB << " MiB, told " << result.told / kMiB << " MiB, allowed "
                   << options.max_host_bytes / kMiB << " MiB");
  CHECK(result.frames >= 12);
  CHECK(result.answers >= 12);
  CHECK(result.grown <= options.max_host_bytes);
  CHECK(result.told <= options.max_host_bytes);
  // What is told is what there is, to a quarter (and, where an encoder takes less than expected, to a half).
  CHECK(result.told >= result.grown / 4 * 3);
  CHECK(result.grown >= result.told / 2);
}
