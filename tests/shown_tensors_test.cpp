// What a tensor looks like: types, layouts, ranks, special values, statistics, scaling, variance and change. All
// through the same plan, gather, history and renderer as in a training, on the calling thread.
#include <torch/library.h>
#include <torch/torch.h>
#include <torch/version.h>
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3)
#include <c10/core/impl/COW.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "beholder/colormaps.h"
#include "beholder/history.h"
#include "beholder/narrowing.h"
#include "beholder/still_renderer.h"
#include "catch.h"
#include "odd_tensors.h"

using namespace beholder;

namespace {

const float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

Options classic(Scaling scaling = Scaling::Section, Mode mode = Mode::Current) {
  Options options;
  options.settings.layout = LayoutKind::Classic;
  options.settings.colormap = Colormap::Gray;
  options.settings.scaling = scaling;
  options.settings.mode = mode;
  return options;
}

std::shared_ptr<const Picture> render(const std::vector<NamedTensor>& tensors, const Options& options = classic()) {
  StillRenderer renderer(options);
  return renderer.render(tensors);
}

Rgb pixel(const Picture& picture, int x, int y) {
  const uint8_t* p = &picture.rgb[(static_cast<size_t>(y) * picture.width + x) * 3];
  return {p[0], p[1], p[2]};
}

/// The gray level at the middle of the i-th of `count` columns of the section at `top`, in the classic layout.
int gray_of(const Picture& picture, int i, int count, int top = 0) {
  const Rgb rgb = pixel(picture, (2 * i + 1) * picture.width / (2 * count), top + 64);
  CHECK(rgb.r == rgb.g);
  CHECK(rgb.g == rgb.b);
  return rgb.r;
}

std::vector<int> grays(const Picture& picture, int count, int top = 0) {
  std::vector<int> out;
  for (int i = 0; i < count; ++i) out.push_back(gray_of(picture, i, count, top));
  return out;
}

void check_statistics(const SectionInfo& info, const at::Tensor& tensor) {
  const at::Tensor values = plain(tensor).flatten().to(at::kDouble);
  const at::Tensor finite = values.masked_select(values.isfinite());
  const Statistics& s = info.statistics;
  CHECK(s.count == values.numel());
  CHECK(s.nans == values.isnan().sum().item<int64_t>());
  CHECK(s.infs == values.isinf().sum().item<int64_t>());
  CHECK(s.zeros == values.eq(0).sum().item<int64_t>());
  if (finite.numel() == 0) {
    for (double one : {s.min, s.max, s.mean, s.std}) CHECK(std::isnan(one));
    return;
  }
  const double reach = finite.abs().max().item<double>();
  CHECK(s.min == finite.min().item<double>());
  CHECK(s.max == finite.max().item<double>());
  CHECK(std::abs(s.mean - finite.mean().item<double>()) <= 1e-12 * reach);
  CHECK(std::abs(s.std - finite.std(/*unbiased=*/false).item<double>()) <= 1e-7 * reach);
}

/// The tensor's picture is that of the same values as a plain float32 tensor, in every layout.
void check_shown_like_plain(const at::Tensor& tensor, Kind kind = Kind::Array) {
  const at::Tensor expected = plain(tensor);
  for (const bool show_all : {false, true}) {
    for (const LayoutKind layout : {LayoutKind::Classic, LayoutKind::Fit}) {
      Options options = classic();
      options.settings.layout = layout;
      options.settings.show_all = show_all;
      StillRenderer renderer(options);
      const auto picture = renderer.render({{"x", tensor, kind}});
      REQUIRE(renderer.not_shown().empty());
      REQUIRE(picture->sections.size() == 1);
      const auto reference = render({{"x", expected, kind}}, options);
      CHECK(picture->rgb == reference->rgb);
      const SectionInfo& info = picture->sections[0];
      CHECK(info.shape == tensor.sizes().vec());
      CHECK(info.statistics.min == reference->sections[0].statistics.min);
      CHECK(info.statistics.mean == reference->sections[0].statistics.mean);
      if (info.complete) check_statistics(info, tensor);
    }
  }
}

/// Population variance of the entries [first, last) at place i, in float64.
double reference_variance(const std::vector<at::Tensor>& steps, size_t first, size_t last, int64_t i) {
  double mean = 0, squares = 0;
  for (size_t t = first; t < last; ++t) mean += static_cast<const float*>(steps[t].data_ptr())[i];
  mean /= static_cast<double>(last - first);
  for (size_t t = first; t < last; ++t) {
    const double d = static_cast<const float*>(steps[t].data_ptr())[i] - mean;
    squares += d * d;
  }
  return squares / static_cast<double>(last - first);
}

at::Tensor some(at::IntArrayRef sizes) { return torch::randn(sizes) * 3 + 0.5; }

}  // namespace

TEST_CASE("every type of number is shown with its values") {
  torch::manual_seed(1);
  const at::Tensor values = some({6, 7}) * 20;
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kByte, at::kChar, at::kShort,
                           at::kInt, at::kLong, at::kBool}) {
    INFO(c10::toString(dtype));
    check_shown_like_plain((dtype == at::kByte ? values.abs() : values).to(dtype));
  }
  const std::vector<std::pair<at::ScalarType, std::string>> names = {
      {at::kDouble, "float64"}, {at::kHalf, "float16"}, {at::kBFloat16, "bfloat16"},     {at::kLong, "int64"},
      {at::kByte, "uint8"},     {at::kBool, "bool"},    {at::kComplexFloat, "complex64"}};
  for (const auto& [dtype, name] : names) CHECK(render({{"x", torch::ones({2}).to(dtype)}})->sections[0].dtype == name);
}

TEST_CASE("a dtype holds numbers where LibTorch converts it") {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kByte, at::kChar, at::kShort,
                           at::kInt, at::kLong, at::kBool, at::kComplexHalf, at::kComplexFloat, at::kComplexDouble}) {
    INFO(c10::toString(dtype));
    CHECK(can_narrow(dtype, at::kCPU));
    CHECK(may_narrow(dtype, at::kCPU));
  }
  const auto nothing = at::kQInt8;  // without a scale
  CHECK_FALSE(can_narrow(nothing, at::kCPU));
  CHECK_FALSE(may_narrow(nothing, at::kCPU));
  CHECK(may_narrow(nothing, at::kCUDA));  // unknown
}

TEST_CASE("complex tensors show their magnitude, conjugate and negative views as well") {
  torch::manual_seed(2);
  const at::Tensor values = torch::complex(some({5, 8}), some({5, 8}));
  for (const auto dtype : {at::kComplexHalf, at::kComplexFloat, at::kComplexDouble}) {
    INFO(c10::toString(dtype));
    check_shown_like_plain(values.to(dtype));
    // And it says so, whatever else stands beside it.
    const auto picture = render({{"z", values.to(dtype)}, {"x", torch::real(values)}});
    CHECK(picture->sections[0].shown_as == "magnitude of complex");
    CHECK(picture->sections[1].shown_as.empty());
  }
  check_shown_like_plain(values.conj());
  const at::Tensor negative = torch::imag(values.conj());
  REQUIRE(negative.is_neg());
  check_shown_like_plain(negative);
  check_shown_like_plain(negative.t());
}

TEST_CASE("ranks 0 to 6 are shown, each kind") {
  torch::manual_seed(3);
  const std::vector<std::vector<int64_t>> shapes = {
      {}, {5}, {1}, {4, 6}, {1, 1}, {3, 4, 5}, {2, 3, 4, 5}, {2, 3, 20, 20}, {2, 2, 3, 2, 2}, {2, 1, 2, 3, 1, 2}};
  for (const auto& shape : shapes) {
    for (const Kind kind : {Kind::Array, Kind::Activation, Kind::OtherParameter, Kind::ConvWeight, Kind::LinearWeight,
                            Kind::ConvTransposeWeight, Kind::EmbeddingWeight, Kind::Vector}) {
      INFO("rank " << shape.size() << " as " << to_string(kind));
      check_shown_like_plain(some(shape), kind);
    }
  }
}

TEST_CASE("a tensor that lies in memory in any other way is shown the same") {
  torch::manual_seed(4);
  check_shown_like_plain(some({8, 6}).t());
  check_shown_like_plain(some({40, 60}).slice(0, 3, 33, 3).slice(1, 1, 55, 4));
  check_shown_like_plain(some({4, 5, 6, 7}).permute({2, 0, 3, 1}));
  check_shown_like_plain(some({4, 8, 6, 6}).contiguous(at::MemoryFormat::ChannelsLast), Kind::Activation);
  check_shown_like_plain(some({16, 8, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast), Kind::ConvWeight);
  check_shown_like_plain(some({1, 7}).expand({9, 7}));
  check_shown_like_plain(some({1}).expand({3, 4, 5}));
  check_shown_like_plain(torch::arange(30.0).as_strided({6, 5}, {2, 1}));  // elements overlap
  check_shown_like_plain(torch::arange(30.0).as_strided({4, 4}, {1, 3}, 5));
  check_shown_like_plain(some({300, 5}).select(1, 2));
  check_shown_like_plain(some({300, 900}).t(), Kind::LinearWeight);
  check_shown_like_plain(some({30, 20}).to(at::kHalf).t());
  check_shown_like_plain(torch::complex(some({12, 9}), some({12, 9})).t());
}

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3)
TEST_CASE("a copy-on-write tensor is read, and not made to copy itself") {
  const auto layout = GENERATE(LayoutKind::Fit, LayoutKind::Classic);
  const auto original = torch::arange(600).to(torch::kFloat).view({20, 30});
  const auto lazy = at::_lazy_clone(original);
  REQUIRE(c10::impl::cow::is_cow_data_ptr(lazy.storage().data_ptr()));
  Options options = classic();
  options.settings.layout = layout;
  const auto picture = render({{"lazy", lazy}}, options);
  CHECK(picture->sections.at(0).statistics.max == 599);
  CHECK(c10::impl::cow::is_cow_data_ptr(lazy.storage().data_ptr()));
  CHECK(c10::impl::cow::is_cow_data_ptr(original.storage().data_ptr()));
}
#endif

TEST_CASE("tensors that autograd knows are shown: leaves, results, inference tensors") {
  torch::manual_seed(5);
  const at::Tensor leaf = some({4, 4}).requires_grad_();
  check_shown_like_plain(leaf);
  check_shown_like_plain(leaf * 2);
  CHECK_FALSE(leaf.grad().defined());
  at::Tensor inference;
  {
    const c10::InferenceMode mode;
    inference = some({4, 5});
  }
  REQUIRE(inference.is_inference());
  check_shown_like_plain(inference);
  {
    const c10::InferenceMode mode;
    check_shown_like_plain(inference.t());
    check_shown_like_plain(leaf);
  }
}

TEST_CASE("sparse tensors are shown as dense ones") {
  torch::manual_seed(6);
  const at::Tensor dense = some({7, 9}) * (torch::rand({7, 9}) > 0.6);
  check_shown_like_plain(dense.to_sparse());
  check_shown_like_plain(dense.to(at::kDouble).to_sparse());
  check_shown_like_plain(dense.to(at::kInt).to_sparse());
  check_shown_like_plain((some({4, 5, 6}) * (torch::rand({4, 5, 1}) > 0.5)).to_sparse(2));  // dense last dimension
  const at::Tensor twice = torch::sparse_coo_tensor(
      torch::tensor({{0, 0, 2}, {1, 1, 3}}), torch::tensor({1.0, 2.0, 5.0}), {3, 4});  // one place is listed twice
  REQUIRE_FALSE(twice.is_coalesced());
  check_shown_like_plain(twice);
  check_shown_like_plain(dense.to_sparse_csr());
  check_shown_like_plain((torch::rand({300, 900}) > 0.99).to(at::kFloat).to_sparse());  // cut by the picture
  check_shown_like_plain((torch::rand({300, 900}) > 0.99).to(at::kFloat).to_sparse_csr());
  const at::Tensor nothing = torch::zeros({3, 4}).to_sparse();  // no element listed
  check_shown_like_plain(nothing);
  check_shown_like_plain(dense.to_sparse(), Kind::LinearWeight);
}

TEST_CASE("quantized and mkldnn tensors are shown as dense ones") {
  torch::manual_seed(7);
  const at::Tensor values = some({6, 300});
  for (const auto dtype : {at::kQInt8, at::kQUInt8, at::kQInt32}) {
    check_shown_like_plain(torch::quantize_per_tensor(values, 0.1, dtype == at::kQUInt8 ? 100 : 0, dtype));
  }
  check_shown_like_plain(torch::quantize_per_tensor(some({600, 900}), 0.1, 0, at::kQInt8), Kind::LinearWeight);
  check_shown_like_plain(
      torch::quantize_per_channel(values, torch::full({6}, 0.1), torch::zeros({6}, at::kLong), 0, at::kQInt8));
  check_shown_like_plain(torch::quantize_per_channel(some({40, 900}), torch::rand({900}) + 0.1,
                                                     torch::zeros({900}, at::kLong), 1, at::kQInt8));
  if (at::hasMKLDNN()) {
    check_shown_like_plain(some({8, 12}).to_mkldnn());
    check_shown_like_plain(some({2, 3, 40, 40}).to_mkldnn(), Kind::Activation);
  }
}

at::Tensor a_vendors_failure(const at::Tensor&, int64_t, const at::Tensor&) { throw std::runtime_error("a vendor's"); }

TEST_CASE("what a backend cannot cut is made dense as a whole, whatever it throws") {
  auto vendor = MAKE_TORCH_LIBRARY_IMPL(aten, SparseCsrCPU);
  vendor.impl("index_select", TORCH_FN(a_vendors_failure));
  const at::Tensor csr = (torch::rand({300, 900}) > 0.99).to(at::kFloat).to_sparse_csr();
  REQUIRE_THROWS_AS(csr.index_select(0, torch::arange(3)), std::runtime_error);
  check_shown_like_plain(csr);
}

TEST_CASE("what cannot be shown is named with a reason, and the rest is shown") {
  StillRenderer renderer(classic());
  std::vector<NamedTensor> tensors = {{"good", some({3, 4})},
                                      {"empty", torch::zeros({0, 4})},
                                      {"meta", torch::zeros({3}, at::kMeta)},
                                      {"undefined", at::Tensor()},
                                      {"also good", some({5})}};
  const at::Tensor nested = at::_nested_tensor_from_tensor_list({some({2, 3}), some({4, 3})});
  tensors.push_back({"nested", nested});
  const auto picture = renderer.render(tensors);
  REQUIRE(picture->sections.size() == 2);
  CHECK(picture->sections[0].name == "good");
  CHECK(picture->sections[1].name == "also good");
  const auto& left_out = renderer.not_shown();
  REQUIRE(left_out.size() == 4);
  CHECK(left_out[0] == std::make_pair(std::string("empty"), std::string("empty")));
  CHECK(left_out[1].second.find("meta") != std::string::npos);
  CHECK(left_out[2].second == "undefined");
  CHECK(left_out[3].first == "nested");
  CHECK_FALSE(left_out[3].second.empty());
  CHECK(picture->message.empty());
}

namespace {

/// Each good one is shown exactly, each other one is named, in words.
void check_shown(const std::vector<const OddTensor*>& odd, StillRenderer& renderer, bool exactly) {
  std::vector<NamedTensor> tensors;
  for (const auto* one : odd) tensors.push_back({one->name, one->tensor});
  std::shared_ptr<const Picture> picture;
  REQUIRE_NOTHROW(picture = renderer.render(tensors));
  size_t shown = 0, left_out = 0;
  for (const auto* one : odd) {
    INFO(one->name);
    if (!one->shown.defined()) {
      REQUIRE(left_out < renderer.not_shown().size());
      CHECK(renderer.not_shown()[left_out].first == one->name);
      CHECK_FALSE(renderer.not_shown()[left_out++].second.empty());
      continue;
    }
    REQUIRE(shown < picture->sections.size());
    const SectionInfo& info = picture->sections[shown++];
    CHECK(info.name == one->name);
    CHECK(info.shape == one->tensor.sizes().vec());
    if (!exactly) continue;
    CHECK(info.complete);
    CHECK(info.statistics.count == one->shown.numel());
    CHECK(info.statistics.min == one->shown.min().item<float>());
    CHECK(info.statistics.max == one->shown.max().item<float>());
    CHECK(info.statistics.mean == Approx(one->shown.to(at::kDouble).mean().item<double>()));
  }
  CHECK(shown == picture->sections.size());
  CHECK(left_out == renderer.not_shown().size());
}

}  // namespace

TEST_CASE("every dtype in every layout: what can be shown is shown exactly, the rest is named, nothing throws") {
  torch::manual_seed(8);
  const std::vector<OddTensor> all = odd_tensors();
  std::vector<const OddTensor*> together, good;
  for (const auto& one : all) {
    together.push_back(&one);
    if (one.shown.defined()) good.push_back(&one);
  }
  CHECK(good.size() > 60);
  CHECK(together.size() > good.size() + 20);
  for (const Mode mode : {Mode::Current, Mode::Variance, Mode::Change}) {
    for (const LayoutKind layout : {LayoutKind::Classic, LayoutKind::Fit}) {
      for (const bool show_all : {false, true}) {
        Options options = classic(Scaling::Section, mode);
        options.settings.layout = layout;
        options.settings.show_all = show_all;
        options.canvas_width = 2000;  // a page for all
        options.canvas_height = 2000;
        StillRenderer renderer(options);
        for (int time = 0; time < 2; ++time) check_shown(together, renderer, mode == Mode::Current);
        options.canvas_width = 320;
        options.canvas_height = 240;
        for (const auto& one : all) {
          StillRenderer alone(options);
          for (int time = 0; time < (mode == Mode::Current ? 1 : 2); ++time) {
            check_shown({&one}, alone, mode == Mode::Current);
          }
        }
      }
    }
  }
}

TEST_CASE("where nothing can be shown the picture says why, in words") {
  CHECK(render({})->message.find("no parameters to show") != std::string::npos);
  CHECK(render({{"a", at::Tensor()}, {"b", torch::zeros({0})}})->message ==
        "none of 2 parameters can be shown: a (undefined), b (empty)");
  Options options = classic();
  options.settings.filter = "nothing*";
  const auto picture = render({{"a", some({3})}, {"b", some({3})}}, options);
  CHECK(picture->message.find("'nothing*'") != std::string::npos);
  CHECK(picture->message.find("2") != std::string::npos);
  CHECK(picture->sections.empty());
  CHECK(picture->width > 0);
  CHECK(picture->height > 0);
}

TEST_CASE("a frame is 2-D or RGB, and says so when it is not") {
  Options options = classic();
  options.settings.values = Values::Frame;
  const auto gray = render({{"frame", torch::tensor({{0.0, 1.0}, {2.0, 4.0}}), Kind::Frame}}, options);
  REQUIRE(gray->width == 2);
  REQUIRE(gray->height == 2);
  CHECK(pixel(*gray, 0, 0) == Rgb{0, 0, 0});
  CHECK(pixel(*gray, 1, 0) == Rgb{63, 63, 63});
  CHECK(pixel(*gray, 0, 1) == Rgb{127, 127, 127});
  CHECK(pixel(*gray, 1, 1) == Rgb{255, 255, 255});
  const auto colour =
      render({{"frame", torch::tensor({0, 255, 51}).view({3, 1, 1}).expand({3, 2, 4}), Kind::Frame}}, options);
  REQUIRE(colour->width == 4);
  CHECK(pixel(*colour, 3, 1) == Rgb{0, 255, 51});
  for (const auto& wrong : {some({7}), some({10, 10, 3}), some({1, 3, 4, 4}), some({})}) {
    const auto picture = render({{"frame", wrong, Kind::Frame}}, options);
    CHECK(picture->sections.empty());
    CHECK(picture->message.find("(H, W) or (3, H, W)") != std::string::npos);
  }
}

TEST_CASE("pixels by hand: scaling section, all and zero-centred") {
  const std::vector<NamedTensor> tensors = {{"a", torch::tensor({0.0, 5.0, 10.0})},
                                            {"b", torch::tensor({-20.0, -10.0, 20.0})}};
  const auto section = render(tensors);
  CHECK(grays(*section, 3) == std::vector<int>{0, 127, 255});
  CHECK(grays(*section, 3, 133) == std::vector<int>{0, 63, 255});
  CHECK(pixel(*section, 100, 130) == Rgb{0, 0, 0});  // the separator
  CHECK(section->sections[1].scale_low == -20);
  CHECK(section->sections[1].scale_high == Approx(20));
  const auto all = render(tensors, classic(Scaling::All));  // 255 / 40 a unit, from -20
  CHECK(grays(*all, 3) == std::vector<int>{127, 159, 191});
  CHECK(grays(*all, 3, 133) == std::vector<int>{0, 63, 255});
  const auto centred = render(tensors, classic(Scaling::ZeroCentred));  // 127 / 10, 127 / 20 a unit, from 128
  CHECK(grays(*centred, 3) == std::vector<int>{128, 192, 255});
  CHECK(grays(*centred, 3, 133) == std::vector<int>{1, 64, 255});
  CHECK(centred->sections[1].scale_low == Approx(-20));
  CHECK(centred->sections[1].scale_high == Approx(20));
}

TEST_CASE("pixels by hand: where each value of a matrix and of a kernel stands") {
  // A Linear weight (out 2, in 3): rows are inputs.
  const auto linear = render({{"w", torch::tensor({{0.0, 1.0, 2.0}, {3.0, 4.0, 5.0}}), Kind::LinearWeight}});
  for (int in = 0; in < 3; ++in) {
    for (int out = 0; out < 2; ++out) CHECK(pixel(*linear, out * 384 + 100, in * 43 + 20).r == (3 * out + in) * 51);
  }
  const auto array = render({{"w", torch::tensor({{0.0, 1.0, 2.0}, {3.0, 4.0, 5.0}})}});
  CHECK(pixel(*array, 700, 10).r == 102);
  CHECK(pixel(*array, 100, 100).r == 153);
  // Kernels (out 2, in 1, 2 x 2): side by side.
  const auto kernels = render({{"k", torch::arange(8.0).view({2, 1, 2, 2}), Kind::ConvWeight}});
  CHECK(pixel(*kernels, 90, 30).r == 0);
  CHECK(pixel(*kernels, 290, 30).r == 36);
  CHECK(pixel(*kernels, 90, 100).r == 72);
  CHECK(pixel(*kernels, 480, 30).r == 145);
  CHECK(pixel(*kernels, 700, 100).r == 255);
}

TEST_CASE("NaN and infinities have their own colours, disturb nothing and are counted") {
  const at::Tensor x = torch::tensor({kNan, 0.0F, 5.0F, kInf, 10.0F, -kInf});
  for (const Colormap colormap :
       {Colormap::Magma, Colormap::Inferno, Colormap::Plasma, Colormap::Viridis, Colormap::Gray, Colormap::Diverging}) {
    for (const Scaling scaling : {Scaling::Section, Scaling::All, Scaling::ZeroCentred}) {
      Options options = classic(scaling);
      options.settings.colormap = colormap;
      const auto picture = render({{"x", x}, {"y", torch::tensor({0.0, 10.0})}}, options);
      const auto at = [&](int i) { return pixel(*picture, 128 * i + 64, 64); };
      CHECK(at(0) == kNanColour);
      CHECK(at(3) == kPositiveInfColour);
      CHECK(at(5) == kNegativeInfColour);
      const auto table = colour_table(colormap, true);
      const bool centred = scaling == Scaling::ZeroCentred;
      CHECK(at(1) == table[centred ? 128 : 0]);
      CHECK(at(2) == table[centred ? 192 : 127]);
      CHECK(at(4) == table[255]);
      const Statistics& s = picture->sections[0].statistics;
      CHECK(s.nans == 1);
      CHECK(s.infs == 2);
      CHECK(s.zeros == 1);
      CHECK(s.count == 6);
      CHECK(s.min == 0);
      CHECK(s.max == 10);
      CHECK(s.mean == Approx(5));
    }
  }
  for (const auto& nothing : {torch::full({4}, kNan), torch::tensor({kInf, -kInf, kNan})}) {
    for (const Scaling scaling : {Scaling::Section, Scaling::All, Scaling::ZeroCentred}) {
      const auto picture = render({{"x", nothing}, {"y", torch::tensor({1.0, 2.0})}}, classic(scaling));
      check_statistics(picture->sections[0], nothing);
      CHECK(pixel(*picture, 700, 200).r > 100);  // y is scaled as if x were not there
      CHECK(std::isfinite(picture->sections[0].scale_low));
      CHECK(std::isfinite(picture->sections[0].scale_high));
    }
  }
}

TEST_CASE("statistics are those of ATen") {
  torch::manual_seed(8);
  for (const auto& x :
       {torch::randn({100, 200}), torch::randn({77}) * 1e-30, torch::randn({5, 7, 9}) * 1e30,
        (torch::randn({64, 100}) > 0).to(at::kFloat), torch::randn({31, 3}) + 1000, torch::randint(-5, 5, {50, 50}),
        torch::full({9}, 0.1), torch::zeros({3, 3}), torch::tensor({-0.0F, 0.0F, 1.0F}), torch::full({1}, kNan)}) {
    Options options = classic();
    options.settings.show_all = true;
    const auto picture = render({{"x", x}}, options);
    REQUIRE(picture->sections[0].complete);
    check_statistics(picture->sections[0], x);
  }
}

TEST_CASE("a section that is constant has the first colour, or the middle one where 0 is in the middle") {
  for (const double value : {0.0, 3.5, -2.0, 1e30}) {
    const at::Tensor x = torch::full({4, 5}, value);
    CHECK(gray_of(*render({{"x", x}}), 0, 1) == 0);
    CHECK(render({{"x", x}})->sections[0].statistics.std == 0);
    const int centred = value == 0 ? 128 : value > 0 ? 255 : 1;
    CHECK(gray_of(*render({{"x", x}}, classic(Scaling::ZeroCentred)), 0, 1) == centred);
  }
}

TEST_CASE("huge and tiny values keep their scale") {
  const float most = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  CHECK(grays(*render({{"x", torch::tensor({-most, 0.0F, most})}}), 3) == std::vector<int>{0, 127, 255});
  CHECK(grays(*render({{"x", torch::tensor({0.0F, least, 2 * least})}}), 3) == std::vector<int>{0, 127, 255});
  CHECK(grays(*render({{"x", torch::tensor({-least, 0.0F, least})}}, classic(Scaling::ZeroCentred)), 3) ==
        std::vector<int>{1, 128, 255});
}

TEST_CASE("finite numbers beyond float32 are counted by themselves, and not as infinite") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const at::Tensor all = torch::full({16}, 1e300, at::kDouble);
  for (const Scaling scaling : {Scaling::Section, Scaling::All, Scaling::ZeroCentred}) {
    const auto picture = render({{"x", torch::tensor({0.0, 1e300, 1.0, -1e300, inf, -inf, nan, 1e-300}, at::kDouble)},
                                 {"all", all},
                                 {"y", torch::tensor({0.0, 1.0})}},
                                classic(scaling));
    const Statistics& s = picture->sections[0].statistics;
    CHECK(s.beyond == 2);
    CHECK(s.infs == 2);
    CHECK(s.nans == 1);
    CHECK(s.zeros == 1);  // 1e-300 is none
    CHECK(s.min == 0);
    CHECK(s.max == 1);
    CHECK(s.mean == Approx(1.0 / 3));
    // The ends of the scale: more, or less, than all others.
    const auto at = [&](int i) { return pixel(*picture, 96 * i + 48, 64); };
    CHECK(at(1).r == 255);
    CHECK(at(2).r == 255);
    CHECK(at(3).r == 0);
    CHECK(at(4) == kPositiveInfColour);
    CHECK(at(5) == kNegativeInfColour);
    CHECK(at(6) == kNanColour);
    const Statistics& whole = picture->sections[1].statistics;
    CHECK(whole.beyond == 16);
    CHECK(whole.infs == 0);
    CHECK(std::isnan(whole.max));
    CHECK(std::isfinite(picture->sections[1].scale_high));
  }
  // The magnitude of complex numbers: finite where both parts are, exact where a square of them is not.
  const double most = std::numeric_limits<double>::max();
  const auto complex = [](at::ArrayRef<double> re, at::ArrayRef<double> im, at::ScalarType dtype) {
    return render({{"z", torch::complex(torch::tensor(re, at::kDouble), torch::tensor(im, at::kDouble)).to(dtype)}});
  };
  const auto of_float = complex({3e38, 1e20, 0, inf, 1e-30}, {3e38, 0, 0, nan, 0}, at::kComplexFloat)->sections[0];
  CHECK(of_float.statistics.beyond == 1);
  CHECK(of_float.statistics.infs == 1);
  CHECK(of_float.statistics.zeros == 1);
  CHECK(of_float.statistics.max == static_cast<double>(1e20F));
  const auto of_double = complex({most, 1e200, 3, nan, 0}, {most, 0, 4, 0, -inf}, at::kComplexDouble)->sections[0];
  CHECK(of_double.statistics.beyond == 2);
  CHECK(of_double.statistics.nans == 1);
  CHECK(of_double.statistics.infs == 1);
  CHECK(of_double.statistics.max == 5);
}

TEST_CASE("vectors and matrices beyond 2^24 elements are shown") {
  at::Tensor vector = torch::zeros({(1 << 24) + 100}, at::kByte);
  vector[-1] = 200;
  vector[0] = 100;
  for (const bool show_all : {false, true}) {
    for (const LayoutKind layout : {LayoutKind::Classic, LayoutKind::Fit}) {
      Options options = classic();
      options.settings.show_all = show_all;
      options.settings.layout = layout;
      const auto picture = render({{"v", vector},
                                   {"m", torch::ones({1}).expand({70000, 70000})},
                                   {"huge", torch::ones({1}).expand({int64_t{1} << 40})}},
                                  options);
      REQUIRE(picture->sections.size() == 3);
      CHECK(picture->sections[0].values_total == (1 << 24) + 100);
      CHECK(picture->sections[1].values_total == int64_t{70000} * 70000);
      CHECK_FALSE(picture->sections[2].complete);
      CHECK(picture->sections[0].statistics.max >= 100);
      CHECK(static_cast<int64_t>(picture->rgb.size()) <= (int64_t{1} << 30));
    }
  }
}

TEST_CASE("with little memory sections are sampled, and the picture says so") {
  const at::Tensor big = torch::randn({3000, 3000});
  Options options = classic(Scaling::Section, Mode::Variance);
  options.settings.show_all = true;
  options.settings.window_size = 20;
  options.max_host_bytes = 8 << 20;
  for (const LayoutKind layout : {LayoutKind::Classic, LayoutKind::Fit}) {
    options.settings.layout = layout;
    StillRenderer renderer(options);
    auto picture = renderer.render({{"big", big}}, 0);
    CHECK_FALSE(picture->sections[0].complete);
    CHECK(picture->sections[0].sampled);
    if (layout == LayoutKind::Classic) {
      CHECK_FALSE(picture->layout->reduced.empty());
      CHECK(picture->notice.find(picture->layout->reduced) != std::string::npos);
    }
    // Window, staging and values together.
    CHECK(picture->sections[0].statistics.count * 4 * 20 <= options.max_host_bytes);
  }
  options.settings.window_size = 2;
  options.max_host_bytes = int64_t{1} << 30;
  options.settings.layout = LayoutKind::Classic;
  const auto whole = render({{"big", big}}, options);
  CHECK(whole->sections[0].complete);
  CHECK(whole->layout->reduced.empty());
}

TEST_CASE("the classic column is bounded: the first sections that fit, and the picture says so") {
  std::vector<NamedTensor> tensors;
  const at::Tensor x = torch::arange(6.0).view({2, 3});
  for (int i = 0; i < 10000; ++i) tensors.push_back({"t" + std::to_string(i), x});
  const auto picture = render(tensors);
  CHECK(static_cast<int64_t>(picture->rgb.size()) <= (int64_t{1} << 30) / 8);
  CHECK(picture->sections.size() > 400);
  CHECK(picture->sections[0].name == "t0");
  CHECK(picture->layout->total_sections == 10000);
  CHECK(picture->notice.find("the first " + std::to_string(picture->sections.size()) + " of 10000 sections") !=
        std::string::npos);
  tensors.resize(200);
  const auto few = render(tensors);
  CHECK(few->sections.size() == 200);
  CHECK(few->layout->reduced.empty());
  // With show all one section may be larger than the bound: it is shown alone.
  Options options = classic();
  options.settings.show_all = true;
  options.max_host_bytes = 64 << 20;
  std::vector<NamedTensor> wide;
  for (int i = 0; i < 40; ++i) wide.push_back({"w" + std::to_string(i), torch::ones({1}).expand({300, 1500})});
  const auto all = render(wide, options);
  CHECK(static_cast<int64_t>(all->rgb.size()) <= options.max_host_bytes / 8);
  CHECK(all->sections.size() < 40);
  CHECK(all->sections.size() >= 1);
  CHECK(all->layout->reduced.find("of 40 sections") != std::string::npos);
}

TEST_CASE("change is the signed difference to the picture before, symmetric around the middle colour") {
  Options options = classic(Scaling::Section, Mode::Change);
  StillRenderer renderer(options);
  const at::Tensor before = torch::tensor({1.0, 2.0, 3.0, kNan + 0.0, 4.0});
  auto picture = renderer.render({{"x", before}}, 10);
  CHECK(picture->notice == "collecting 1/2");
  CHECK(picture->change_steps == 0);
  const auto table = colour_table(Colormap::Diverging, true);
  const auto at = [&](int i) { return pixel(*picture, (2 * i + 1) * 768 / 10, 64); };
  CHECK(at(0) == table[128]);
  CHECK(at(3) == kNanColour);
  CHECK_FALSE(picture->sections[0].relative_change);
  picture = renderer.render({{"x", torch::tensor({1.0, 4.0, 2.0, 5.0, 3.0}, at::kDouble)}}, 17);
  // Another type: the values stand where they stood.
  CHECK(picture->notice.empty());
  CHECK(picture->change_steps == 7);
  CHECK(at(0) == table[128]);
  CHECK(at(1) == table[255]);  // +2
  CHECK(at(2) == table[64]);   // -1: 128 - round(63.5)
  CHECK(at(3) == kNanColour);
  CHECK(at(4) == table[64]);
  CHECK(picture->sections[0].scale_low == Approx(-2));
  CHECK(picture->sections[0].scale_high == Approx(2));
  REQUIRE(picture->sections[0].relative_change);
  CHECK(*picture->sections[0].relative_change == Approx(std::sqrt((4.0 + 1 + 1) / (1 + 4 + 9 + 16))));
  // The same values again: 0 everywhere, which is the middle colour.
  picture = renderer.render({{"x", torch::tensor({1.0, 4.0, 2.0, 5.0, 3.0}, at::kDouble)}}, 18);
  for (int i = 0; i < 5; ++i) CHECK(at(i) == table[128]);
  CHECK(*picture->sections[0].relative_change == 0);
  CHECK(picture->change_steps == 1);
  // From nothing the relative size is not defined.
  StillRenderer zeros(options);
  zeros.render({{"x", torch::zeros({3})}}, 0);
  CHECK_FALSE(zeros.render({{"x", torch::ones({3})}}, 1)->sections[0].relative_change);
}

TEST_CASE("finite values have a finite change and variance, or are said to be beyond float32") {
  const float most = std::numeric_limits<float>::max();
  const at::Tensor up = torch::tensor({most, -most, 1e20F, 1.0F, kInf}),
                   down = torch::tensor({-most, most, 0.0F, 2.0F, 1.0F});
  for (const Mode mode : {Mode::Change, Mode::Variance}) {
    for (const bool wide : {false, true}) {  // with a value beyond float32 beside them
      INFO(to_string(mode) << ", " << wide);
      StillRenderer renderer(classic(Scaling::Section, mode));
      std::vector<NamedTensor> first = {{"x", down}}, second = {{"x", up}};
      if (wide) {
        first.push_back({"w", torch::tensor({1e300, -1e300, 1e300, 3.0, kInf + 0.0, 4.0}, at::kDouble)});
        second.push_back({"w", torch::tensor({2.0, 2.0, 2e300, 1e300, 1e300, 5.0}, at::kDouble)});
      }
      renderer.render(first, 1);
      const auto picture = renderer.render(second, 2);
      const Statistics& s = picture->sections[0].statistics;
      CHECK(s.beyond == (mode == Mode::Change ? 2 : 3));
      CHECK(s.infs == (mode == Mode::Change ? 1 : 0));
      CHECK(s.nans == (mode == Mode::Change ? 0 : 1));
      CHECK(s.max == (mode == Mode::Change ? static_cast<double>(1e20F) : 0.25));
      if (!wide) continue;
      const Statistics& w = picture->sections[1].statistics;
      CHECK(w.beyond == 4);
      CHECK(w.infs == 0);
      CHECK(w.nans == 1);
      CHECK(w.max == (mode == Mode::Change ? 1 : 0.25));
    }
  }
}

TEST_CASE("variance of large values is exact where float32's squares and sums of them are not") {
  // In both forms: few values, and so many that a running sum is kept.
  for (const int64_t n : {int64_t{100}, History::kExactValues / 7}) {
    History history;
    std::vector<at::Tensor> steps;
    const int window = 8;
    for (int t = 0; t < 24; ++t) {
      at::Tensor x = torch::rand({n});
      auto* v = static_cast<float*>(x.data_ptr());
      const double at = t % 5 - 2.0;
      v[0] = static_cast<float>(1.6e19 * at);  // squares beyond float32, their mean is not (up to its last window)
      v[1] = static_cast<float>(1e38 * at);    // variance beyond float32
      v[2] = 3.3e38F;                          // constant
      v[3] = 3.3e38F + static_cast<float>(t % 3) * 3e31F;         // sums beyond float32, variance far within
      v[4] = t == 10 ? 1e30F : 2.0F + static_cast<float>(t % 2);  // once
      steps.push_back(x);
      at::Tensor values = history.buffer(n, at::kCPU);
      values.copy_(x);
      const at::Tensor shown = history.push(values, t, Mode::Variance, window);
      const auto* got = static_cast<const float*>(shown.data_ptr());
      INFO("n " << n << ", step " << t);
      for (int64_t i = 0; i < 6; ++i) {
        INFO("place " << i);
        const size_t first = static_cast<size_t>(std::max(0, t + 1 - window));
        const double expected = reference_variance(steps, first, steps.size(), i);
        if (expected > std::numeric_limits<float>::max()) {
          CHECK(beyond_sign(got[i]) == 1);
        } else {
          CHECK(std::abs(got[i] - expected) <= 1e-3 * expected + 1e-6);
        }
      }
    }
  }
}

TEST_CASE("the history starts anew when what is shown is something else, and only then") {
  Options options = classic(Scaling::Section, Mode::Variance);
  options.settings.window_size = 5;
  Settings s = options.settings;
  StillRenderer renderer(options);
  const at::Tensor x = torch::randn({4, 5});
  const auto size_after = [&](const std::vector<NamedTensor>& tensors) {
    return renderer.render(tensors)->history_size;
  };
  CHECK(renderer.render({{"x", x}})->notice == "collecting 1/5");
  CHECK(size_after({{"x", x}}) == 2);
  CHECK(renderer.render({{"x", x}})->notice.empty());
  for (int i = 0; i < 4; ++i) renderer.render({{"x", x}});
  CHECK(size_after({{"x", x}}) == 5);
  // Colours, scaling, info, FPS keep it.
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"colormap", "magma"}, {"scaling", "all"}, {"info", "off"}, {"fps", "3"}, {"recording", "on"}}) {
    INFO(name);
    CHECK(set_by_name(s, name, value).empty());
    renderer.set_settings(s);
    CHECK(size_after({{"x", x}}) == 5);
  }
  // A smaller window keeps the newest entries, a larger one grows.
  s.window_size = 3;
  renderer.set_settings(s);
  CHECK(size_after({{"x", x}}) == 3);
  s.window_size = 4;
  renderer.set_settings(s);
  CHECK(size_after({{"x", x}}) == 4);
  // Names, shapes, number of tensors, kinds, filter, show all, layout, values, mode.
  CHECK(size_after({{"y", x}}) == 1);
  CHECK(size_after({{"y", x}}) == 2);
  CHECK(size_after({{"y", x.t()}}) == 1);
  CHECK(size_after({{"y", x.t()}}) == 2);
  CHECK(size_after({{"y", x.t().contiguous()}}) == 3);  // only memory differs
  CHECK(size_after({{"y", x.t()}, {"z", x}}) == 4);     // y goes on
  CHECK(size_after({{"y", x.t()}, {"z", x}}) == 4);
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"filter", "*"}, {"show_all", "on"}, {"layout", "fit"}, {"values", "arrays"}}) {
    INFO(name);
    CHECK(set_by_name(s, name, value).empty());
    renderer.set_settings(s);
    CHECK(size_after({{"y", x.t()}, {"z", x}}) == 1);
    CHECK(size_after({{"y", x.t()}, {"z", x}}) == 2);
  }
  s.mode = Mode::Change;
  renderer.set_settings(s);
  CHECK(renderer.render({{"y", x.t()}, {"z", x}})->notice == "collecting 1/2");
  s.mode = Mode::Variance;
  renderer.set_settings(s);
  CHECK(size_after({{"y", x.t()}, {"z", x}}) == 1);
}

namespace {

/// Random steps with what is hard: place 0 never changes; 1 jumps from 1e10 to 1; 2 is NaN once; 3 infinite once; 4
/// changes once; 5 shrinks by half at each step; 6 is far from 0.
std::vector<at::Tensor> hard_steps(int64_t n, int count) {
  std::vector<at::Tensor> steps;
  for (int t = 0; t < count; ++t) {
    at::Tensor x = torch::randn({n}) * 0.1 + 1;
    auto* v = static_cast<float*>(x.data_ptr());
    for (int64_t i = 0; i + 16 <= n; i += n / 10) {
      v[i] = 0.3F;
      v[i + 1] *= t < 12 ? 1e10F : 1.0F;
      if (t == 9) v[i + 2] = kNan;
      if (t == 11) v[i + 3] = -kInf;
      v[i + 4] = t < 8 ? 1.7F : 2.9F;
      v[i + 5] = 1e8F * std::pow(0.5F, static_cast<float>(t)) * (1 + 0.1F * v[i + 5]);
      v[i + 6] += 1000;
    }
    steps.push_back(x);
  }
  return steps;
}

void check_variance(int64_t n, const std::vector<int>& windows) {
  const auto steps = hard_steps(n, 40);
  History history;
  size_t length = 0;
  double worst = 0;
  int64_t wrong = 0;
  for (size_t t = 0; t < steps.size(); ++t) {
    const auto window = static_cast<size_t>(windows[t * windows.size() / steps.size()]);
    length = std::min(length + 1, window);
    at::Tensor values = history.buffer(n, at::kCPU);
    values.copy_(steps[t]);
    const at::Tensor shown = history.push(values, static_cast<int64_t>(t), Mode::Variance, static_cast<int>(window));
    REQUIRE(history.size() == static_cast<int>(length));
    const auto* v = static_cast<const float*>(shown.data_ptr());
    std::vector<int64_t> places;
    for (int64_t i = 0; i + 16 <= n; i += n / 10) {
      for (int64_t k = 0; k < 8; ++k) places.push_back(i + k);
    }
    for (int64_t i = 0; i < n; i += std::max<int64_t>(1, n / 2000)) places.push_back(i);
    for (const int64_t i : places) {
      const double expected = reference_variance(steps, t + 1 - length, t + 1, i);
      if (std::isnan(expected)) {
        wrong += std::isnan(v[i]) ? 0 : 1;
        continue;
      }
      // Exactly 0 where nothing changed; float32 elsewhere.
      const double tolerance = expected == 0 ? 0 : 2e-3 * expected + 1e-6;
      const double error = std::abs(v[i] - expected);
      if (!(error <= tolerance)) {
        ++wrong;
        UNSCOPED_INFO("step " << t << " place " << i << ": " << v[i] << " instead of " << expected);
      }
      worst = std::max(worst, error / (expected + 1e-12));
    }
    if (wrong > 0) break;
  }
  INFO("worst relative error " << worst);
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("variance equals two passes in double: few values") {
  torch::manual_seed(9);
  for (const int window : {2, 5, 20}) {
    INFO("window " << window);
    check_variance(1000, {window});
  }
  check_variance(1000, {20, 3, 15, 2, 9});
}

TEST_CASE("variance equals two passes in double: so many values that the running form is used") {
  torch::manual_seed(10);
  const int64_t n = History::kExactValues / 8;
  REQUIRE(n * 9 > History::kExactValues);
  for (const int window : {2, 5, 20}) {
    INFO("window " << window);
    check_variance(n, {window});
  }
  check_variance(n, {20, 9, 15, 3, 12});
}
