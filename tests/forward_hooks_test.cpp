// What ForwardHooks reports (modules.), what it must not take for an activation (ignored.), and how it behaves when
// things go wrong (contract.).
#include "beholder/forward_hooks.h"

#include <torch/torch.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "catch.h"

namespace {

using beholder::ForwardHooks;

/// One report, with the tensor copied as a hook should.
struct Report {
  std::string name;
  int64_t call;
  bool amended, grad_mode;
  torch::Tensor tensor;
};

/// Hooks that remember everything.
struct Watch {
  std::vector<Report> reports;
  ForwardHooks hooks{[this](const ForwardHooks::Output& output) {
    reports.push_back({output.name, output.call, output.amended, output.grad_mode, output.tensor.detach().clone()});
  }};

  Watch() = default;
  explicit Watch(const torch::nn::Module& root, const std::string& name = "") {
    hooks.add(root, name);
    hooks.arm();
  }

  /// The last state of an output: undefined where there is none.
  torch::Tensor output(const std::string& name, int64_t call = 0) const {
    torch::Tensor found;
    for (const Report& report : reports) {
      if (report.name == name && report.call == call) found = report.tensor;
    }
    return found;
  }

  /// "conv1 fc fc.1": what was reported, in the order of the first report; ".1" is the second call.
  std::string names() const {
    std::vector<std::string> seen;
    for (const Report& report : reports) {
      const std::string name = report.name + (report.call > 0 ? "." + std::to_string(report.call) : "");
      if (std::find(seen.begin(), seen.end(), name) == seen.end()) seen.push_back(name);
    }
    std::string text;
    for (const std::string& name : seen) text += (text.empty() ? "" : " ") + name;
    return text;
  }
};

bool same(const torch::Tensor& a, const torch::Tensor& b) { return a.defined() && b.defined() && torch::equal(a, b); }

/// Runs a leaf module in train and eval mode, with and without grad, and compares what is reported with what forward
/// returns (`first`: the sequence, where forward returns more).
template <typename Holder, typename Run>
void check_leaf(Holder module, const Run& run) {
  for (const bool train : {true, false}) {
    for (const bool grad : {true, false}) {
      CAPTURE(train, grad);
      module->train(train);
      torch::AutoGradMode mode(grad);
      Watch watch(*module, "leaf");
      const torch::Tensor returned = run(module);
      watch.hooks.disarm();
      CHECK(watch.names() == "leaf");
      CHECK(same(watch.output("leaf"), returned));
      for (const Report& report : watch.reports) CHECK(report.grad_mode == grad);
    }
  }
}

template <typename Holder>
void check_leaf(Holder module, const torch::Tensor& input) {
  check_leaf(module, [&](Holder& m) { return m->forward(input); });
}

using namespace torch::nn;  // NOLINT: a test of torch::nn

struct NetImpl : Module {
  Conv2d conv1{register_module("conv1", Conv2d(Conv2dOptions(1, 4, 3).padding(1)))};
  BatchNorm2d bn1{register_module("bn1", BatchNorm2d(4))};
  Linear fc1{register_module("fc1", Linear(4 * 6 * 6, 16))};
  Linear fc2{register_module("fc2", Linear(16, 3))};

  torch::Tensor forward(const torch::Tensor& x) {
    auto y = torch::relu(bn1(conv1(x)));
    return fc2(torch::relu(fc1(y.flatten(1))));
  }
};
TORCH_MODULE(Net);

torch::Tensor net_input() { return torch::randn({5, 1, 6, 6}); }

/// A watched network with gradients, and nothing reported yet: the stage for everything that is no forward.
struct Trained {
  Net net;
  Watch watch;

  Trained() {
    const auto loss = net->forward(net_input()).pow(2).sum();
    loss.backward();
    watch.hooks.add(*net);
    watch.hooks.arm();
  }
};

}  // namespace

TEST_CASE("modules: Linear, 1-D to 4-D input, with and without bias") {
  for (const bool bias : {true, false}) {
    CAPTURE(bias);
    Linear linear(LinearOptions(4, 4).bias(bias));
    check_leaf(linear, torch::randn({4}));  // the result has the bias's own shape
    check_leaf(linear, torch::randn({4, 4}));
    check_leaf(linear, torch::randn({2, 3, 4}));
    check_leaf(linear, torch::randn({2, 2, 3, 4}));
  }
}

TEST_CASE("modules: convolutions") {
  check_leaf(Conv1d(2, 3, 3), torch::randn({2, 2, 8}));
  check_leaf(Conv2d(2, 3, 3), torch::randn({2, 2, 8, 8}));
  check_leaf(Conv2d(Conv2dOptions(2, 2, 3).bias(false).groups(2).padding_mode(torch::kCircular).padding(1)),
             torch::randn({2, 2, 8, 8}));
  check_leaf(Conv3d(2, 3, 3), torch::randn({2, 2, 5, 5, 5}));
  check_leaf(ConvTranspose1d(2, 3, 3), torch::randn({2, 2, 8}));
  check_leaf(ConvTranspose2d(2, 3, 3), torch::randn({2, 2, 8, 8}));
  check_leaf(ConvTranspose3d(2, 3, 3), torch::randn({2, 2, 5, 5, 5}));
}

TEST_CASE("modules: normalisations") {
  check_leaf(BatchNorm1d(3), torch::randn({4, 3}));
  check_leaf(BatchNorm1d(3), torch::randn({4, 3, 5}));
  check_leaf(BatchNorm2d(3), torch::randn({4, 3, 5, 5}));
  check_leaf(BatchNorm3d(3), torch::randn({4, 3, 2, 2, 2}));
  check_leaf(LayerNorm(LayerNormOptions({6})), torch::randn({2, 3, 6}));
  check_leaf(LayerNorm(LayerNormOptions({6})), torch::randn({6}));
  check_leaf(GroupNorm(2, 4), torch::randn({2, 4, 5}));
  check_leaf(InstanceNorm2d(InstanceNorm2dOptions(3).affine(true)), torch::randn({2, 3, 5, 5}));
}

TEST_CASE("modules: Embedding, EmbeddingBag, Bilinear, PReLU") {
  const auto indices = torch::tensor({{1, 2, 3}, {3, 0, 1}});
  check_leaf(Embedding(5, 4), indices);
  check_leaf(Embedding(EmbeddingOptions(5, 4).max_norm(0.5)), indices);
  check_leaf(EmbeddingBag(5, 4), indices);
  check_leaf(Bilinear(3, 4, 5), [](Bilinear& m) { return m->forward(torch::ones({2, 3}), torch::ones({2, 4})); });
  check_leaf(PReLU(), torch::randn({2, 3}));
}

TEST_CASE("modules: LSTM and GRU report the sequence, their cells the state") {
  const auto run = [](auto& m) { return std::get<0>(m->forward(torch::ones({3, 2, 4}))); };
  check_leaf(LSTM(LSTMOptions(4, 5)), run);
  check_leaf(LSTM(LSTMOptions(4, 5).num_layers(2).bidirectional(true).bias(false)), run);
  check_leaf(GRU(GRUOptions(4, 5)), run);
  check_leaf(RNN(RNNOptions(4, 5)), run);
  check_leaf(GRUCell(4, 5), torch::ones({2, 4}));
  check_leaf(LSTMCell(4, 5), [](LSTMCell& m) { return std::get<0>(m->forward(torch::ones({2, 4}))); });
}

TEST_CASE("modules: MultiheadAttention reports its projections") {
  MultiheadAttention attention(MultiheadAttentionOptions(8, 2));
  const auto x = torch::randn({5, 3, 8});
  Watch watch(*attention, "attention");

  SECTION("self attention: query, key and value in one") {
    const auto returned = std::get<0>(attention->forward(x, x, x));
    CHECK(watch.names() == "attention attention.out_proj");
    CHECK(same(watch.output("attention"),
               torch::nn::functional::linear(x, attention->in_proj_weight, attention->in_proj_bias)));
    CHECK(same(watch.output("attention.out_proj"), returned));
  }
  SECTION("three inputs: three calls") {
    const auto key = torch::randn({4, 3, 8}), value = torch::randn({4, 3, 8});
    const auto returned = std::get<0>(attention->forward(x, key, value));
    CHECK(watch.names() == "attention attention.1 attention.2 attention.out_proj");
    const auto weight = attention->in_proj_weight.chunk(3), bias = attention->in_proj_bias.chunk(3);
    CHECK(same(watch.output("attention", 1), torch::nn::functional::linear(key, weight[1], bias[1])));
    CHECK(same(watch.output("attention", 2), torch::nn::functional::linear(value, weight[2], bias[2])));
    CHECK(same(watch.output("attention.out_proj"), returned));
  }
}

TEST_CASE("modules: TransformerEncoderLayer in a TransformerEncoder") {
  TransformerEncoder encoder(
      TransformerEncoderOptions(TransformerEncoderLayer(TransformerEncoderLayerOptions(8, 2).dim_feedforward(16)), 2));
  encoder->eval();
  Watch watch(*encoder, "encoder");
  const auto returned = encoder->forward(torch::randn({5, 3, 8}));
  const std::string layer =
      "encoder.layers.0.self_attn encoder.layers.0.self_attn.out_proj encoder.layers.0.norm1 "
      "encoder.layers.0.linear1 encoder.layers.0.linear2 encoder.layers.0.norm2";
  const std::string second = std::regex_replace(layer, std::regex("layers.0"), "layers.1");
  CHECK(watch.names() == layer + ' ' + second);
  CHECK(same(watch.output("encoder.layers.1.norm2"), returned));
  CHECK(watch.output("encoder.layers.0.linear1").sizes() == torch::IntArrayRef({5, 3, 16}));
}

TEST_CASE("modules: a network, each output before it is changed in place") {
  Net net;
  const auto x = net_input();
  Watch watch(*net);
  const auto returned = net->forward(x);
  CHECK(watch.names() == "conv1 bn1 fc1 fc2");
  CHECK(same(watch.output("conv1"), net->conv1(x)));
  CHECK(same(watch.output("fc2"), returned));

  Sequential in_place(Linear(4, 4), ReLU(ReLUOptions(true)));
  Watch other(*in_place);
  const auto data = torch::randn({3, 4});
  in_place->forward(data);
  CHECK(same(other.output("0"),
             torch::nn::functional::linear(data, in_place[0]->as<Linear>()->weight, in_place[0]->as<Linear>()->bias)));
}

TEST_CASE("modules: names in Sequential, ModuleList, ModuleDict, below a prefix, and of bare roots") {
  struct Containers : Module {
    Sequential sequential{register_module("body", Sequential(Linear(2, 2), ReLU(), Linear(2, 2)))};
    ModuleList list{register_module("list", ModuleList(Linear(2, 2), Linear(2, 2)))};
    ModuleDict dict{register_module("dict", ModuleDict(std::vector<std::pair<std::string, std::shared_ptr<Module>>>{
                                                {"head", Linear(2, 2).ptr()}}))};
    torch::Tensor forward(torch::Tensor x) {
      x = sequential->forward(x);
      for (size_t i = 0; i < list->size(); ++i) x = list->at<LinearImpl>(i).forward(x);
      return dict["head"]->as<Linear>()->forward(x);
    }
  };
  Containers on_the_stack;  // no shared owner
  const auto x = torch::ones({1, 2});
  {
    Watch watch(on_the_stack);
    on_the_stack.forward(x);
    CHECK(watch.names() == "body.0 body.2 list.0 list.1 dict.head");
  }
  {
    Watch watch(on_the_stack, "net");
    on_the_stack.forward(x);
    CHECK(watch.names() == "net.body.0 net.body.2 net.list.0 net.list.1 net.dict.head");
  }
  Linear bare(2, 2);
  Watch watch(*bare);
  bare(x);
  CHECK(watch.names() == "Linear");
}

TEST_CASE("modules: two that would have one name have two") {
  Watch watch;
  const auto x = torch::ones({1, 4});
  SECTION("a class, and a root of that name, either way round") {
    Linear a(4, 4), b(4, 4);
    const bool unnamed_first = GENERATE(true, false);
    if (unnamed_first) watch.hooks.add(*a);
    watch.hooks.add(*b, "Linear");
    if (!unnamed_first) watch.hooks.add(*a);
    watch.hooks.arm();
    a(x);
    b(x);
    CHECK(watch.names() == "Linear_2 Linear");
  }
  SECTION("a class, and a child of that name") {
    struct Outer : Module {
      torch::Tensor start{register_parameter("start", torch::ones({1, 4}))};
      Linear inner{register_module("Outer", Linear(4, 4))};
    };
    Outer outer;
    watch.hooks.add(outer);
    watch.hooks.arm();
    outer.inner(torch::mul(torch::ones({3, 4}), outer.start));
    CHECK(watch.names() == "Outer_2 Outer");
  }
  SECTION("roots of one name or one class, and a number that is taken") {
    Linear a(4, 4), b(4, 4), c(4, 4), d(4, 4), e(4, 4);
    watch.hooks.add(*a);
    watch.hooks.add(*b);
    watch.hooks.add(*c, "Linear_2");
    watch.hooks.add(*d, "net");
    watch.hooks.add(*e, "net");
    watch.hooks.arm();
    for (auto net : {a, b, c, d, e}) net->forward(x);
    CHECK(watch.names() == "Linear Linear_3 Linear_2 net net_2");
  }
}

TEST_CASE("modules: the address of the module is given") {
  Net net;
  std::map<std::string, const Module*> modules;
  ForwardHooks hooks([&](const ForwardHooks::Output& output) { modules[output.name] = output.module; });
  hooks.add(*net);
  hooks.arm();
  net->forward(net_input());
  CHECK(modules.at("fc1") == net->fc1.ptr().get());
}

TEST_CASE("modules: the same module called twice, also under two names") {
  for (const auto& shape : {std::vector<int64_t>{2, 4}, {2, 3, 4}}) {
    Linear linear(4, 4);
    Sequential twice;
    twice->push_back("first", linear);
    twice->push_back("again", linear);
    const auto x = torch::randn(shape);
    Watch watch(*twice);
    const auto returned = twice->forward(x);
    watch.hooks.disarm();
    CHECK(watch.names() == "first first.1");
    CHECK(same(watch.output("first", 0), linear(x)));
    CHECK(same(watch.output("first", 1), returned));
    watch.reports.clear();
    watch.hooks.arm();  // calls are counted anew
    twice->forward(x);
    CHECK(watch.names() == "first first.1");
  }
}

TEST_CASE("modules: an in-place bias amends the call, a first report does not") {
  Linear linear(4, 4);
  Watch watch(*linear, "fc");
  linear(torch::randn({2, 3, 4}));
  REQUIRE(watch.reports.size() == 2);
  CHECK_FALSE(watch.reports[0].amended);
  CHECK(watch.reports[1].amended);
  CHECK(watch.reports[1].call == 0);
}

TEST_CASE("modules: a weight shared by an Embedding and a Linear is attributed by the operator") {
  const auto tokens = torch::tensor({{1, 2, 3}, {3, 0, 1}});
  for (const bool bias : {true, false}) {
    for (const bool embedding_first : {true, false}) {
      CAPTURE(bias, embedding_first);
      Embedding embedding(5, 4);
      Linear head(LinearOptions(4, 5).bias(bias));
      head->weight.set_data(embedding->weight);
      Sequential net;
      if (embedding_first) net->push_back("embedding", embedding);
      net->push_back("head", head);
      if (!embedding_first) net->push_back("embedding", embedding);
      Watch watch(*net);
      const auto vectors = embedding(tokens);
      const auto batched = head(vectors);  // matmul, then add_
      const auto flat = head(vectors[0]);  // addmm
      CHECK(watch.names() == "embedding head head.1");
      CHECK(same(watch.output("embedding"), vectors));
      CHECK(same(watch.output("head"), batched));
      CHECK(same(watch.output("head", 1), flat));
    }
  }
}

TEST_CASE("modules: Linears that share weight and bias are taken to run in their order") {
  for (const bool bias : {true, false}) {
    for (const auto& shape : {std::vector<int64_t>{2, 4}, {2, 3, 4}}) {
      CAPTURE(bias, shape);
      Sequential net(Linear(LinearOptions(4, 4).bias(bias)), Linear(LinearOptions(4, 4).bias(bias)));
      net[1]->as<Linear>()->weight.set_data(net[0]->as<Linear>()->weight);
      if (bias) net[1]->as<Linear>()->bias.set_data(net[0]->as<Linear>()->bias);
      Watch watch(*net);
      const auto returned = net->forward(torch::randn(shape));
      CHECK(watch.names() == "0 1");
      CHECK(same(watch.output("1"), returned));
      CHECK(static_cast<int>(watch.reports.size()) == (bias && shape.size() == 3 ? 4 : 2));
    }
  }
}

TEST_CASE("modules: Linears that share a weight are told apart by their biases, in any order") {
  Linear first(4, 4), second(4, 4);
  second->weight.set_data(first->weight);
  Sequential net(first, second);
  Watch watch(*net);
  const auto a = second(torch::randn({2, 4}));
  const auto b = first(a);
  CHECK(watch.names() == "1 0");
  CHECK(same(watch.output("1"), a));
  CHECK(same(watch.output("0"), b));
}

TEST_CASE("modules: parameters that are parts of one buffer are told apart") {
  Net net;
  int64_t total = 0, position = 0;
  for (const auto& parameter : net->parameters()) total += parameter.numel();
  const auto buffer = torch::randn({total});
  for (auto& parameter : net->parameters()) {
    parameter.set_data(buffer.narrow(0, position, parameter.numel()).view(parameter.sizes()));
    position += parameter.numel();
  }
  Watch watch(*net);
  const auto returned = net->forward(net_input());
  CHECK(watch.names() == "conv1 bn1 fc1 fc2");
  CHECK(same(watch.output("fc2"), returned));
}

TEST_CASE("modules: a parameter inside another") {
  struct Part : Module {
    explicit Part(const torch::Tensor& values) : values(register_parameter("values", values)) {}
    torch::Tensor values;
  };
  struct Whole : Module {
    torch::Tensor buffer{torch::randn({12})};
    std::shared_ptr<Part> all{register_module("all", std::make_shared<Part>(buffer))};
    std::shared_ptr<Part> part{register_module("part", std::make_shared<Part>(buffer.narrow(0, 2, 2)))};
  };
  Whole whole;
  Watch watch(whole);
  const auto x = torch::randn({3, 2});
  const auto of_all = x * whole.all->values.narrow(0, 8, 2);
  CHECK(watch.names() == "all");
  CHECK(same(watch.output("all"), of_all));
  watch.hooks.arm();
  const auto of_part = x * whole.part->values;
  CHECK(watch.reports.size() == 2);
}

TEST_CASE("modules: a user's own module reports the last operator that used its parameters") {
  struct Block : Module {
    torch::Tensor position{register_parameter("position", torch::randn({1, 3, 4}))};
    torch::Tensor scale{register_parameter("scale", torch::randn({4}))};
    torch::Tensor shift{register_parameter("shift", torch::randn({4}))};
    Linear inner{register_module("inner", Linear(4, 4))};
    torch::Tensor forward(const torch::Tensor& x) { return (inner(x) + position) * scale + shift; }
  };
  Block block;
  for (const int64_t batch : {1, 2}) {
    for (const bool grad : {true, false}) {
      CAPTURE(batch, grad);
      torch::AutoGradMode mode(grad);
      Watch watch(block, "block");
      const auto returned = block.forward(torch::randn({batch, 3, 4}));
      CHECK(watch.names() == "block.inner block");
      CHECK(same(watch.output("block"), returned));
      CHECK(std::count_if(watch.reports.begin(), watch.reports.end(),
                          [](const Report& report) { return report.name == "block"; }) == 3);
    }
  }
}

TEST_CASE("modules: a learned table that is indexed") {
  struct Table : Module {
    torch::Tensor table{register_parameter("table", torch::randn({5, 4}))};
  };
  Table module;
  Watch watch(module, "table");
  const auto rows = module.table.index({torch::tensor({3, 1})});
  const auto selected = module.table.index_select(0, torch::tensor({3, 1}));
  CHECK(same(watch.output("table", 0), rows));
  CHECK(same(watch.output("table", 1), selected));
}

TEST_CASE("modules: dtypes, and parameters that move between two armings") {
  Net net;
  Watch watch(*net);
  watch.hooks.disarm();
  net->to(torch::kDouble);
  watch.hooks.arm();
  const auto x = net_input().to(torch::kDouble);
  const auto returned = net->forward(x);
  CHECK(watch.names() == "conv1 bn1 fc1 fc2");
  CHECK(same(watch.output("fc2"), returned));
}

TEST_CASE("modules: those registered after add are seen at the next arm") {
  Sequential net(Linear(4, 4));
  Watch watch(*net);
  net->push_back(Linear(4, 4));
  watch.hooks.arm();
  net->forward(torch::ones({1, 4}));
  CHECK(watch.names() == "0 1");
}

TEST_CASE("modules: a child, a parameter or its bytes replaced by others, or gone, are seen at the next arm") {
  Sequential net(Linear(4, 4), Linear(4, 4));
  Watch watch(*net);
  const auto names_now = [&](const torch::Tensor& x) {
    watch.reports.clear();
    watch.hooks.arm();
    net->forward(x);
    return watch.names();
  };
  CHECK(names_now(torch::ones({1, 4})) == "0 1");
  CHECK(names_now(torch::ones({1, 4})) == "0 1");  // by what was found before
  CHECK(watch.reports[0].tensor.size(1) == 4);

  // Another tensor's bytes, in place of its own.
  auto& second = net->at<torch::nn::LinearImpl>(1);
  second.weight.set_data(torch::zeros({4, 4}));
  CHECK(names_now(torch::ones({1, 4})) == "0 1");
  CHECK(watch.output("1").equal(second.bias.detach().expand({1, 4})));
  // Another parameter under the same name.
  struct Renewable : torch::nn::Module {
    torch::Tensor weight = register_parameter("weight", torch::ones({4}));
    void renew() {
      weight = torch::full({4}, 2.0F);
      parameters_["weight"] = weight;
    }
  };
  const auto renewable = std::make_shared<Renewable>();
  struct Parent : torch::nn::Module {
    using Module::replace_module;
    using Module::unregister_module;
  };
  const auto parent = std::make_shared<Parent>();
  parent->register_module("child", renewable);
  Watch other(*parent);
  const auto scaled = [&](const torch::Tensor& weight) {
    other.reports.clear();
    other.hooks.arm();
    torch::mul(torch::ones({3, 4}), weight);
    return other.names();
  };
  CHECK(scaled(renewable->weight) == "child");
  const torch::Tensor old = renewable->weight;
  renewable->renew();
  CHECK(scaled(old) == "");
  CHECK(scaled(renewable->weight) == "child");
  // Another child, and none.
  const auto next = std::make_shared<Renewable>();
  parent->replace_module("child", next);
  CHECK(scaled(renewable->weight) == "");
  CHECK(scaled(next->weight) == "child");
  parent->unregister_module("child");
  CHECK(scaled(next->weight) == "");
}

TEST_CASE("modules: parameters that come to lie elsewhere while armed are followed") {
  const auto check = [](Watch& watch, const torch::Tensor& returned, int64_t call = 0) {
    CHECK(watch.output("conv1", call).defined());
    CHECK(same(watch.output("fc2", call), returned));
  };
  Net net;
  Watch watch(*net);
  const auto x = net_input();
  SECTION("to(dtype) and back, again and again") {
    for (int64_t call = 0; call < 6; call += 2) {
      net->to(torch::kDouble);
      check(watch, net->forward(x.to(torch::kDouble)), call);
      net->to(torch::kFloat);
      check(watch, net->forward(x), call + 1);
    }
    CHECK(watch.names().substr(0, 41) == "conv1 bn1 fc1 fc2 conv1.1 bn1.1 fc1.1 fc2");
  }
  SECTION("torch::load") {
    std::stringstream file;
    torch::save(net, file);
    torch::load(net, file);
    check(watch, net->forward(x));
    CHECK(watch.names() == "conv1 bn1 fc1 fc2");
  }
  SECTION("set_data, of two that change places too") {
    const auto other = torch::randn_like(net->fc2->weight);
    const torch::Tensor own = net->fc2->weight.detach();
    net->fc2->weight.set_data(other);
    check(watch, net->forward(x));
    net->fc2->weight.set_data(own);
    check(watch, net->forward(x), 1);
  }
  SECTION("in the middle of a forward: who has run has run") {
    torch::relu(net->conv1(x));
    net->to(torch::kDouble);
    net->conv1(x.to(torch::kDouble));
    net->fc2(torch::randn({1, 16}, torch::kDouble));
    CHECK(watch.names() == "conv1 conv1.1 fc2");
  }
}

TEST_CASE("modules: views of parameters that have moved, tied ones, and those that had no memory, are followed") {
  struct Inner : Module {
    torch::Tensor weight, bias{register_parameter("bias", torch::zeros({3}))};
    explicit Inner(const torch::Tensor& tied) { weight = register_parameter("weight", tied); }
    torch::Tensor forward(const torch::Tensor& x) { return functional::linear(x, weight, bias); }
  };
  struct Manual : Module {
    torch::Tensor a{register_parameter("a", torch::randn({3, 4}))};
    std::shared_ptr<Inner> tied{register_module("tied", std::make_shared<Inner>(a))};
  };
  Manual manual;
  Watch watch(manual, "m");
  const auto x = torch::randn({5, 4});
  SECTION("views") {
    manual.to(torch::kDouble);
    const auto product = torch::mm(x.to(torch::kDouble), manual.a.t());
    CHECK(same(watch.output("m"), product));
  }
  SECTION("tied") {
    manual.to(torch::kDouble);
    const auto product = manual.tied->forward(x.to(torch::kDouble));
    CHECK(same(watch.output("m.tied"), product));
  }
  SECTION("freed until they are needed") {
    const torch::Tensor own = manual.tied->bias.detach();
    manual.tied->bias.set_data(torch::empty({0}));
    watch.hooks.arm();
    manual.tied->bias.set_data(own);
    torch::add(torch::randn({5, 3}), manual.tied->bias);
    CHECK(watch.names() == "m.tied");
  }
}

TEST_CASE("modules: it is known whether what is watched are the modules of now") {
  Sequential net(Linear(4, 4), Linear(4, 4));
  Watch watch(*net);
  CHECK_FALSE(watch.hooks.moved());
  auto& first = net->at<torch::nn::LinearImpl>(0);
  SECTION("data elsewhere, until it is used") {
    net->to(torch::kDouble);
    CHECK(watch.hooks.moved());
    net->forward(torch::ones({1, 4}, torch::kDouble));
    CHECK_FALSE(watch.hooks.moved());
  }
  SECTION("another parameter") {
    first.weight = torch::randn({4, 4}, torch::requires_grad());
    CHECK_FALSE(watch.hooks.moved());  // it is not registered
    struct Access : torch::nn::Module {
      static auto member() { return &Access::parameters_; }
    };
    (first.*Access::member())["weight"] = first.weight;
    CHECK(watch.hooks.moved());
  }
  SECTION("one layer more") {
    net->push_back(Linear(4, 4));
    CHECK(watch.hooks.moved());
  }
}

TEST_CASE("ignored: backward, also of a graph that is created, and a second time") {
  Net net;
  const auto loss = net->forward(net_input().requires_grad_()).pow(2).sum();
  Watch watch(*net);
  SECTION("backward") { loss.backward(); }
  SECTION("create_graph, and the backward of that") {
    const auto gradients = torch::autograd::grad({loss}, net->parameters(), {}, true, /*create_graph=*/true);
    torch::Tensor penalty = torch::zeros({});
    for (const auto& gradient : gradients) penalty = penalty + gradient.pow(2).sum();
    penalty.backward();
  }
  SECTION("with a gradient hook that decays") {
    net->fc1->weight.register_hook([&](const torch::Tensor& g) { return g.add(net->fc1->weight.detach(), 0.1); });
    net->fc2->weight.register_hook([&](const torch::Tensor& g) {
      torch::NoGradGuard no_grad;
      return g + 0.1 * net->fc2->weight;
    });
    loss.backward();
  }
  CHECK(watch.names() == "");
}

TEST_CASE("ignored: optimizer steps") {
  Trained t;
  const auto parameters = t.net->parameters();
  std::unique_ptr<torch::optim::Optimizer> optimizer;
  SECTION("SGD with momentum and weight decay") {
    optimizer = std::make_unique<torch::optim::SGD>(
        parameters, torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.1).nesterov(true));
  }
  SECTION("Adam with weight decay") {
    optimizer = std::make_unique<torch::optim::Adam>(parameters,
                                                     torch::optim::AdamOptions(0.1).weight_decay(0.1).amsgrad(true));
  }
  SECTION("AdamW") {
    optimizer = std::make_unique<torch::optim::AdamW>(parameters, torch::optim::AdamWOptions(0.1).weight_decay(0.1));
  }
  SECTION("RMSprop") {
    optimizer = std::make_unique<torch::optim::RMSprop>(
        parameters, torch::optim::RMSpropOptions(0.1).weight_decay(0.1).momentum(0.5).centered(true));
  }
  SECTION("Adagrad") {
    optimizer =
        std::make_unique<torch::optim::Adagrad>(parameters, torch::optim::AdagradOptions(0.1).weight_decay(0.1));
  }
  torch::nn::utils::clip_grad_norm_(parameters, 1.0);
  optimizer->step();
  optimizer->step();
  optimizer->zero_grad();
  CHECK(t.watch.names() == "");
}

TEST_CASE("ignored: an LBFGS step, but for the forward in its closure") {
  Net net;
  torch::optim::LBFGS optimizer(net->parameters(), torch::optim::LBFGSOptions(0.1).max_iter(2));
  const auto x = net_input();
  Watch watch(*net);
  int64_t forwards = 0;
  optimizer.step([&] {
    ++forwards;
    optimizer.zero_grad();
    auto loss = net->forward(x).pow(2).sum();
    loss.backward();
    return loss;
  });
  CHECK(static_cast<int64_t>(watch.reports.size()) == 4 * forwards);
}

TEST_CASE("ignored: an optimizer of the user's own") {
  Trained t;
  for (auto& w : t.net->parameters()) {
    const auto step = torch::ones_like(w);
    auto data = w.detach();  // and now in grad mode
    data.copy_(data - 0.1 * step);
    data.copy_((data + torch::stack({step, step}))[0]);  // larger than w: known by being detached
    w.data().addcdiv_(step, step + 1);

    torch::NoGradGuard no_grad;
    w.copy_(w - 0.1 * step);
    w.add_(step, 0.1);
    w.sub_(w.grad() + 0.1 * w, 0.1);
    w.copy_(torch::add(w.grad(), w, 0.1));
    if (w.dim() == 2) w.grad().mm(w.t());  // known by the gradient alone
  }
  CHECK(t.watch.names() == "");
}

TEST_CASE("ignored: the gradient of a tied weight, whichever module it came through") {
  Sequential net(Linear(4, 4), Linear(4, 4));
  net[1]->as<Linear>()->weight.set_data(net[0]->as<Linear>()->weight);
  for (size_t i = 0; i < 2; ++i) {
    const auto& w = net[i]->as<Linear>()->weight;
    w.pow(2).sum().backward();
    Watch watch(*net);
    torch::NoGradGuard no_grad;
    w.grad().mm(w.t());
    CHECK(watch.names() == "");
  }
}

TEST_CASE("ignored: regularisers in the loss") {
  Trained t;
  auto loss = torch::zeros({});
  for (const auto& w : t.net->parameters()) {
    const auto before = w.detach().clone();
    loss = loss + w.pow(2).sum() + w.norm() + 0.1 * w.abs().mean();
    loss = loss + (w - before).pow(2).sum() + torch::mse_loss(w, before) + torch::mse_loss(w, before, 0).sum();
    loss = loss + (w * torch::ones_like(w)).sum() + (w / (w.norm() + 1e-6)).sum();
    loss = loss + torch::dist(w, before) + torch::smooth_l1_loss(w, before) + w.pow(torch::tensor(2.0)).sum();
    loss = loss + w.masked_select(w > 0).sum() + w.index({w > 0}).sum() + torch::where(w > 0, w, before).sum();
  }
  const auto& matrix = t.net->fc1->weight;
  loss = loss + (matrix.mm(matrix.t()) - torch::eye(16)).pow(2).sum();
  loss = loss + (matrix / matrix.norm(2, 1, true)).sum();
  loss.backward();
  CHECK(t.watch.names() == "");
}

TEST_CASE("ignored: a moving average of the weights") {
  Trained t;
  for (const bool grad : {false, true}) {
    CAPTURE(grad);
    torch::AutoGradMode mode(grad);
    for (const auto& w : t.net->parameters()) {
      auto average = torch::randn(w.sizes());
      const auto& weight = grad ? w.detach() : w;
      average.mul_(0.9).add_(weight, 0.1);  // in place
      average.lerp_(weight, 0.1);
      average = 0.9 * average + 0.1 * weight;  // and out of place
      average = torch::add(average, weight, 0.1);
      average = torch::lerp(average, weight, 0.1);
      average.copy_(weight);
    }
  }
  CHECK(t.watch.names() == "");
}

TEST_CASE("ignored: initialisation, copies, views, printing, saving") {
  Trained t;
  std::ostringstream text;
  {
    torch::serialize::OutputArchive archive;
    t.net->save(archive);
    archive.save_to(text);
  }
  t.net->to(torch::kDouble);  // printing takes another way
  t.watch.hooks.arm();
  for (const auto& w : t.net->parameters()) {
    text << w;
    w.clone();
    w.detach().cpu();
    w.to(torch::kFloat);
    w.flatten().contiguous();
    torch::empty(w.sizes(), w.options()).view_as(w);
    w.min();
    w.std();
    torch::empty({2, w.numel()}, w.options())[0].copy_(w.flatten());
    w == torch::ones_like(w);
    torch::nn::init::normal_(w);
    torch::nn::init::uniform_(w);
    torch::nn::init::constant_(w, 0.5);
    if (w.dim() < 2) continue;
    torch::nn::init::kaiming_normal_(w);
    torch::nn::init::xavier_uniform_(w);
    torch::nn::init::orthogonal_(w);
  }
  t.net->fc1->weight.t();
  t.net->fc1->bias.expand({3, 16});
  t.net->fc1->weight.as_strided({2, 2}, {1, 1});
  CHECK(t.watch.names() == "");
}

TEST_CASE("ignored: everything while not armed, and modules that were not added") {
  Net net, other;
  Watch watch(*net);
  other->forward(net_input());
  watch.hooks.disarm();
  CHECK_FALSE(watch.hooks.armed());
  net->forward(net_input());
  watch.hooks.arm();
  watch.hooks.clear();
  CHECK_FALSE(watch.hooks.armed());
  watch.hooks.arm();
  CHECK(watch.hooks.armed());
  net->forward(net_input());
  CHECK(watch.names() == "");
}

TEST_CASE("ignored: other threads") {
  Net net;
  Watch watch(*net);
  std::thread([&] { net->forward(net_input()); }).join();
  CHECK(watch.names() == "");
  net->forward(net_input());
  CHECK(watch.names() == "conv1 bn1 fc1 fc2");
}

TEST_CASE("contract: a whole training step reports the forward and nothing else") {
  Net net;
  torch::optim::AdamW optimizer(net->parameters(), torch::optim::AdamWOptions(0.1).weight_decay(0.1));
  Watch watch(*net);
  watch.hooks.disarm();
  for (int step = 0; step < 3; ++step) {
    watch.reports.clear();
    watch.hooks.arm();
    const auto returned = net->forward(net_input());
    optimizer.zero_grad();
    returned.pow(2).sum().backward();
    optimizer.step();
    watch.hooks.disarm();
    CHECK(watch.reports.size() == 4);
    CHECK(watch.names() == "conv1 bn1 fc1 fc2");
    CHECK(same(watch.output("fc2"), returned));
  }
}

TEST_CASE("contract: so does one whose weights have another dtype in forward than in the optimizer's step") {
  Trained trained;
  torch::optim::SGD optimizer(trained.net->parameters(),
                              torch::optim::SGDOptions(0.1).momentum(0.9).weight_decay(1e-4));
  for (int step = 0; step < 3; ++step) {
    trained.watch.reports.clear();
    trained.watch.hooks.arm();
    trained.net->to(torch::kDouble);
    optimizer.zero_grad();
    trained.net->forward(net_input().to(torch::kDouble)).pow(2).mean().backward();
    trained.net->to(torch::kFloat);
    for (auto& parameter : trained.net->parameters()) parameter.mutable_grad() = parameter.grad().to(torch::kFloat);
    optimizer.step();
    CHECK(trained.watch.names() == "conv1 bn1 fc1 fc2");
  }
}

TEST_CASE("contract: grad mode tells an evaluation from a training pass") {
  Net net;
  Watch watch(*net);
  {
    torch::NoGradGuard no_grad;
    net->forward(net_input());
  }
  net->forward(net_input());
  CHECK(watch.names() == "conv1 bn1 fc1 fc2 conv1.1 bn1.1 fc1.1 fc2.1");
  for (const Report& report : watch.reports) CHECK(report.grad_mode == (report.call == 1));
}

TEST_CASE("contract: what the hook throws stays inside, and is counted") {
  Net net;
  ForwardHooks hooks([](const ForwardHooks::Output&) { throw std::runtime_error("a hook that fails"); });
  hooks.add(*net);
  hooks.arm();
  CHECK(hooks.hook_errors() == 0);
  CHECK_NOTHROW(net->forward(net_input()));
  CHECK(hooks.hook_errors() == 4);
  hooks.disarm();
  CHECK(hooks.hook_errors() == 4);
}

TEST_CASE("contract: the hook runs with autograd off, does not see its own operators, and leaves no trace") {
  Net net;
  int64_t calls = 0;
  ForwardHooks hooks([&](const ForwardHooks::Output& output) {
    ++calls;
    CHECK_FALSE(torch::GradMode::is_enabled());
    CHECK_FALSE((output.tensor * 2).requires_grad());
    net->fc2(torch::ones({1, 16}));
  });
  hooks.add(*net);
  hooks.arm();
  const auto returned = net->forward(net_input());
  CHECK(calls == 4);
  CHECK(torch::GradMode::is_enabled());
  CHECK(at::isRecordFunctionEnabled());
  CHECK(returned.requires_grad());
  returned.sum().backward();
  CHECK(net->conv1->weight.grad().defined());
}

namespace {

int64_t operators_told = 0;
std::unique_ptr<at::ObserverContext> count_operator(const at::RecordFunction&) {
  ++operators_told;
  return nullptr;
}

}  // namespace

TEST_CASE("contract: who else listens to operators is told of all, nested ones and those of backward too") {
  Net net;
  const auto step = [&] { net->forward(net_input()).sum().backward(); };
  const auto told_of = [&](const std::function<void()>& before) {
    const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback(count_operator));
    operators_told = 0;
    before();
    step();
    at::removeCallback(handle);
    return operators_told;
  };
  step();  // makes the gradients, which is told of too
  const int64_t without = told_of([] {});
  Watch watch(*net);
  CHECK(told_of([] {}) == without);
  CHECK(told_of([&] { watch.hooks.arm(); }) == without);
  const auto global = at::addGlobalCallback(at::RecordFunctionCallback(count_operator));
  operators_told = 0;
  step();
  at::removeCallback(global);
  CHECK(operators_told == without);
  // Alone, they are told of less, and leave no trace of that.
  watch.hooks.arm();
  watch.hooks.take_seconds();
  step();
  CHECK(at::isRecordFunctionEnabled());
  CHECK_THROWS(net->forward(torch::randn({5, 1, 7, 7})));
  CHECK(at::isRecordFunctionEnabled());
  struct Throws : torch::autograd::Function<Throws> {
    static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor& x) { return x.clone(); }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext*, torch::autograd::variable_list) {
      throw std::runtime_error("in backward");
    }
  };
  CHECK_THROWS(Throws::apply(net->forward(net_input())).sum().backward());
  CHECK(at::isRecordFunctionEnabled());
  watch.reports.clear();
  watch.hooks.arm();
  net->forward(net_input());
  CHECK(watch.names() == "conv1 bn1 fc1 fc2");
}

TEST_CASE("contract: what is nested in an operator of LibTorch is not told of to nobody") {
  Net net;
  Watch watch(*net);
  const auto billed_for = [&](const std::function<void()>& work) {
    double least = 1;  // an interruption may be billed now and then
    for (int round = 0; round < 5; ++round) {
      watch.hooks.take_seconds();
      for (int i = 0; i < 200; ++i) work();
      least = std::min(least, watch.hooks.take_seconds());
    }
    return least;
  };
  // A convolution is six operators in one, of which five are nested; a view is one.
  const auto x = torch::ones({1, 1, 4, 4}), w = torch::ones({1, 1, 1, 1});
  const double one = billed_for([&] { x.view({16}); }), nested = billed_for([&] { torch::conv2d(x, w); });
  CHECK(nested < 3 * one);
}

TEST_CASE("contract: a forward that throws leaves the hooks consistent") {
  Net net;
  Watch watch(*net);
  const auto wrong_size = torch::randn({5, 1, 7, 7});
  CHECK_THROWS(net->forward(wrong_size));  // inside addmm of fc1
  CHECK(watch.names() == "conv1 bn1");
  CHECK_THROWS(net->forward(torch::randn({5, 2, 6, 6})));  // inside conv2d, nothing new
  CHECK(watch.hooks.armed());
  const auto returned = net->forward(net_input());
  CHECK(watch.names() == "conv1 bn1 conv1.1 bn1.1 fc1 fc2");
  CHECK(same(watch.output("fc2"), returned));
  watch.hooks.disarm();
  CHECK_FALSE(at::hasThreadLocalCallbacks());
}

TEST_CASE("contract: disarm and the destructor remove the callbacks of the thread") {
  Net net;
  REQUIRE_FALSE(at::hasThreadLocalCallbacks());
  {
    Watch watch(*net);
    CHECK(at::hasThreadLocalCallbacks());
    watch.hooks.disarm();
    CHECK_FALSE(at::hasThreadLocalCallbacks());
    watch.hooks.disarm();
    watch.hooks.arm();
    watch.hooks.arm();
    CHECK(at::hasThreadLocalCallbacks());
  }
  CHECK_FALSE(at::hasThreadLocalCallbacks());
}

TEST_CASE("contract: the destructor disarms while a forward's exception is in flight") {
  Net net;
  const auto run = [&] {
    Watch watch(*net);
    net->forward(torch::randn({5, 1, 7, 7}));
  };
  CHECK_THROWS(run());
  CHECK_FALSE(at::hasThreadLocalCallbacks());
}

TEST_CASE("contract: the hook may disarm and arm again") {
  Net net;
  int64_t calls = 0;
  std::unique_ptr<ForwardHooks> hooks;
  bool again = false;
  hooks = std::make_unique<ForwardHooks>([&](const ForwardHooks::Output&) {
    ++calls;
    hooks->disarm();
    if (again) hooks->arm();
  });
  hooks->add(*net);
  hooks->arm();
  net->forward(net_input());
  CHECK(calls == 1);
  CHECK_FALSE(at::hasThreadLocalCallbacks());
  again = true;
  hooks->arm();
  net->forward(net_input());
  CHECK(calls == 1 + 4);
  hooks->disarm();
  CHECK_FALSE(at::hasThreadLocalCallbacks());
}

TEST_CASE("contract: several hooks on one thread") {
  Net net;
  Watch all(*net);
  Watch part(*net->fc1, "part");
  net->forward(net_input());
  all.hooks.disarm();
  net->forward(net_input());
  part.hooks.disarm();
  CHECK(all.names() == "conv1 bn1 fc1 fc2");
  CHECK(part.names() == "part part.1");
  CHECK_FALSE(at::hasThreadLocalCallbacks());
}

TEST_CASE("contract: hooks that are disarmed by another's hook are not called any more") {
  Net net;
  Watch second;
  ForwardHooks first([&](const ForwardHooks::Output&) { second.hooks.disarm(); });
  first.add(*net);
  second.hooks.add(*net);
  first.arm();
  second.hooks.arm();
  net->forward(net_input());
  CHECK(second.names() == "");
}

TEST_CASE("contract: one per thread, for two training threads") {
  const auto train = [](std::string& names) {
    Net net;
    Watch watch(*net);
    net->forward(net_input()).sum().backward();
    watch.hooks.disarm();
    names = watch.names();
  };
  std::string first, second;
  std::thread a([&] { train(first); }), b([&] { train(second); });
  a.join();
  b.join();
  CHECK(first == "conv1 bn1 fc1 fc2");
  CHECK(second == "conv1 bn1 fc1 fc2");
}

TEST_CASE("contract: disarm on another thread stops the hook too") {
  Net net;
  {
    Watch watch(*net);
    std::thread([&] { watch.hooks.disarm(); }).join();
    net->forward(net_input());
    CHECK(watch.names() == "");
    CHECK_FALSE(at::hasThreadLocalCallbacks());  // removed at the thread's next operator
  }
  auto watch = std::make_unique<Watch>();
  watch->hooks.add(*net);
  std::thread([&] { watch->hooks.arm(); }).join();  // a thread that ends armed
  CHECK_NOTHROW(watch.reset());
}

TEST_CASE("contract: a module that is held weakly is watched as long as it lives, one without an owner always") {
  auto owned = std::make_shared<LinearImpl>(4, 4);
  LinearImpl on_the_stack(4, 4);
  Watch watch;
  watch.hooks.add(std::shared_ptr<const Module>(owned), "owned");
  watch.hooks.add(std::shared_ptr<const Module>(std::shared_ptr<const Module>(), &on_the_stack), "stack");
  watch.hooks.arm();
  owned->forward(torch::ones({1, 4}));
  on_the_stack.forward(torch::ones({1, 4}));
  CHECK(watch.names() == "owned stack");
  owned.reset();
  watch.hooks.arm();
  on_the_stack.forward(torch::ones({1, 4}));
  CHECK(watch.reports.size() == 3);
}

TEST_CASE("contract: bytes of parameters that are destroyed or moved while armed are not mistaken") {
  const torch::NoGradGuard no_grad;
  auto destroyed = std::make_shared<LinearImpl>(64, 64);
  Linear moved(64, 64);
  Watch watch;
  watch.hooks.add(std::shared_ptr<const Module>(destroyed));
  watch.hooks.add(*moved);
  watch.hooks.arm();
  const std::weak_ptr<LinearImpl> alive = destroyed;
  destroyed.reset();
  CHECK(alive.expired());
  moved->to(torch::kDouble);
  const auto x = torch::randn({64, 64});
  std::vector<torch::Tensor> kept;
  for (int i = 0; i < 20; ++i) {  // in memory that the allocator gives away again
    kept.push_back(torch::randn({64, 64}));
    torch::mm(kept.back(), x);
  }
  CHECK(watch.names() == "");
}

TEST_CASE("contract: parameters without memory are passed over") {
  struct Odd : Module {
    torch::Tensor empty{register_parameter("empty", torch::empty({0, 3}))};
    torch::Tensor meta{register_parameter("meta", torch::empty({2}, torch::kMeta))};
    torch::Tensor none{register_parameter("none", torch::Tensor(), false)};
    Linear fc{register_module("fc", Linear(2, 2))};
  };
  Odd odd;
  Watch watch(odd);
  odd.fc(torch::ones({1, 2}) + 1);
  CHECK(watch.names() == "fc");
}
