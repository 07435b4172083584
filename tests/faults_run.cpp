// A real, small training run in which things go wrong, for faults_test.cpp, which starts it as a process. Trains until
// its standard input closes, or as its words say; then prints one line "result {...}" with its counters.
//
//   faults_run LOGDIR [WORD...]    words: `act()` below; each holds from before the Beholder is made
//
// Further words come by standard input, one a line. They act between two updates, and are answered by "did WORD ...".
// "frames N" is printed whenever the film has grown.

#include <ATen/record_function.h>
#include <beholder/beholder.h>
#include <beholder/callbacks/live_server.h>
#include <beholder/callbacks/recorder.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "injected_faults.h"

namespace nn = torch::nn;
namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using faults::injected;
using nlohmann::json;

namespace {

volatile std::sig_atomic_t told_to_end = 0;

double seconds_since(Clock::time_point then) { return std::chrono::duration<double>(Clock::now() - then).count(); }

void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

int entries_of(const char* folder) {
  return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

json usage_now() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  file >> pages >> resident;
  return {{"bytes", resident * ::sysconf(_SC_PAGESIZE)},
          {"threads", entries_of("/proc/self/task")},
          {"descriptors", entries_of("/proc/self/fd")}};
}

// ---- what is trained

struct NetImpl : nn::Module {
  nn::Conv2d conv{nn::Conv2dOptions(1, 4, 3)};
  nn::Linear fc{4 * 6 * 6, 3};
  bool throws = false;

  NetImpl() {
    register_module("conv", conv);
    register_module("fc", fc);
  }
  /// N x 1 x 8 x 8 to N x 3.
  torch::Tensor forward(const torch::Tensor& x) {
    const auto seen = conv(x).relu();
    if (throws) throw std::runtime_error("in the middle of forward");
    return fc(seen.flatten(1));
  }
};
TORCH_MODULE(Net);

// ---- callbacks

/// Added first, so that it is closed last: then it knows what has become of the others. Where others take the cores,
/// the recorder may still be busy when its share of the time to end is over.
class LastWords : public beholder::Callback {
 public:
  std::string name() const override { return "last words"; }
  beholder::Needs needs() const override { return {/*film=*/true, /*statistics=*/false}; }
  void open(const beholder::Run& opened) override { run_ = opened; }
  void close() override {
    const auto recorder_is_open = [this] {
      return std::any_of(state.callbacks.begin(), state.callbacks.end(),
                         [](const auto& callback) { return callback.name == "recorder" && callback.open; });
    };
    for (const auto end = std::chrono::steady_clock::now() + 6s; std::chrono::steady_clock::now() < end;
         std::this_thread::sleep_for(10ms)) {
      state = run_.state();
      if (!recorder_is_open()) break;
    }
  }

  beholder::State state;  // read when the Beholder is gone

 private:
  beholder::Run run_;
};

class Misbehaves : public beholder::Callback {
 public:
  enum class How { Throws, Hangs, Slow };
  explicit Misbehaves(How how) : how_(how) {}
  std::string name() const override { return how_ == How::Throws ? "throws" : how_ == How::Hangs ? "hangs" : "slow"; }
  void show(std::shared_ptr<const beholder::Picture>) override {
    if (how_ == How::Throws) throw std::runtime_error("as always");
    if (how_ == How::Slow) std::this_thread::sleep_for(50ms);
    while (how_ == How::Hangs) ::pause();
  }

 private:
  const How how_;
};

// ---- the run

class Training {
 public:
  Training(std::string logdir, const std::vector<std::string>& words) : logdir_(std::move(logdir)) {
    for (const auto& word : words) act(word);
    open();
  }

  /// Until standard input closes, SIGINT or SIGTERM where they are handled, or the number of updates is reached.
  void run() {
    for (int64_t n = 0; !told_to_end && (updates_wanted_ == 0 || n < updates_wanted_); ++n) {
      const auto begun = Clock::now();
      if (!hear()) break;
      step(n);
      sample();
      const int64_t frames = recorder_->state().frames;
      if (frames != frames_told_) say("frames " + std::to_string(frames_told_ = frames));
      std::this_thread::sleep_until(begun + std::chrono::microseconds(step_us_));
    }
    if (end_armed_) arm();
  }

  /// Ends the Beholder and tells what happened.
  void end() {
    if (in_static_destructor_) return;
    const auto begun = Clock::now();
    if (on_another_thread_) {
      std::thread([this] { kept().reset(); }).join();
    } else {
      kept().reset();
    }
    const double seconds = seconds_since(begun);
    json callbacks = json::object();
    const beholder::State& state = last_words_->state;
    for (const auto& one : state.callbacks) {
      callbacks[one.name] = {{"shown", one.shown},
                             {"dropped", one.dropped},
                             {"errors", one.errors},
                             {"last_error", one.last_error},
                             {"queued_bytes", one.queued_bytes}};
    }
    const auto recorded = recorder_->state();
    say("result " + json{{"updates", state.updates},
                         {"captured", state.captured},
                         {"rendered", state.rendered},
                         {"errors", state.errors},
                         {"last_error", state.last_error},
                         {"callbacks", callbacks},
                         {"frames", recorded.frames},
                         {"left_out", recorded.left_out},
                         {"films", recorded.films},
                         {"recording", recorded.recording},
                         {"path", recorded.path},
                         {"exceptions", exceptions_},
                         {"steps", steps_},
                         {"refused", injected().refused.load()},
                         {"samples", samples_},
                         {"end_seconds", seconds}}
                        .dump());
  }

  /// Makes and destroys `rounds` Beholders, each with a film or a live server now and then.
  void come_and_go(int rounds) {
    kept().reset();
    json samples = json::array();
    for (int i = 0; i < rounds; ++i) {
      open();
      if (i % 3 == 0) kept()->detach(*net_);
      for (int n = 0; n < 1 + i % 20; ++n) {
        step(n);
        if (i % 20 == 19) std::this_thread::sleep_for(1ms);
      }
      kept().reset();
      server_.reset();
      recorder_.reset();
      std::error_code ignored;
      if (i % 50 == 49) fs::remove_all(logdir_, ignored);
      if ((i + 1) % (rounds / 10) == 0) samples.push_back(usage_now());
    }
    say("result " + json{{"samples", samples}}.dump());
  }

  int rounds() const { return rounds_; }

 private:
  /// Here also for a Beholder that ends when the program's static objects do.
  static std::unique_ptr<beholder::Beholder>& kept() {
    static std::unique_ptr<beholder::Beholder> instance;
    return instance;
  }

  void open() {
    beholder::Options options;
    options.canvas_width = 480;
    options.canvas_height = 320;
    if (!budgets_) {  // a busy machine must not make pictures fewer
      options.max_overhead = 1;
      options.max_background = 64;
    }
    options.settings.fps = 60;
    options.settings.values = values_;
    kept() = std::make_unique<beholder::Beholder>(logdir_, options);
    kept()->attach(net_);
    last_words_ = std::make_shared<LastWords>();
    kept()->add(last_words_);
    for (const auto how : misbehaving_) kept()->add(std::make_shared<Misbehaves>(how));
    beholder::RecorderOptions recording;
    recording.min_free_bytes = 0;  // the test's disk may be small
    recorder_ = std::make_shared<beholder::Recorder>(recording);
    kept()->add(recorder_);
    server_ = std::make_shared<beholder::LiveServer>();
    kept()->add(server_);
  }

  void step(int64_t n) {
    ++steps_;
    if (n % train_every_ == 0) train(n);
    if (churn_) change_something(n);
    if (kept()) kept()->update({{"a", net_->conv->weight.detach().clone()}}, net_->fc->weight.detach().clone());
  }

  /// Updates until the forward hooks of this thread are armed.
  void arm() {
    for (; !at::hasThreadLocalCallbacks(); ++steps_) kept()->update();
  }

  void train(int64_t n) {
    try {
      net_->throws = forward_throws_every_ > 0 && n % forward_throws_every_ == 0;
      net_->zero_grad();
      const auto loss = net_->forward(torch::randn({5, 1, 8, 8})).pow(2).mean();
      loss.backward();
      optimizer_.step();
    } catch (const std::runtime_error&) {
      ++exceptions_;
    }
  }

  void change_something(int64_t n) {
    kept()->settings().edit([n](beholder::Settings& s) {
      switch (n % 9) {
        case 0: s.values = static_cast<beholder::Values>(n / 9 % 5); break;
        case 1: s.mode = static_cast<beholder::Mode>(n / 9 % 3); break;
        case 2: s.window_size = static_cast<int>(2 + n / 9 % 19); break;
        case 3: s.scaling = static_cast<beholder::Scaling>(n / 9 % 3); break;
        case 4: s.colormap = static_cast<beholder::Colormap>(n / 9 % 6); break;
        case 5: s.show_all = n / 9 % 2 == 0; break;
        case 6: s.filter = n / 9 % 2 == 0 ? "*conv*" : ""; break;
        case 7: s.solo = n / 9 % 3 == 0 ? "conv.weight" : ""; break;
        case 8: s.paused = n / 9 % 4 == 0; break;
      }
      // Not for long: the classic picture's size depends on what it shows, and each size begins a film.
      if (n % 3000 == 500) s.layout = beholder::LayoutKind::Classic;
      if (n % 3000 == 560) s.layout = beholder::LayoutKind::Fit;
    });
  }

  void sample() {
    if (sample_every_seconds_ == 0 || seconds_since(sampled_) < sample_every_seconds_) return;
    sampled_ = Clock::now();
    samples_.push_back(usage_now());
  }

  /// Does what standard input says; false when it has closed.
  bool hear() {
    for (pollfd input{STDIN_FILENO, POLLIN, 0}; ::poll(&input, 1, 0) > 0;) {
      char bytes[256];
      const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
      if (count <= 0) return false;
      heard_.append(bytes, static_cast<size_t>(count));
    }
    for (size_t end; (end = heard_.find('\n')) != std::string::npos;) {
      const std::string word = heard_.substr(0, end);
      heard_.erase(0, end + 1);
      const std::string answer = act(word);
      say("did " + word + (answer.empty() ? "" : " " + answer));
    }
    return true;
  }

  /// One word, or name=value; returns what there is to answer.
  std::string act(const std::string& word) {
    const std::string name = word.substr(0, word.find('='));
    const std::string value = name.size() < word.size() ? word.substr(name.size() + 1) : "";
    const auto signals = [](void (*handler)(int)) {
      std::signal(SIGINT, handler);
      std::signal(SIGTERM, handler);
    };
    // How it runs.
    if (name == "updates") {
      updates_wanted_ = std::stoll(value);
    } else if (name == "step-us") {
      step_us_ = std::stoll(value);
    } else if (name == "train-every") {
      train_every_ = std::stoll(value);
    } else if (name == "budgets") {
      budgets_ = true;
    } else if (name == "sample-every") {
      sample_every_seconds_ = std::stod(value);
    } else if (name == "rounds") {
      rounds_ = std::stoi(value);
    } else if (name == "activations") {
      values_ = beholder::Values::Activations;
    } else if (name == "churn") {
      churn_ = true;
    } else if (name == "handle-signals") {
      signals([](int) { told_to_end = 1; });
    } else if (name == "record") {
      kept()->settings().edit([&](beholder::Settings& s) { s.recording = value == "on"; });
    } else if (name == "server-cpu") {
      return std::to_string(server_->state().cpu);
    } else if (name == "port") {
      return std::to_string(server_->state().port) + " " + server_->state().token;
    } else if (name == "state") {
      const auto state = kept()->state();
      return std::to_string(state.rendered) + " " + std::to_string(state.errors);
      // What goes wrong.
    } else if (name == "no-threads") {
      injected().threads_left = value == "off" ? INT_MAX : value.empty() ? 0 : std::stoi(value);
    } else if (name == "disk-error") {
      injected().disk_error = std::stoi(value);
    } else if (name == "encoder-fails") {
      injected().encoder_fails = true;
    } else if (name == "clock-back") {
      injected().clock_back_seconds = std::stoll(value);
    } else if (name == "no-memory") {
      static std::string thread_name;
      thread_name = value;
      injected().no_memory = value.empty() ? nullptr : thread_name.c_str();
    } else if (name == "refused-every") {
      injected().refused_every = std::stoi(value);
    } else if (name == "no-descriptors") {
      limit_descriptors(value != "off");
    } else if (name == "forward-throws-every") {
      forward_throws_every_ = std::stoll(value);
    } else if (name == "throws") {
      misbehaving_.push_back(Misbehaves::How::Throws);
    } else if (name == "hangs") {
      misbehaving_.push_back(Misbehaves::How::Hangs);
    } else if (name == "slow") {
      misbehaving_.push_back(Misbehaves::How::Slow);
    } else if (name == "fork") {
      return fork_a_child(value);
    } else if (name == "end-in-static-destructor") {
      in_static_destructor_ = true;
    } else if (name == "end-armed") {
      end_armed_ = true;
    } else if (name == "end-on-another-thread") {
      on_another_thread_ = true;
    } else {
      throw std::invalid_argument("unknown word '" + word + "'");
    }
    return "";
  }

  void limit_descriptors(bool none_left) {
    static rlimit before{};
    if (!none_left) {
      ::setrlimit(RLIMIT_NOFILE, &before);
      return;
    }
    ::getrlimit(RLIMIT_NOFILE, &before);
    // The limit is one above the highest number allowed, whether or not those below are in use.
    int highest = 0;
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
      const int number = std::stoi(entry.path().filename());
      if (::fcntl(number, F_GETFD) != -1) highest = std::max(highest, number);
    }
    rlimit none = before;
    none.rlim_cur = static_cast<rlim_t>(highest) + 1;
    ::setrlimit(RLIMIT_NOFILE, &none);
    while (::dup(0) >= 0) {  // fills the gaps; they stay taken
    }
  }

  /// How the child ended ("exit 0"), and after how many seconds.
  std::string fork_a_child(const std::string& how) {
    std::fflush(nullptr);
    if (end_armed_) arm();
    const auto begun = Clock::now();
    const pid_t child = ::fork();
    if (child < 0) return std::strerror(errno);
    if (child == 0) in_the_child(how);
    if (how == "stays") return std::to_string(child);
    int status = 0;
    for (; ::waitpid(child, &status, WNOHANG) == 0; std::this_thread::sleep_for(1ms)) {
      if (seconds_since(begun) < 20) continue;
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      return "hung";
    }
    return (WIFEXITED(status) ? "exit " + std::to_string(WEXITSTATUS(status))
                              : "signal " + std::to_string(WTERMSIG(status))) +
           " " + std::to_string(seconds_since(begun));
  }

  [[noreturn]] void in_the_child(const std::string& how) {
    if (how == "stays") {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) ::pause();
    }
    if (how == "_exit") ::_exit(0);
    if (how == "exit") std::exit(0);  // static destructors run
    // Everything that a training loop may do with it.
    kept()->due();
    step(0);
    step(1);
    kept()->state();
    kept()->attach(net_, "again");
    kept()->add(std::make_shared<Misbehaves>(Misbehaves::How::Slow));
    kept()->detach(*net_);
    kept().reset();
    server_.reset();
    recorder_.reset();
    if (how == "own") {  // a worker that shows a run of its own
      logdir_ += "-of-the-child";
      open();
      for (int n = 0; n < 10000 && recorder_->state().frames < 3; ++n) {
        step(n);
        std::this_thread::sleep_for(1ms);
      }
      kept().reset();
      if (recorder_->state().frames < 3) ::_exit(3);
    }
    std::exit(0);
  }

  std::string logdir_;
  Net net_;
  torch::optim::SGD optimizer_{net_->parameters(), 0.01};
  std::shared_ptr<LastWords> last_words_;
  std::shared_ptr<beholder::Recorder> recorder_;
  std::shared_ptr<beholder::LiveServer> server_;

  int64_t updates_wanted_ = 0, step_us_ = 2000, train_every_ = 1, forward_throws_every_ = 0;
  int rounds_ = 0;
  double sample_every_seconds_ = 0;
  bool budgets_ = false, churn_ = false, in_static_destructor_ = false, end_armed_ = false, on_another_thread_ = false;
  beholder::Values values_ = beholder::Values::Parameters;
  std::vector<Misbehaves::How> misbehaving_;

  std::string heard_;  // of standard input, up to the last whole line
  int64_t frames_told_ = 0, exceptions_ = 0, steps_ = 0;
  Clock::time_point sampled_{};
  json samples_ = json::array();
};

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) throw std::invalid_argument("usage: faults_run LOGDIR [WORD...]");
  at::set_num_threads(1);
  Training training(argv[1], std::vector<std::string>(argv + 2, argv + argc));
  if (training.rounds() > 0) {
    training.come_and_go(training.rounds());
    return 0;
  }
  training.run();
  training.end();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "faults_run: %s\n", error.what());
  return 1;
}
