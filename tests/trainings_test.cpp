// Trainings as people write them: shapes that change at each step, experts chosen at random, frozen parts, networks
// that run twice, forwards that are rare, loops of much else. Each is shown, nearly each time that a picture is due.
#include <ATen/record_function.h>
#include <torch/torch.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "beholder/beholder.h"
#include "catch.h"
#include "log_lines.h"

namespace {

using namespace std::chrono_literals;
using namespace beholder;
using Clock = std::chrono::steady_clock;
using torch::Tensor;
namespace nn = torch::nn;

using Shown = std::shared_ptr<const Picture>;

class Collector : public Callback {
 public:
  std::string name() const override { return "collector"; }
  void open(const Run& run) override {
    std::lock_guard<std::mutex> lock(mutex_);
    value_at_ = run.value_at;
  }
  void show(Shown picture) override {
    std::lock_guard<std::mutex> lock(mutex_);
    pictures_.push_back(std::move(picture));
  }
  std::vector<Shown> pictures() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return pictures_;
  }
  /// Whether the render thread answered a question, which it does between its other work.
  bool answered() const {
    decltype(Run::value_at) ask;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ask = value_at_;
    }
    if (!ask) return false;
    constexpr auto kGivenUpAfter = 250ms;
    const auto begun = Clock::now();
    ask(std::numeric_limits<uint64_t>::max(), 0, 0);  // of no picture
    return Clock::now() - begun < kGivenUpAfter;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Shown> pictures_;       // guarded by mutex_
  decltype(Run::value_at) value_at_;  // guarded by mutex_
};

/// 60 pictures a second wished, and no budget between them and the training.
Options options_for(Values values, Mode mode = Mode::Current) {
  Options options;
  options.canvas_width = 480;
  options.canvas_height = 320;
  options.max_overhead = 1;
  options.max_background = 64;
  options.settings.values = values;
  options.settings.mode = mode;
  options.settings.window_size = 5;
  options.settings.fps = 60;
  return options;
}

constexpr auto kLongest = 60s;  // for what takes milliseconds where the machine has nothing else to do

struct Watched {
  std::shared_ptr<Collector> collector = std::make_shared<Collector>();
  beholder::Beholder beholder;

  explicit Watched(const Options& options) : beholder(std::string(BEHOLDER_BINARY_DIR) + "/tests/trainings", options) {
    beholder.add(collector);
  }

  /// Or until the next forward is watched already, where update() expected a picture to be due after it.
  bool wait_until_due() const {
    for (const auto end = Clock::now() + kLongest; Clock::now() < end; std::this_thread::sleep_for(200us)) {
      if (beholder.due() || at::hasThreadLocalCallbacks()) return true;
    }
    return false;
  }

  /// Runs `step` (which calls update()) until the first picture, for whose plan update() does not wait long; and then
  /// `times` times, each when a picture is due, and the pictures and plans before are done: how fast this machine
  /// renders is not the question. Returns how many of those were captured.
  int64_t shown_of(int times, const std::function<void()>& step) {
    const auto turn = [&] {
      settle();
      REQUIRE(wait_until_due());
      step();
    };
    for (const auto end = Clock::now() + kLongest; beholder.state().captured == 0 && Clock::now() < end;) turn();
    const int64_t before = beholder.state().captured;
    REQUIRE(before > 0);
    for (int i = 0; i < times; ++i) turn();
    return beholder.state().captured - before;
  }
  /// The same for activations, of which an update() arms one forward, and the next captures it.
  int64_t activations_of(int times, const std::function<void()>& step) {
    return shown_of(times, [&] {
      step();
      step();
    });
  }
  /// Waits until all that was captured is shown, and the plan that was asked for is made.
  void settle() const {
    for (const auto end = Clock::now() + kLongest; Clock::now() < end; std::this_thread::sleep_for(1ms)) {
      const State state = beholder.state();
      if (state.captured != state.rendered || collector->pictures().size() != static_cast<size_t>(state.rendered))
        continue;
      // The render thread begins a plan that is asked for together with the answer to a question, or before it; and
      // the answer to the next one is after that plan.
      if (collector->answered() && collector->answered()) return;
    }
    FAIL("pictures are still under way");
  }
  std::set<std::string> names_shown() const {
    settle();
    std::set<std::string> names;
    for (const auto& picture : collector->pictures()) {
      for (const auto& info : picture->sections) {
        if (!info.absent_since) names.insert(info.name);
      }
    }
    return names;
  }
};

constexpr int kTimes = 40, kNearlyAll = 36;  // nine of ten

int64_t random_number(int64_t least, int64_t most) { return torch::randint(least, most + 1, {1}).item<int64_t>(); }

struct TaggerImpl : nn::Module {
  nn::Embedding words{20, 8};
  nn::LSTM lstm{nn::LSTMOptions(8, 12).batch_first(true)};
  nn::Linear tags{12, 4};
  TaggerImpl() {
    register_module("words", words);
    register_module("lstm", lstm);
    register_module("tags", tags);
  }
  Tensor forward(const Tensor& sentences, const Tensor& lengths) {
    const auto packed = nn::utils::rnn::pack_padded_sequence(words(sentences), lengths, /*batch_first=*/true);
    return tags(std::get<0>(lstm->forward_with_packed_input(packed)).data());
  }
};
TORCH_MODULE(Tagger);

struct ExpertsImpl : nn::Module {
  std::vector<nn::Linear> experts;
  nn::Linear head{6, 2};
  ExpertsImpl() {
    for (int i = 0; i < 4; ++i) experts.push_back(register_module("expert" + std::to_string(i), nn::Linear(5, 6)));
    register_module("head", head);
  }
  Tensor forward(const Tensor& x, int64_t expert) { return head(experts[expert](x).relu()); }
};
TORCH_MODULE(Experts);

void forget_gradients(nn::Module& module) {
  for (auto& parameter : module.parameters()) parameter.mutable_grad().reset();
}

}  // namespace

// ---- shapes that change at each step

TEST_CASE("sequences of other lengths at each step are shown, packed ones too") {
  const auto values = GENERATE(Values::Gradients, Values::Activations);
  Watched watched(options_for(values));
  Tagger net;
  watched.beholder.attach(net);
  torch::optim::Adam optimizer(net->parameters(), 1e-3);
  int64_t tokens = 0;
  const auto step = [&] {
    const int64_t batch = random_number(2, 6), longest = random_number(3, 12);
    Tensor lengths = std::get<0>(torch::randint(1, longest + 1, {batch}, torch::kLong).sort(0, /*descending=*/true));
    lengths[0] = longest;
    tokens = lengths.sum().item<int64_t>();
    optimizer.zero_grad();
    net->forward(torch::randint(20, {batch, longest}), lengths).pow(2).mean().backward();
    optimizer.step();
    watched.beholder.update();
  };
  for (int i = 0; i < 10; ++i) step();
  if (values == Values::Gradients) {
    CHECK(watched.shown_of(kTimes, step) >= kNearlyAll);
    return;
  }
  CHECK(watched.activations_of(kTimes, step) >= kNearlyAll);
  CHECK(watched.names_shown() == std::set<std::string>{"words", "lstm", "tags"});
  for (const auto& picture : watched.collector->pictures()) {
    for (const auto& info : picture->sections) {
      if (info.name != "tags" || info.absent_since) continue;
      CHECK(info.shape.at(1) == 4);
      CHECK(info.statistics.count <= info.values_total);  // no value of another step, none of nowhere
      CHECK(info.values_total == info.shape.at(0) * 4);
    }
  }
  CHECK(watched.beholder.state().errors == 0);
}

TEST_CASE("batches of random lengths are shown, each with the values and the shape of its own step") {
  const auto layout = GENERATE(LayoutKind::Fit, LayoutKind::Classic);
  Options options = options_for(Values::Activations);
  options.settings.layout = layout;
  options.settings.show_all = GENERATE(false, true);
  Watched watched(options);
  nn::Sequential net(nn::Conv1d(2, 3, 3), nn::ReLU(), nn::Conv1d(3, 4, 3));
  watched.beholder.attach(net);
  std::vector<Tensor> outputs;  // of each step
  const auto step = [&] {
    const Tensor out = net->forward(torch::randn({random_number(1, 9), 2, random_number(10, 59)}));
    outputs.push_back(out.detach());
    out.pow(2).mean().backward();
    watched.beholder.update();
  };
  for (int i = 0; i < 30; ++i) step();
  CHECK(watched.activations_of(kTimes, step) >= kNearlyAll);
  watched.settle();
  int whole = 0;
  for (const auto& picture : watched.collector->pictures()) {
    for (const auto& info : picture->sections) {
      if (info.name != "2" || info.absent_since) continue;
      const Tensor& right = outputs.at(picture->step);
      CHECK(info.shape == right.sizes().vec());
      if (info.statistics.count != right.numel()) continue;
      ++whole;
      CHECK(info.statistics.min == right.min().item<float>());
      CHECK(info.statistics.max == right.max().item<float>());
    }
  }
  CHECK(whole >= 10);
  CHECK(watched.beholder.state().errors == 0);
}

TEST_CASE("arrays of other lengths, and under names that are new each time, are shown") {
  Watched watched(options_for(Values::Arrays));
  int64_t n = 0;
  std::vector<Arrays> given;
  SECTION("lengths") {
    const auto step = [&] {
      given.push_back({{"a", torch::randn({random_number(1, 40)})}, {"b", torch::randn({random_number(1, 9), 7})}});
      watched.beholder.update(given.back());
    };
    for (int i = 0; i < 10; ++i) step();
    CHECK(watched.shown_of(kTimes, step) >= kNearlyAll);
  }
  SECTION("names") {
    const auto step = [&] {
      given.push_back({{"step " + std::to_string(n++), torch::randn({6, 7})}, {"same", torch::randn({5})}});
      watched.beholder.update(given.back());
    };
    for (int i = 0; i < 10; ++i) step();
    CHECK(watched.shown_of(kTimes, step) >= kNearlyAll);
    CHECK(watched.beholder.state().captured <= n);
  }
  watched.settle();
  for (const auto& picture : watched.collector->pictures()) {
    const Arrays& arrays = given.at(picture->step);
    CHECK(picture->sections.size() <= 10);
    size_t came = 0;
    for (const auto& info : picture->sections) {
      if (info.absent_since) continue;
      const auto found = std::find_if(arrays.begin(), arrays.end(), [&](const auto& a) { return a.name == info.name; });
      REQUIRE(found != arrays.end());
      CHECK(info.complete == (info.statistics.count == found->tensor.numel()));  // or its place was too small this time
      if (info.complete) CHECK(info.statistics.max == found->tensor.max().item<float>());
      ++came;
    }
    CHECK(came >= 1);
  }
}

TEST_CASE("experts chosen at random keep their places, and say since when they did not come") {
  const auto values = GENERATE(Values::Gradients, Values::Activations);
  Watched watched(options_for(values));
  Experts net;
  watched.beholder.attach(net);
  std::vector<int64_t> chosen;  // of each step
  const auto step = [&] {
    chosen.push_back(random_number(0, 3));
    forget_gradients(*net);
    net->forward(torch::randn({random_number(2, 5), 5}), chosen.back()).pow(2).mean().backward();
    watched.beholder.update();
  };
  const auto turn = [&](int times) {
    return values == Values::Gradients ? watched.shown_of(times, step) : watched.activations_of(times, step);
  };
  for (int i = 0; i < 60; ++i) step();
  CHECK(turn(kTimes) >= kNearlyAll);
  // One that has not come in the pictures so far is looked for now and then.
  const auto places = [&] {
    watched.settle();
    const auto& sections = watched.collector->pictures().back()->sections;
    return std::count_if(sections.begin(), sections.end(), [&](const auto& info) {
      return info.name.find("expert") == 0 && (values != Values::Gradients || info.name.find(".weight") == 7);
    });
  };
  for (const auto end = Clock::now() + kLongest; places() < 4 && Clock::now() < end;) turn(1);
  const size_t known = watched.collector->pictures().size();
  CHECK(turn(kTimes) >= kNearlyAll);
  watched.settle();
  const std::string suffix = values == Values::Gradients ? ".weight" : "";
  const auto pictures = watched.collector->pictures();
  size_t with_all = 0;
  for (size_t n = 0; n < pictures.size(); ++n) {
    const auto& picture = pictures[n];
    size_t experts = 0;
    for (const auto& info : picture->sections) {
      for (int64_t i = 0; i < 4; ++i) {
        if (info.name != "expert" + std::to_string(i) + suffix) continue;
        ++experts;
        INFO(info.name << " in step " << picture->step);
        CHECK((chosen.at(picture->step) == i) == !info.absent_since);
        if (info.absent_since) CHECK(*info.absent_since <= picture->step);
      }
    }
    with_all += n >= known && experts == 4 ? 1 : 0;
  }
  CHECK(with_all * 10 >= (pictures.size() - known) * 9);
}

TEST_CASE("variance and change go on for what stays the same while other shapes change") {
  const auto mode = GENERATE(Mode::Variance, Mode::Change);
  Watched watched(options_for(Values::Arrays, mode));
  int64_t n = 0;
  const auto step = [&] {
    ++n;
    watched.beholder.update({{"same", torch::full({4, 5}, static_cast<double>(n)).add_(torch::arange(5))},
                             {"grows", torch::randn({n / 3 + 1, 3})}});
  };
  watched.shown_of(40, step);
  watched.settle();
  const auto pictures = watched.collector->pictures();
  REQUIRE(pictures.size() > 20);
  int64_t before = -1;
  for (size_t i = 0; i < pictures.size(); ++i) {
    const Picture& picture = *pictures[i];
    const auto& same = picture.sections.at(0);
    REQUIRE(same.name == "same");
    if (i >= 10 && mode == Mode::Change) {
      CHECK(same.statistics.min == static_cast<double>(picture.step - before));
      CHECK(same.statistics.max == static_cast<double>(picture.step - before));
    }
    if (i >= 10 && mode == Mode::Variance) {
      CHECK(picture.history_size == 5);
      CHECK(same.statistics.min > 0.5);
      CHECK(same.statistics.nans == 0);
    }
    CHECK(picture.sections.at(1).statistics.nans == 0);
    before = picture.step;
  }
}

// ---- activations that were missing

namespace {

struct PartsImpl : nn::Module {
  nn::Linear encoder{4, 6}, cell{6, 6}, head{6, 2};
  PartsImpl() {
    register_module("encoder", encoder);
    register_module("cell", cell);
    register_module("head", head);
  }
};
TORCH_MODULE(Parts);

struct Doubled : torch::autograd::Function<Doubled> {
  static Tensor forward(torch::autograd::AutogradContext*, const Tensor& x, nn::LinearImpl* inside) {
    return inside->forward(x) * 2;
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext*, torch::autograd::tensor_list grads) {
    return {grads[0].matmul(torch::ones({6, 6})), Tensor()};
  }
};

using Names = std::set<std::string>;

}  // namespace

TEST_CASE("activations: what runs without grad before what runs with it is shown") {
  Watched watched(options_for(Values::Activations));
  Parts net;
  watched.beholder.attach(net);
  std::function<Tensor(const Tensor&)> forward;
  Names expected;
  SECTION("a frozen backbone under NoGradGuard") {
    forward = [&](const Tensor& x) {
      Tensor features;
      {
        const torch::NoGradGuard no_grad;
        features = net->cell(net->encoder(x));
      }
      return net->head(features);
    };
    expected = {"encoder", "cell", "head"};
  }
  SECTION("the same, after an evaluation") {
    forward = [&](const Tensor& x) {
      Tensor features;
      {
        const torch::NoGradGuard no_grad;
        net->head(net->cell(net->encoder(torch::zeros({9, 4}))));
        features = net->cell(net->encoder(x));
      }
      return net->head(features);
    };
    expected = {"head"};  // and of the evaluation nothing
  }
  SECTION("a layer inside an autograd::Function") {
    forward = [&](const Tensor& x) { return net->head(Doubled::apply(net->encoder(x), net->cell.get())); };
    expected = {"encoder", "cell", "head"};
  }
  SECTION("an encoder that runs twice, and then a head") {
    forward = [&](const Tensor& x) { return net->head(net->encoder(x) * net->encoder(x.flip(0))); };
    expected = {"encoder", "encoder #2", "head"};
  }
  SECTION("a recurrent loop, and then a head") {
    forward = [&](const Tensor& x) {
      Tensor h = net->encoder(x);
      for (int i = 0; i < 3; ++i) h = net->cell(h).tanh();
      return net->head(h);
    };
    expected = {"encoder", "cell", "cell #2", "cell #3", "head"};
  }
  std::vector<Tensor> outputs;
  const auto step = [&] {
    net->zero_grad();
    const Tensor out = forward(torch::randn({3, 4}));
    outputs.push_back(out.detach());
    out.pow(2).mean().backward();
    watched.beholder.update();
  };
  CHECK(watched.activations_of(20, step) >= 18);
  CHECK(watched.names_shown() == expected);
  for (const auto& picture : watched.collector->pictures()) {
    for (const auto& info : picture->sections) {
      if (info.name == "head") CHECK(info.statistics.max == outputs.at(picture->step).max().item<float>());
    }
  }
}

TEST_CASE("activations: a generator between two forwards of a discriminator is shown, and they once") {
  Watched watched(options_for(Values::Activations));
  nn::Sequential discriminator(nn::Linear(4, 5), nn::LeakyReLU(), nn::Linear(5, 1));
  nn::Sequential generator(nn::Linear(3, 5), nn::ReLU(), nn::Linear(5, 4));
  watched.beholder.attach(discriminator, "d");
  watched.beholder.attach(generator, "g");
  std::vector<Tensor> real;
  const auto step = [&] {
    discriminator->zero_grad();
    const Tensor out = discriminator->forward(torch::randn({6, 4}));
    real.push_back(out.detach());
    out.mean().backward();
    const Tensor fake = generator->forward(torch::randn({6, 3}));
    discriminator->forward(fake.detach()).mean().backward();
    generator->zero_grad();
    discriminator->forward(fake).mean().neg().backward();
    watched.beholder.update();
  };
  CHECK(watched.activations_of(20, step) >= 18);
  CHECK(watched.names_shown() == Names{"d.0", "d.2", "g.0", "g.2"});
  for (const auto& picture : watched.collector->pictures()) {
    for (const auto& info : picture->sections) {
      if (info.name == "d.2") CHECK(info.statistics.max == real.at(picture->step).max().item<float>());
    }
  }
}

TEST_CASE("activations: a forward that is rarer than update() is waited for, and no picture says that there is none") {
  Watched watched(options_for(Values::Activations));
  Parts net;
  watched.beholder.attach(net);
  const auto end = Clock::now() + kLongest;
  for (int i = 0; i < 400 || (watched.beholder.state().captured < 5 && Clock::now() < end); ++i) {
    if (i % 10 == 0) net->head(net->encoder(torch::randn({3, 4}))).sum().backward();
    watched.beholder.update();
    std::this_thread::sleep_for(500us);
  }
  watched.settle();
  const auto pictures = watched.collector->pictures();
  CHECK(pictures.size() >= 5);
  for (const auto& picture : pictures) CHECK(picture->message == "");
}

TEST_CASE("activations: weights that are loaded, cast or replaced are seen") {
  LogLines log;
  Options options = options_for(Values::Activations);
  options.max_overhead = 0.02;  // (hooks that see nothing cost next to nothing)
  Watched watched(options);
  nn::Sequential net(nn::Linear(4, 6), nn::ReLU(), nn::Linear(6, 2));
  watched.beholder.attach(net);
  torch::optim::SGD optimizer(net->parameters(), 0.1);
  const auto train = [&](c10::ScalarType dtype) {
    optimizer.zero_grad();
    net->forward(torch::randn({3, 4}, dtype)).sum().backward();
  };
  std::stringstream file;
  torch::save(net, file);
  const std::string bytes = file.str();
  std::function<void()> step;
  SECTION("cast for each forward") {
    step = [&] {
      net->to(torch::kBFloat16);
      train(torch::kBFloat16);
      net->to(torch::kFloat);
      optimizer.step();
    };
  }
  SECTION("loaded before each forward") {
    step = [&] {
      std::stringstream again(bytes);
      torch::load(net, again);
      train(torch::kFloat);
    };
  }
  SECTION("averages in place of the weights, for a while") {
    step = [&] {
      std::vector<Tensor> own;
      for (auto& parameter : net->parameters()) {
        own.push_back(parameter.detach());
        parameter.set_data(parameter.detach() * 0.9);
      }
      train(torch::kFloat);
      size_t i = 0;
      for (auto& parameter : net->parameters()) parameter.set_data(own[i++]);
    };
  }
  SECTION("replaced by others, of the same names") {
    struct Access : nn::Module {
      static auto member() { return &Access::parameters_; }
    };
    step = [&] {
      for (const size_t i : {0, 2}) {
        auto& layer = net->at<nn::LinearImpl>(i);
        for (auto* parameter : {&layer.weight, &layer.bias}) {
          *parameter = parameter->detach().clone().requires_grad_();
        }
        (layer.*Access::member())["weight"] = layer.weight;
        (layer.*Access::member())["bias"] = layer.bias;
      }
    };
    for (int i = 0; i < 3; ++i) {  // armed, replaced
      step();
      watched.beholder.update();
    }
    step = [&] { train(torch::kFloat); };
  }
  // Of the steps those count that the budget has room for: to wait for the first plan may cost some seconds of it.
  constexpr int kMost = 100;
  int steps = 0;
  const auto end = Clock::now() + 2 * kLongest;
  while (steps < kMost && watched.beholder.state().captured < 5 && Clock::now() < end) {
    watched.settle();
    step();
    steps += watched.beholder.due() ? 1 : 0;
    watched.beholder.update();
    std::this_thread::sleep_for(20ms);
  }
  CHECK(watched.beholder.state().captured >= 5);
  CHECK(watched.names_shown() == Names{"0", "2"});
  CHECK(log.count("no activations seen") == 0);
}

TEST_CASE("activations: hooks are gone once all has come, and watching for nothing has an end") {
  Watched watched(options_for(Values::Activations));
  Parts net;
  watched.beholder.attach(net);
  const Tensor x = torch::ones({2});
  const auto small_operators = [&](int count) {
    for (int i = 0; i < count; ++i) x.add(1);
  };
  const torch::NoGradGuard no_grad;
  const auto forward = [&] { net->head(net->cell(net->encoder(torch::randn({3, 4})))); };
  for (int i = 0; i < 40; ++i) {  // it is known what comes
    forward();
    small_operators(30);
    watched.beholder.update();
    std::this_thread::sleep_for(1ms);
    watched.settle();
  }
  int armed = 0, seen = 0;
  for (int i = 0; i < 20; ++i) {
    watched.settle();
    REQUIRE(watched.wait_until_due());
    watched.beholder.update();
    armed += at::hasThreadLocalCallbacks() ? 1 : 0;
    forward();
    small_operators(30);
    seen += at::hasThreadLocalCallbacks() ? 1 : 0;
    watched.beholder.update();
  }
  CHECK(armed >= 15);
  CHECK(seen <= 5);  // (now and then one looks around to the end)
  // Nothing comes: after some hundredths of a second of watching it is given up.
  watched.settle();
  REQUIRE(watched.wait_until_due());
  watched.beholder.update();
  REQUIRE(at::hasThreadLocalCallbacks());
  for (int i = 0; i < 5'000'000 && at::hasThreadLocalCallbacks(); i += 1000) small_operators(1000);
  CHECK_FALSE(at::hasThreadLocalCallbacks());
  for (int i = 0; i < 60; ++i) {  // and it is found again
    forward();
    watched.beholder.update();
    std::this_thread::sleep_for(2ms);
    watched.settle();
  }
  watched.settle();
  CHECK(watched.collector->pictures().back()->step >= watched.beholder.state().step - 40);
}

TEST_CASE("activations: other settings are followed where steps are slower than the pictures wished") {
  Watched watched(options_for(Values::Activations));
  Parts net;
  watched.beholder.attach(net);
  const auto step = [&] {
    std::this_thread::sleep_for(25ms);  // 60 pictures a second are wished: each step is watched
    net->head(net->encoder(torch::randn({3, 4}))).sum().backward();
    watched.beholder.update();
    watched.settle();
  };
  for (int i = 0; i < 10; ++i) step();
  REQUIRE(watched.beholder.state().captured >= 5);
  watched.beholder.settings().set_by_name("fps", "0");
  step();
  const int64_t before = watched.beholder.state().captured;
  for (int i = 0; i < 10; ++i) step();
  CHECK(watched.beholder.state().captured <= before + 1);
  watched.beholder.settings().set_by_name("fps", "60");
  for (int i = 0; i < 10; ++i) step();
  CHECK(watched.beholder.state().captured >= before + 4);
}

// ---- names and lengths that change together

namespace {

constexpr int kFewer = 20, kNearlyAllOfFewer = 18;

/// Options of a training whose update() cannot wait for a plan: what has no place is not shown in this picture.
Options impatient(Values values, LayoutKind layout = LayoutKind::Fit) {
  Options options = options_for(values);
  options.max_overhead = 0.02;
  options.settings.layout = layout;
  return options;
}

}  // namespace

TEST_CASE("arrays whose name and length are new each time are shown, alone and beside others") {
  const bool beside = GENERATE(false, true);
  const bool filtered = beside;
  Options options = impatient(Values::Arrays);
  if (filtered) options.settings.filter = "attention*,same";
  options.canvas_width = 960;  // with room for all values
  options.canvas_height = 640;
  Watched watched(options);
  std::vector<Arrays> given;
  const auto step = [&] {
    const int64_t length = random_number(2, 12);
    const std::string sentence = std::to_string(given.size());
    Arrays arrays{{"attention: " + sentence, torch::rand({length, length})}};
    if (beside) {
      arrays.insert(arrays.begin(), {"same", torch::rand({9, 9})});
      arrays.push_back({"attention, a vector: " + sentence, torch::rand({random_number(1, 20)})});
    }
    given.push_back(arrays);
    watched.beholder.update(given.back());
  };
  for (int i = 0; i < 10; ++i) step();
  CHECK(watched.shown_of(kFewer, step) >= kNearlyAllOfFewer);
  watched.settle();
  const auto pictures = watched.collector->pictures();
  int with_new_name = 0, whole = 0;
  for (const auto& picture : pictures) {
    bool new_name = false;
    for (const auto& info : picture->sections) {
      if (info.absent_since) continue;
      const Arrays& arrays = given.at(picture->step);
      const auto found = std::find_if(arrays.begin(), arrays.end(), [&](const auto& a) { return a.name == info.name; });
      REQUIRE(found != arrays.end());
      CHECK(info.shape == found->tensor.sizes().vec());
      const bool attention = info.name.find("attention: ") == 0;
      new_name = new_name || attention;
      if (!info.complete) continue;
      whole += attention ? 1 : 0;
      CHECK(info.statistics.min == found->tensor.min().item<float>());
      CHECK(info.statistics.max == found->tensor.max().item<float>());
    }
    CHECK(picture->sections.size() <= 16);
    with_new_name += new_name ? 1 : 0;
  }
  CHECK(with_new_name * 10 >= static_cast<int>(pictures.size()) * 9);
  CHECK(whole * 10 >= static_cast<int>(pictures.size()) * 7);  // the place is soon as large as the largest
  CHECK(watched.beholder.state().errors == 0);
}

TEST_CASE("a name that is new takes no place of one that comes again, and leaves it where that comes after all") {
  const auto values = GENERATE(Values::Arrays, Values::Activations);
  Watched watched(impatient(values));
  int64_t n = 0;
  std::vector<bool> came;  // "sometimes", in each step
  const auto step = [&] {
    came.push_back(n % 2 == 0);
    const std::string name = "step " + std::to_string(n++);
    if (values == Values::Arrays) {
      Arrays arrays{{name, torch::rand({4, random_number(3, 6)})}, {"always", torch::rand({4, 5})}};
      if (came.back()) arrays.push_back({"sometimes", torch::rand({4, 5})});
      watched.beholder.update(arrays);
      return;
    }
    watched.beholder.tap(name.c_str(), torch::rand({4, random_number(3, 6)}));
    watched.beholder.tap("always", torch::rand({4, 5}));
    if (came.back()) watched.beholder.tap("sometimes", torch::rand({4, 5}));
    watched.beholder.update();
  };
  const auto turn = [&](int times) {
    return values == Values::Arrays ? watched.shown_of(times, step) : watched.activations_of(times, step);
  };
  for (int i = 0; i < 11; ++i) step();
  turn(6);
  const size_t before = watched.collector->pictures().size();
  CHECK(turn(kFewer) >= kNearlyAllOfFewer);
  watched.settle();
  const auto pictures = watched.collector->pictures();
  int with_new_name = 0;
  for (size_t i = before; i < pictures.size(); ++i) {
    int sometimes = 0, always = 0, steps = 0;
    for (const auto& info : pictures[i]->sections) {
      always += info.name == "always" && !info.absent_since ? 1 : 0;
      steps += info.name == "step " + std::to_string(pictures[i]->step) && !info.absent_since ? 1 : 0;
      if (info.name != "sometimes") continue;
      ++sometimes;
      CHECK(came.at(pictures[i]->step) == !info.absent_since);
    }
    CHECK(sometimes == 1);  // also where it does not come: it keeps its place
    CHECK(always == 1);
    with_new_name += steps;
  }
  CHECK(with_new_name * 10 >= static_cast<int>(pictures.size() - before) * 9);
}

TEST_CASE("taps whose name is new in each step are shown, with other lengths too") {
  const bool beside = GENERATE(false, true);
  const bool lengths = !beside;
  Watched watched(impatient(Values::Activations));
  Parts net;
  if (beside) watched.beholder.attach(net);
  std::vector<Tensor> given;
  const auto step = [&] {
    given.push_back(torch::rand({lengths ? random_number(2, 9) : 5, 7}));
    if (beside) net->head(net->cell(net->encoder(torch::randn({3, 4})))).sum().backward();
    beholder::tap("step " + std::to_string(given.size() - 1), given.back());
    watched.beholder.update();
  };
  for (int i = 0; i < 10; ++i) step();
  CHECK(watched.activations_of(kFewer, step) >= kNearlyAllOfFewer);
  watched.settle();
  const auto pictures = watched.collector->pictures();
  int with_new_name = 0, whole = 0;
  for (const auto& picture : pictures) {
    for (const auto& info : picture->sections) {
      if (info.name != "step " + std::to_string(picture->step) || info.absent_since) continue;
      const Tensor& right = given.at(picture->step);
      ++with_new_name;
      CHECK(info.shape == right.sizes().vec());
      if (!info.complete) continue;
      ++whole;
      CHECK(info.statistics.min == right.min().item<float>());
      CHECK(info.statistics.max == right.max().item<float>());
    }
    CHECK(picture->sections.size() <= 12);
  }
  CHECK(with_new_name * 10 >= static_cast<int>(pictures.size()) * 8);
  CHECK(whole * 10 >= static_cast<int>(pictures.size()) * 7);
  CHECK(watched.beholder.state().errors == 0);
}

TEST_CASE("feature maps and kernels of other sizes at each step are one array, whichever they look like") {
  Watched watched(impatient(Values::Arrays));
  const auto step = [&] {  // up to 11 x 11 an array of rank 4 is read as kernels
    watched.beholder.update(
        {{"maps", torch::rand({2, 3, random_number(6, 16), random_number(6, 16)})}, {"same", torch::rand({4, 5})}});
  };
  for (int i = 0; i < 10; ++i) step();
  CHECK(watched.shown_of(kFewer, step) >= kNearlyAllOfFewer);
  watched.settle();
  const auto pictures = watched.collector->pictures();
  size_t with_maps = 0;
  for (const auto& picture : pictures) {
    for (const auto& info : picture->sections) with_maps += info.name == "maps" && !info.absent_since ? 1 : 0;
  }
  CHECK(with_maps * 10 >= pictures.size() * 9);
}

// ---- frames, and what is made dense, of other sizes at each step

TEST_CASE("frames of other sizes at each step are shown, and films stay few in the classic layout") {
  const auto layout = GENERATE(LayoutKind::Fit, LayoutKind::Classic);
  const auto values = GENERATE(Values::Frame, Values::Arrays);
  const bool rgb = GENERATE(false, true), grows = GENERATE(false, true);
  INFO(to_string(layout) << " " << to_string(values) << (rgb ? " rgb" : " gray") << (grows ? " grows" : ""));
  Watched watched(impatient(values, layout));
  std::vector<Tensor> given;
  const auto step = [&] {
    const auto n = static_cast<int64_t>(given.size());
    const int64_t height = grows ? 20 + n : random_number(20, 60), width = grows ? 30 + n : random_number(20, 60);
    given.push_back(rgb ? torch::rand({3, height, width}) : torch::rand({height, width}));
    if (values == Values::Frame) {
      watched.beholder.update([&] { return given.back(); });
    } else {
      watched.beholder.update({{"img", given.back(), Kind::Frame}, {"w", torch::rand({5, 6})}});
    }
  };
  for (int i = 0; i < 10; ++i) step();
  CHECK(watched.shown_of(kFewer, step) >= kNearlyAllOfFewer);
  watched.settle();
  const auto pictures = watched.collector->pictures();
  int sizes = 0, whole = 0;
  std::pair<int, int> before;
  for (const auto& picture : pictures) {
    sizes += before != std::make_pair(picture->width, picture->height) ? 1 : 0;
    before = {picture->width, picture->height};
    const auto& info = picture->sections.at(0);
    const Tensor& right = given.at(picture->step);
    REQUIRE_FALSE(info.absent_since);
    CHECK(info.shape == right.sizes().vec());
    CHECK(info.statistics.nans == 0);
    if (!info.complete) continue;
    ++whole;
    CHECK(info.statistics.min == right.min().item<float>());
    CHECK(info.statistics.max == right.max().item<float>());
  }
  CHECK(sizes <= (layout == LayoutKind::Classic ? 8 : 1));
  if (layout == LayoutKind::Classic || !grows) CHECK(whole * 2 > static_cast<int>(pictures.size()));
  CHECK(watched.beholder.state().errors == 0);
}

TEST_CASE("a classic picture of all values grows rarely where an array grows at each step") {
  Options options = impatient(Values::Arrays, LayoutKind::Classic);
  options.settings.show_all = true;
  Watched watched(options);
  int64_t rows = 128;
  const auto step = [&] { watched.beholder.update({{"grows", torch::rand({++rows, 5})}}); };
  CHECK(watched.shown_of(kFewer, step) >= kNearlyAllOfFewer);
  watched.settle();
  std::set<std::pair<int, int>> sizes;
  for (const auto& picture : watched.collector->pictures()) sizes.emplace(picture->width, picture->height);
  CHECK(sizes.size() <= 3);
}

TEST_CASE("a place of a smaller frame is background beside and below it") {
  Watched watched(impatient(Values::Frame, LayoutKind::Classic));
  const bool rgb = GENERATE(false, true);
  const auto frame = [&](int64_t height, int64_t width) {
    const Tensor gray = torch::linspace(0, 1, height * width).view({height, width});
    return rgb ? gray.expand({3, height, width}) : gray;
  };
  watched.shown_of(3, [&] { watched.beholder.update(frame(20, 30)); });
  watched.shown_of(1, [&] { watched.beholder.update(frame(10, 15)); });
  watched.settle();
  const Picture& picture = *watched.collector->pictures().back();
  REQUIRE(picture.width == 30);
  REQUIRE(picture.height == 20);
  const auto at = [&](int x, int y) { return &picture.rgb[static_cast<size_t>(3 * (y * picture.width + x))]; };
  const std::vector<uint8_t> background(at(29, 19), at(29, 19) + 3);
  int inside = 0;
  for (int y = 0; y < 20; ++y) {
    for (int x = 0; x < 30; ++x) {
      const bool is_background = std::equal(background.begin(), background.end(), at(x, y));
      if (x < 15 && y < 10) {
        inside += is_background ? 0 : 1;
      } else {
        CHECK(is_background);
      }
    }
  }
  CHECK(inside >= 140);
  CHECK(static_cast<int>(*at(14, 9)) == 255);
}

TEST_CASE("sparse and quantized arrays of other sizes at each step are shown, and take turns with dense ones") {
  const auto layout = GENERATE(LayoutKind::Fit, LayoutKind::Classic);
  const std::string kind = GENERATE("coo", "csr", "quantized", "now and then dense");
  INFO(to_string(layout) << " " << kind);
  Watched watched(impatient(Values::Arrays, layout));
  std::vector<Tensor> given;
  const auto step = [&] {
    const int64_t nodes = random_number(3, 20);
    const Tensor dense = (torch::rand({nodes, nodes}) > 0.5).to(torch::kFloat) * torch::rand({nodes, nodes});
    Tensor passed = kind == "coo" || given.size() % 2 == 0 ? dense.to_sparse() : dense;
    if (kind == "csr") passed = dense.to_sparse_csr();
    if (kind == "quantized") passed = torch::quantize_per_tensor(dense, 1.0 / 128, 0, torch::kQUInt8);
    given.push_back(kind == "quantized" ? passed.dequantize() : dense);
    watched.beholder.update({{"adjacency", passed}});
  };
  for (int i = 0; i < 10; ++i) step();
  CHECK(watched.shown_of(kFewer, step) >= kNearlyAllOfFewer);
  watched.settle();
  const auto pictures = watched.collector->pictures();
  int whole = 0;
  for (const auto& picture : pictures) {
    const auto& info = picture->sections.at(0);
    const Tensor& right = given.at(picture->step);
    CHECK(info.shape == right.sizes().vec());
    if (!info.complete) continue;
    ++whole;
    CHECK(info.statistics.max == right.max().item<float>());
    CHECK(info.statistics.zeros == right.eq(0).sum().item<int64_t>());
  }
  CHECK(whole * 10 >= static_cast<int>(pictures.size()) * 7);
  CHECK(watched.beholder.state().errors == 0);
}

TEST_CASE("an array that turns into what has no sizes, no memory or no values leaves the others shown") {
  const std::string kind = GENERATE("nested", "zeros without memory", "meta", "mkldnn", "freed", "batched");
  if (kind == "batched" && TORCH_VERSION_MAJOR > 1) return;  // later ones want a vmap around them
  if (kind == "mkldnn" && !at::hasMKLDNN()) return;
  INFO(kind);
  LogLines log;
  const auto odd = [&]() -> Tensor {
    if (kind == "nested") return at::_nested_tensor_from_tensor_list({torch::rand({2, 3}), torch::rand({4, 3})});
    if (kind == "zeros without memory") return at::_efficientzerotensor({2, 3, 4});
    if (kind == "meta") return torch::zeros({2, 3, 4}, torch::kMeta);
    if (kind == "batched") return at::_add_batch_dim(torch::rand({9, 2, 3, 4}), 0, 1);
    if (kind == "mkldnn") return torch::rand({2, 3, 4}).to_mkldnn();
    Tensor freed = torch::rand({2, 3, 4});
    freed.storage().unsafeGetStorageImpl()->set_nbytes(0);
    return freed;
  };
  Watched watched(impatient(Values::Arrays));
  bool turned = false;
  const auto step = [&] {
    const Tensor good = torch::rand({5, 6});
    watched.beholder.update({{"good", good},
                             {"b", good},
                             {"c", good},
                             {"d", good},
                             {"turns", turned ? odd() : torch::rand({2, 3, 4})},
                             {"good too", good}});
  };
  CHECK(watched.shown_of(10, step) >= 9);
  turned = true;
  watched.shown_of(3, step);
  CHECK(watched.shown_of(10, step) >= 9);
  watched.settle();
  const auto last = watched.collector->pictures().back();
  int good = 0;
  for (const auto& info : last->sections) good += info.name != "turns" && !info.absent_since ? 1 : 0;
  CHECK(good == 5);
  if (kind == "nested" || kind == "meta") {
    CHECK(log.count("not shown: turns") == 1);
    CHECK(watched.beholder.state().errors == 0);
  }
  turned = false;  // and it comes back, at once or when it is tried again
  if (kind == "freed" || kind == "batched") return;
  watched.shown_of(3, step);
  const auto back = (watched.settle(), watched.collector->pictures().back());
  for (const auto& info : back->sections) CHECK_FALSE(info.absent_since);
  CHECK(back->sections.size() == 6);
}

// ---- few updates

TEST_CASE("the first update() shows parameters, a single one too; the second shows activations") {
  LogLines log;
  Parts net;
  SECTION("parameters") {
    Watched watched(options_for(Values::Parameters));
    watched.beholder.attach(net);
    watched.beholder.update();
    CHECK(watched.beholder.state().captured == 1);
  }
  SECTION("parameters of modules that are attached one after the other") {
    Watched watched(options_for(Values::Parameters));
    std::vector<nn::Linear> all;
    for (int i = 0; i < 8; ++i) {
      all.emplace_back(3, 2);
      watched.beholder.attach(all.back(), "m" + std::to_string(i));
    }
    watched.beholder.update();
    CHECK(watched.beholder.state().captured == 1);
    CHECK(watched.names_shown().size() == 16);
  }
  SECTION("arrays") {
    Watched watched(options_for(Values::Arrays));
    watched.beholder.update({{"a", torch::ones({3})}});
    CHECK(watched.beholder.state().captured == 1);
  }
  SECTION("activations") {
    Watched watched(options_for(Values::Activations));
    watched.beholder.attach(net);
    for (int i = 0; i < 2; ++i) {
      net->head(net->cell(net->encoder(torch::randn({3, 4}))));
      watched.beholder.update();
    }
    CHECK(watched.beholder.state().captured == 1);
    watched.settle();
    CHECK(watched.names_shown() == Names{"encoder", "cell", "head"});
  }
  CHECK(log.all().empty());
}

TEST_CASE("a run in which nothing was shown says so at its end") {
  LogLines log;
  {
    Watched watched(options_for(Values::Activations));
    Parts net;
    watched.beholder.attach(net);
    watched.beholder.update();
  }
  CHECK(log.count("nothing was shown in 1 update()") == 1);
  CHECK(log.count("run forward between two calls of update()") == 1);
}

namespace {

/// Steps of the pictures from number `first` on.
std::vector<int64_t> steps_shown(const Watched& watched, size_t first) {
  watched.settle();
  std::vector<int64_t> steps;
  const auto pictures = watched.collector->pictures();
  for (size_t i = first; i < pictures.size(); ++i) steps.push_back(pictures[i]->step);
  return steps;
}

}  // namespace

TEST_CASE("update(Now) shows its step, whatever FPS and budgets say") {
  Options options = options_for(GENERATE(Values::Parameters, Values::Arrays));
  options.settings.fps = 0;
  options.max_overhead = 1e-6;
  options.max_background = 1e-6;
  Watched watched(options);
  Parts net;
  watched.beholder.attach(net);
  watched.beholder.update(beholder::Now, {{"a", torch::randn({3})}});  // is shown if its plan takes less than a second
  watched.settle();
  const size_t before = watched.collector->pictures().size();
  REQUIRE(before <= 1);
  watched.beholder.set_step(0);
  for (int i = 0; i < 10; ++i) {
    watched.beholder.update({{"a", torch::randn({3})}});
    watched.beholder.update(beholder::Now, {{"a", torch::randn({3})}});
    watched.settle();
  }
  CHECK(steps_shown(watched, before) == std::vector<int64_t>{1, 3, 5, 7, 9, 11, 13, 15, 17, 19});
}

TEST_CASE("update(Now) shows the steps that are asked for, and no other") {
  const Values values = GENERATE(Values::Parameters, Values::Gradients, Values::Arrays, Values::Activations);
  CAPTURE(to_string(values));
  LogLines log;
  Options options = options_for(values);
  options.settings.fps = GENERATE(0.0, 0.001);  // the first picture of 0.001 is due at once, the second later
  CAPTURE(options.settings.fps);
  const bool low = options.settings.fps > 0;
  if (!low) options.max_overhead = options.max_background = 1e-6;
  Watched watched(options);
  Parts net;
  watched.beholder.attach(net);
  const auto forward = [&] { return net->head(net->encoder(torch::randn({3, 4}))); };
  const auto end = Clock::now() + kLongest;
  while (low && watched.beholder.state().captured == 0 && Clock::now() < end) {
    forward().sum().backward();
    watched.beholder.update({{"a", torch::randn({3})}});
    std::this_thread::sleep_for(5ms);
  }
  for (int i = 0; !low && i < 2; ++i) {  // which ask for a plan
    forward().sum().backward();
    const Arrays arrays{{"a", torch::randn({3})}};
    if (i == 0) {
      watched.beholder.update(beholder::Now, arrays);
    } else {
      watched.beholder.update(arrays);
    }
  }
  watched.settle();
  const size_t before = watched.collector->pictures().size();
  REQUIRE(before <= 1);
  if (low) REQUIRE(before == 1);
  watched.beholder.set_step(0);
  std::map<int64_t, float> largest;
  for (int64_t step = 0; step < 100; ++step) {
    const Tensor out = forward();
    largest[step] = out.max().item<float>();
    out.sum().backward();
    if (step % 10 == 5) {
      watched.beholder.update(beholder::Now, {{"a", torch::randn({3})}});
      watched.settle();
    } else {
      watched.beholder.update({{"a", torch::randn({3})}});
    }
  }
  std::vector<int64_t> asked;
  for (int64_t step = values == Values::Activations ? 25 : 5; step < 100; step += 10) asked.push_back(step);
  auto shown = steps_shown(watched, before);
  if (values == Values::Activations) {  // where the budget had room
    shown.erase(std::remove_if(shown.begin(), shown.end(), [](int64_t step) { return step == 5 || step == 15; }),
                shown.end());
    const auto pictures = watched.collector->pictures();
    for (size_t i = before; i < pictures.size(); ++i) {
      for (const auto& info : pictures[i]->sections) {
        if (info.name == "head") CHECK(info.statistics.max == largest.at(pictures[i]->step));
      }
    }
    CHECK(log.count("update(Now) shows no activations of this step") == 1);
  }
  CHECK(shown == asked);
}

/// Activations of which nothing is shown but what update(Now) asks for.
struct AskedAlone {
  AskedAlone() { watched.beholder.attach(net); }
  void forward() { net->head(net->encoder(torch::randn({3, 4}))).sum().backward(); }

  static Options options() {
    Options options = options_for(Values::Activations);
    options.settings.fps = 0;
    return options;
  }
  Watched watched{options()};
  Parts net;
};

TEST_CASE("update(Now) of activations: nothing is watched before one is asked for, or long after, or in vain") {
  const LogLines log;
  AskedAlone training;
  Watched& watched = training.watched;
  const auto forward = [&] { training.forward(); };
  const auto watching = [&](int steps) {
    int armed = 0;
    for (int i = 0; i < steps; ++i) {
      armed += at::hasThreadLocalCallbacks() ? 1 : 0;
      forward();
      watched.beholder.update();
    }
    return armed;
  };
  CHECK(watching(20) == 0);
  watched.beholder.update(beholder::Now);
  CHECK(watching(1) == 1);
  watching(1100);
  CHECK(watching(20) == 0);
  CHECK(watched.beholder.state().captured == 0);
  watched.settle();
  // Two in a row.
  for (int i = 0; i < 3; ++i) {
    watched.beholder.update(beholder::Now);
    forward();
  }
  watched.beholder.update(beholder::Now);
  CHECK(watched.beholder.state().captured >= 1);
}

TEST_CASE("update(Now) of activations: each step, and steps without a rule as far as the budget allows") {
  const LogLines log;
  AskedAlone training;
  Watched& watched = training.watched;
  const auto forward = [&] { training.forward(); };
  // The first is too late, the second asks for a plan, and the third is shown if that took less than two seconds.
  const auto begun = Clock::now();
  for (int i = 0; i < 3; ++i) {
    forward();
    watched.beholder.update(beholder::Now);
    watched.settle();
  }
  const size_t before = watched.collector->pictures().size();
  REQUIRE(before <= 1);
  SECTION("each") {
    std::vector<int64_t> asked;
    for (int64_t step = 3; step < 13; ++step) {
      forward();
      watched.beholder.update(beholder::Now);
      watched.settle();
      asked.push_back(step);
    }
    CHECK(steps_shown(watched, before) == asked);
  }
  SECTION("without a rule") {
    // The budget is all of the time: what was waited for the plan is paid for after as long again.
    std::this_thread::sleep_for(Clock::now() - begun + 10ms);
    std::vector<int64_t> asked;
    for (int64_t step = 3, next = 4, pause = 2; step < 100; ++step) {
      std::this_thread::sleep_for(3ms);
      forward();
      if (step == next) {
        asked.push_back(step);
        next += pause++;
        watched.beholder.update(beholder::Now);
        watched.settle();
      } else {
        watched.beholder.update();
      }
    }
    const auto shown = steps_shown(watched, before);
    CHECK(shown.size() + 2 >= asked.size());
    for (const int64_t step : shown) CHECK(std::count(asked.begin(), asked.end(), step) == 1);
  }
}
