// What is shown, and where it stands: sections and layouts, checked with plain numbers.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "beholder/layout.h"
#include "beholder/section.h"
#include "catch.h"
#include "geometry_checks.h"

using namespace beholder;
using namespace geometry_checks;

namespace {

std::string module_of(const std::string& name) {
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

TensorShape tensor(const std::string& name, Kind kind, const Shape& shape) {
  return {name, kind, shape, module_of(name)};
}

void add_linear(std::vector<TensorShape>& net, const std::string& name, int64_t out, int64_t in) {
  net.push_back(tensor(name + ".weight", Kind::LinearWeight, {out, in}));
  net.push_back(tensor(name + ".bias", Kind::OtherParameter, {out}));
}
void add_norm(std::vector<TensorShape>& net, const std::string& name, int64_t channels) {
  net.push_back(tensor(name + ".weight", Kind::OtherParameter, {channels}));
  net.push_back(tensor(name + ".bias", Kind::OtherParameter, {channels}));
}
void add_conv(std::vector<TensorShape>& net, const std::string& name, int64_t out, int64_t in, int64_t kernel,
              bool bias) {
  net.push_back(tensor(name + ".weight", Kind::ConvWeight, {out, in, kernel, kernel}));
  if (bias) net.push_back(tensor(name + ".bias", Kind::OtherParameter, {out}));
}

std::vector<TensorShape> lenet(int64_t flattened = 400) {
  std::vector<TensorShape> net;
  add_conv(net, "conv1", 6, 1, 5, true);
  add_conv(net, "conv2", 16, 6, 5, true);
  add_linear(net, "fc1", 120, flattened);
  add_linear(net, "fc2", 84, 120);
  add_linear(net, "fc3", 10, 84);
  return net;
}

std::vector<TensorShape> fashion_net() {
  std::vector<TensorShape> net;
  add_conv(net, "conv1", 32, 1, 5, true);
  add_norm(net, "bn1", 32);
  add_conv(net, "conv2", 64, 32, 3, true);
  add_norm(net, "bn2", 64);
  add_conv(net, "conv3", 128, 64, 3, true);
  add_norm(net, "bn3", 128);
  add_linear(net, "fc1", 128, 1152);
  add_linear(net, "fc2", 10, 128);
  return net;
}

std::vector<TensorShape> fashion_activations() {
  return {tensor("conv1", Kind::Activation, {64, 32, 28, 28}), tensor("conv2", Kind::Activation, {64, 64, 14, 14}),
          tensor("conv3", Kind::Activation, {64, 128, 7, 7}), tensor("fc1", Kind::Activation, {64, 128}),
          tensor("fc2", Kind::Activation, {64, 10})};
}

// torchvision's 62 parameters.
std::vector<TensorShape> resnet18() {
  std::vector<TensorShape> net;
  add_conv(net, "conv1", 64, 3, 7, false);
  add_norm(net, "bn1", 64);
  int64_t in = 64;
  for (int layer = 1; layer <= 4; ++layer) {
    const int64_t out = 32 << layer;
    for (int block = 0; block < 2; ++block) {
      const std::string name = "layer" + std::to_string(layer) + "." + std::to_string(block) + ".";
      add_conv(net, name + "conv1", out, block == 0 ? in : out, 3, false);
      add_norm(net, name + "bn1", out);
      add_conv(net, name + "conv2", out, out, 3, false);
      add_norm(net, name + "bn2", out);
      if (block > 0 || layer == 1) continue;
      add_conv(net, name + "downsample.0", out, in, 1, false);
      add_norm(net, name + "downsample.1", out);
    }
    in = out;
  }
  add_linear(net, "fc", 1000, 512);
  return net;
}

// 100 tensors: two embeddings, eight layers of twelve, the last norm.
std::vector<TensorShape> transformer() {
  std::vector<TensorShape> net{tensor("tok_emb.weight", Kind::EmbeddingWeight, {1000, 128}),
                               tensor("pos_emb.weight", Kind::EmbeddingWeight, {128, 128})};
  for (int layer = 0; layer < 8; ++layer) {
    const std::string name = "h." + std::to_string(layer) + ".";
    add_norm(net, name + "ln1", 128);
    net.push_back(tensor(name + "attn.in_proj_weight", Kind::LinearWeight, {384, 128}));
    net.push_back(tensor(name + "attn.in_proj_bias", Kind::OtherParameter, {384}));
    add_linear(net, name + "attn.out_proj", 128, 128);
    add_norm(net, name + "ln2", 128);
    add_linear(net, name + "mlp.0", 512, 128);
    add_linear(net, name + "mlp.2", 128, 512);
  }
  add_norm(net, "ln_f", 128);
  return net;
}

// ResNets and transformers one after the other, until there are so many tensors.
std::vector<TensorShape> many(size_t count) {
  std::vector<TensorShape> net, both = resnet18(), second = transformer();
  both.insert(both.end(), second.begin(), second.end());
  for (size_t k = 0; k < count; ++k) {
    TensorShape t = both[k % both.size()];
    const std::string prefix = "m" + std::to_string(k / both.size()) + ".";
    net.push_back({prefix + t.name, t.kind, t.shape, prefix + t.module});
  }
  return net;
}

// Pixels of the widest and the narrowest block, of those that are not cut off by the picture's edge.
std::pair<int, int> block_range(const std::vector<int32_t>& at) {
  std::map<int32_t, int> runs;
  for (int32_t index : at)
    if (index >= 0) ++runs[index];
  int low = 1 << 30, high = 0;
  for (const auto& [index, run] : runs) {
    low = std::min(low, run);
    high = std::max(high, run);
  }
  return {low, high};
}

const Section& section_named(const Layout& layout, const std::vector<TensorShape>& tensors, const std::string& name) {
  for (const Section& section : layout.sections)
    if (tensors[section.tensor].name == name) return section;
  throw std::runtime_error("no section " + name);
}

// Share of the canvas that is neither a picture, nor a caption's line, nor one of the fixed gaps, nor the footer. Fixed
// gaps: the margin, those between columns, and at most kGap pixels between a section and the next one of its column.
double unused_share(const Layout& layout) {
  std::vector<char> used(static_cast<size_t>(layout.width) * static_cast<size_t>(layout.height), 0);
  const auto mark = [&](int x, int y, int width, int height) {
    for (int row = std::max(0, y); row < std::min(layout.height, y + height); ++row)
      for (int column = std::max(0, x); column < std::min(layout.width, x + width); ++column)
        used[static_cast<size_t>(row) * static_cast<size_t>(layout.width) + static_cast<size_t>(column)] = 1;
  };
  const int gap = FitMetrics::kGap;
  mark(0, 0, layout.width, gap);
  mark(0, 0, gap, layout.height);
  mark(layout.width - gap, 0, gap, layout.height);
  mark(0, layout.footer.y - gap, layout.width, layout.height);
  const Section* before = nullptr;
  for (const Section& section : layout.sections) {
    const Rect& a = section.area;
    mark(section.picture.x, section.picture.y, section.picture.width, section.picture.height);
    mark(section.caption.x, section.caption.y, section.caption.width, section.caption.height);
    mark(a.x + a.width, gap, gap, layout.height);
    if (before && before->area.x == a.x && a.y - before->area.y - before->area.height <= gap)
      mark(a.x, before->area.y + before->area.height, a.width, a.y - before->area.y - before->area.height);
    before = &section;
  }
  return 1 - static_cast<double>(std::count(used.begin(), used.end(), 1)) / static_cast<double>(used.size());
}

// ---- Random tensors

const Kind kKinds[] = {
    Kind::Vector,         Kind::LinearWeight, Kind::EmbeddingWeight, Kind::ConvWeight, Kind::ConvTransposeWeight,
    Kind::OtherParameter, Kind::Activation,   Kind::Array,           Kind::Frame};

TensorShape random_tensor(std::mt19937& random, int number) {
  TensorShape t;
  t.name = "t" + std::to_string(number);
  t.kind = kKinds[random() % 9];
  const size_t rank = random() % 7;
  static const int64_t kExtents[] = {1, 1, 2, 3, 3, 5, 7, 8, 16, 31, 64, 100, 130, 300, 1000};
  const size_t choices = rank <= 2 ? 15 : rank == 3 ? 13 : rank == 4 ? 11 : 8;
  for (size_t dim = 0; dim < rank; ++dim) t.shape.push_back(kExtents[random() % choices]);
  if (rank == 1 && random() % 8 == 0) t.shape[0] = 200000 + static_cast<int64_t>(random() % 1000);
  if (random() % 2) t.module = "m" + std::to_string(number / 2);
  return t;
}

std::vector<TensorShape> random_tensors(std::mt19937& random, size_t count) {
  std::vector<TensorShape> tensors;
  for (size_t k = 0; k < count; ++k) tensors.push_back(random_tensor(random, static_cast<int>(k)));
  return tensors;
}

// ---- The original's definition of M, written down once more and in the plainest way

struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<int64_t> element;  // C-order
};

Matrix matrix_of_blocks(int64_t block_rows, int64_t block_columns, int64_t height, int64_t width, bool show_all,
                        const std::function<int64_t(int64_t, int64_t, int64_t, int64_t)>& element) {
  int64_t shown = 0;
  while (shown < block_rows) {
    ++shown;
    if (!show_all && (shown - 1) * height * width * block_rows >= 32768) break;
  }
  Matrix m{shown * height, block_columns * width, {}};
  for (int64_t i = 0; i < shown; ++i)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t o = 0; o < block_columns; ++o)
        for (int64_t x = 0; x < width; ++x) m.element.push_back(element(i, y, x, o));
  return m;
}

Matrix matrix_by_definition(const TensorShape& t, bool show_all, int64_t height, int64_t width) {
  const Shape& s = t.shape;
  const Kind kind = resolve_kind(t.kind, s);
  if (s.size() == 1)
    return matrix_of_blocks(1, s[0], 1, 1, true, [](int64_t, int64_t, int64_t, int64_t o) { return o; });
  if (s.size() == 2) {
    if (kind == Kind::LinearWeight)
      return matrix_of_blocks(s[1], s[0], 1, 1, true,
                              [&](int64_t i, int64_t, int64_t, int64_t o) { return o * s[1] + i; });
    return matrix_of_blocks(s[0], s[1], 1, 1, true,
                            [&](int64_t i, int64_t, int64_t, int64_t o) { return i * s[1] + o; });
  }
  if (s.size() == 4 && kind == Kind::ConvWeight)
    return matrix_of_blocks(s[1], s[0], s[2], s[3], show_all, [&](int64_t i, int64_t y, int64_t x, int64_t o) {
      return ((o * s[1] + i) * s[2] + y) * s[3] + x;
    });
  if (s.size() == 4 && (kind == Kind::ConvTransposeWeight || kind == Kind::Activation))
    return matrix_of_blocks(s[0], s[1], s[2], s[3], show_all, [&](int64_t i, int64_t y, int64_t x, int64_t o) {
      return ((i * s[1] + o) * s[2] + y) * s[3] + x;
    });
  if (s.size() == 3 && kind == Kind::Activation) {
    Matrix m = matrix_of_blocks(s[0], 1, s[1], s[2], true,
                                [&](int64_t i, int64_t y, int64_t x, int64_t) { return (i * s[1] + y) * s[2] + x; });
    if (!show_all) m.rows = std::min(m.rows, std::max<int64_t>(1, 128 / s[1]) * s[1]);
    return m;
  }
  const int64_t n = t.numel(), shown = show_all ? n : std::min<int64_t>(n, 32768);
  const auto side = static_cast<int64_t>(std::max(1.0, std::floor(std::sqrt(double(height * width) / double(shown)))));
  Matrix m;
  m.rows = std::max<int64_t>(1, height / side);
  m.columns = shown / m.rows;
  for (int64_t k = 0; k < m.rows * m.columns; ++k) m.element.push_back(k);
  return m;
}

std::string wrong_classic(const Section& section, const TensorShape& t, bool show_all) {
  const Matrix m = matrix_by_definition(t, show_all, section.picture.height, section.picture.width);
  const std::vector<int64_t> rows = resize_indices(m.rows, section.picture.height);
  const std::vector<int64_t> columns = resize_indices(m.columns, section.picture.width);
  for (size_t y = 0; y < rows.size(); y += rows.size() < 8 ? 1 : 3)
    for (size_t x = 0; x < columns.size(); x += 5)
      if (element_at(section, t.shape, section.row_at[y], section.column_at[x]) !=
          m.element[static_cast<size_t>(rows[y] * m.columns + columns[x])])
        return "shows another element than the definition at " + std::to_string(y) + ", " + std::to_string(x);
  const std::set<int64_t> unique_rows(rows.begin(), rows.end()), unique_columns(columns.begin(), columns.end());
  if (section.selection.size() != static_cast<int64_t>(unique_rows.size() * unique_columns.size()))
    return "gathers more than it shows";
  return "";
}

bool is_frame(const TensorShape& t) {
  return t.kind == Kind::Frame && (t.shape.size() == 2 || (t.shape.size() == 3 && t.shape[0] == 3));
}

}  // namespace

// ---- Kinds and selections

TEST_CASE("the kind of an array follows from its shape, that of the others does not", "[geometry]") {
  CHECK(resolve_kind(Kind::Array, {}) == Kind::Vector);
  CHECK(resolve_kind(Kind::OtherParameter, {7}) == Kind::Vector);
  CHECK(resolve_kind(Kind::Array, {8, 4, 11, 11}) == Kind::ConvWeight);
  CHECK(resolve_kind(Kind::Array, {8, 4, 11, 12}) == Kind::Activation);
  CHECK(resolve_kind(Kind::Array, {8, 4}) == Kind::Array);
  CHECK(resolve_kind(Kind::Activation, {8, 4, 3, 3}) == Kind::Activation);
}

TEST_CASE("a selection numbers its elements in the order in which they are gathered", "[geometry]") {
  Selection box;
  box.box = {{1, 2, 2}, {0, 1, 1}, {3, 1, 2}};  // of 4 x 2 x 6
  REQUIRE(box.size() == 4);
  CHECK(box.element(0, {4, 2, 6}) == 1 * 12 + 3);
  CHECK(box.element(1, {4, 2, 6}) == 1 * 12 + 4);
  CHECK(box.element(3, {4, 2, 6}) == 3 * 12 + 4);
  Selection lists;
  lists.outer = {10, 20};
  lists.inner = {0, 3, 5};
  REQUIRE(lists.size() == 6);
  CHECK(lists.element(4, {100}) == 23);
}

// ---- Classic

TEST_CASE("the resize follows the float32 rule, not integer arithmetic", "[geometry][classic]") {
  const std::vector<int64_t> same = resize_indices(768, 768);
  for (int64_t i = 0; i < 768; ++i) CHECK(same[static_cast<size_t>(i)] == i);
  for (int64_t in : {112, 200, 224, 400, 448, 776, 800, 848, 896, 1552, 1576, 1600}) {
    const std::vector<int64_t> indices = resize_indices(in, 768);
    int64_t different = 0;
    for (int64_t i = 0; i < 768; ++i) different += indices[static_cast<size_t>(i)] != i * in / 768;
    INFO(in);
    CHECK(different > 0);
    CHECK(indices.back() <= in - 1);
  }
  const std::vector<int64_t> huge = resize_indices((int64_t{1} << 24) + 1000, 768);
  CHECK(huge.back() < (int64_t{1} << 24) + 1000);
}

TEST_CASE("classic stands in one column, 128 a section and 5 between them", "[geometry][classic]") {
  const Layout layout = classic_layout(lenet(), false);
  CHECK(layout.width == 768);
  CHECK(layout.height == 10 * 128 + 9 * 5);
  CHECK(layout.separators);
  CHECK(layout.footer.height == 0);
  CHECK(layout.sections[3].picture == Rect{0, 3 * 133, 768, 128});
  const Layout empty = classic_layout({}, false);
  CHECK(empty.width == 768);
  CHECK(empty.height == 128);
  CHECK(empty.sections.empty());
}

TEST_CASE("classic cuts block rows as the original does", "[geometry][classic]") {
  const auto rows_of = [](const Shape& shape) {
    const Layout layout = classic_layout({tensor("w", Kind::ConvWeight, shape)}, false);
    std::set<int64_t> inputs;
    const Section& section = layout.sections[0];
    for (int row = 0; row < section.grid.rows(); ++row)
      inputs.insert(element_at(section, shape, row, 0) / (shape[2] * shape[3]) % shape[1]);
    return static_cast<int64_t>(*inputs.rbegin() + 1);
  };
  CHECK(rows_of({8, 512, 3, 3}) == 9);
  CHECK(rows_of({8, 256, 3, 3}) == 16);
  CHECK(rows_of({256, 64, 3, 3}) == 58);
  CHECK(rows_of({2, 64, 1, 1}) == 64);
  CHECK(rows_of({40, 183, 1, 1}) == 181 - 1);  // the last of 181 falls to the resize: 181 rows on 128 pixels
}

TEST_CASE("classic with show all is as wide as the widest matrix, and vectors stay 128 high", "[geometry][classic]") {
  const std::vector<TensorShape> tensors{
      tensor("conv", Kind::ConvWeight, {300, 50, 3, 3}), tensor("bias", Kind::OtherParameter, {901}),
      tensor("fc", Kind::LinearWeight, {10, 200}),       tensor("r3", Kind::OtherParameter, {3, 35, 1000}),
      tensor("act", Kind::Activation, {30, 7, 5, 5}),    tensor("tokens", Kind::Activation, {3, 60, 9})};
  const Layout layout = classic_layout(tensors, true);
  CHECK(layout.width == 901);
  const int heights[] = {150, 128, 200, 136, 150, 180};
  for (size_t k = 0; k < 6; ++k) CHECK(layout.sections[k].picture.height == heights[k]);
  for (size_t k : {0u, 1u, 2u, 4u, 5u}) CHECK(layout.sections[k].complete);
}

TEST_CASE("every pixel of classic shows the element of the original's definition", "[geometry][classic]") {
  std::mt19937 random(1);
  for (int round = 0; round < 250; ++round) {
    const std::vector<TensorShape> tensors = random_tensors(random, 1 + random() % 4);
    const bool show_all = random() % 3 == 0;
    const Layout layout = classic_layout(tensors, show_all);
    INFO("round " << round);
    REQUIRE(wrong_layout(layout, tensors) == "");
    for (const Section& section : layout.sections) {
      const TensorShape& t = tensors[section.tensor];
      if (t.shape.empty() || is_frame(t)) continue;
      INFO(t.name << " rank " << t.shape.size() << " " << to_string(t.kind) << " show all " << show_all);
      REQUIRE(wrong_classic(section, t, show_all) == "");
    }
  }
}

TEST_CASE("classic gathers a box wherever rows and columns are regular", "[geometry][classic]") {
  const std::vector<TensorShape> regular{
      tensor("linear", Kind::LinearWeight, {128, 576}), tensor("conv", Kind::ConvWeight, {64, 32, 3, 3}),
      tensor("cut", Kind::ConvWeight, {64, 512, 3, 3}),  // 9 of 512 block rows
      tensor("half", Kind::OtherParameter, {1536}),     tensor("transposed", Kind::ConvTransposeWeight, {16, 32, 4, 4}),
      tensor("act", Kind::Activation, {8, 16, 4, 4})};
  const Layout layout = classic_layout(regular, false);
  for (size_t k : {1u, 2u, 3u, 4u, 5u}) CHECK_FALSE(layout.sections[k].selection.box.empty());
  // 576 rows on 128 pixels: 0, 4, 9, 13, ... is no regular range; of the two lists the one of larger stride is outside.
  const Selection& lists = layout.sections[0].selection;
  REQUIRE(lists.box.empty());
  CHECK(lists.outer.size() == 128);
  CHECK(lists.outer[1] == 576);
  CHECK(lists.inner[1] == 4);
}

TEST_CASE("a frame is shown as it is", "[geometry][classic]") {
  const std::vector<TensorShape> gray{tensor("frame", Kind::Frame, {48, 64})},
      rgb{tensor("frame", Kind::Frame, {3, 20, 30})};
  const Layout one = classic_layout(gray, false), three = classic_layout(rgb, false);
  CHECK(one.width == 64);
  CHECK(one.height == 48);
  CHECK(one.sections[0].channel_stride == 0);
  CHECK(three.width == 30);
  CHECK(three.height == 20);
  CHECK(three.sections[0].channel_stride == 600);
  CHECK(wrong_layout(three, rgb) == "");
}

// ---- Fit

TEST_CASE("random tensors on any canvas: nothing overlaps, leaves the canvas, or is lost", "[geometry][fit]") {
  std::mt19937 random(2);
  static const int kWidths[] = {1, 2, 7, 40, 200, 333, 640, 1280, 2000},
                   kHeights[] = {1, 2, 9, 30, 119, 121, 360, 720, 1500};
  int tensors_seen = 0;
  for (int round = 0; tensors_seen < 1000; ++round) {
    const std::vector<TensorShape> tensors = random_tensors(random, 1 + random() % 12);
    const int width = kWidths[random() % 9], height = kHeights[random() % 9];
    const bool show_all = random() % 2;
    tensors_seen += static_cast<int>(tensors.size());
    size_t next = 0;
    int pages = 1;
    for (int page = 0; page < pages; ++page) {
      const Layout layout = fit_layout(tensors, width, height, show_all, page);
      INFO("round " << round << ", " << width << " x " << height << ", page " << page << ", show all " << show_all);
      pages = layout.pages;
      REQUIRE(layout.page == page);
      REQUIRE(layout.width == width);
      REQUIRE(layout.height == height);
      REQUIRE(layout.first_section == next);
      REQUIRE(wrong_layout(layout, tensors) == "");
      REQUIRE_FALSE(layout.sections.empty());
      next += layout.sections.size();
    }
    REQUIRE(next == tensors.size());
  }
}

TEST_CASE("no value is shown twice, and complete means all of them", "[geometry][fit]") {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    const std::vector<TensorShape> tensors{random_tensor(random, round)};
    const bool show_all = random() % 2;
    const Layout layout =
        random() % 2 ? fit_layout(tensors, 640, 360, show_all) : solo_layout(tensors[0], 640, 360, show_all);
    const Section& section = layout.sections[0];
    std::set<int64_t> seen;
    int64_t cells = 0;
    for (int row = 0; row < section.grid.rows(); ++row)
      for (int column = 0; column < columns_of_row(section, row); ++column, ++cells)
        seen.insert(element_at(section, tensors[0].shape, row, column));
    INFO("round " << round << ", rank " << tensors[0].shape.size() << " " << to_string(tensors[0].kind));
    REQUIRE(static_cast<int64_t>(seen.size()) == cells);
    REQUIRE(section.complete == (cells * (section.channel_stride > 0 ? 3 : 1) == tensors[0].numel()));
  }
}

TEST_CASE("a wrapped first layer: kernels one after the other, every value where it belongs", "[geometry][fit]") {
  const std::vector<TensorShape> net = fashion_net();
  const Layout layout = fit_layout(net, 1280, 720, false);
  const Section& section = section_named(layout, net, "conv1.weight");
  const int per_row = section.grid.columns() / 5;
  REQUIRE(section.grid.rows() > 5);
  for (int row = 0; row < section.grid.rows(); ++row)
    for (int column = 0; column < columns_of_row(section, row); ++column) {
      const int kernel = row / 5 * per_row + column / 5;
      REQUIRE(element_at(section, {32, 1, 5, 5}, row, column) == kernel * 25 + row % 5 * 5 + column % 5);
    }
}

TEST_CASE("kernels: inputs down, outputs across; a matrix: the longer side across", "[geometry][fit]") {
  const std::vector<TensorShape> net{tensor("conv.weight", Kind::ConvWeight, {16, 6, 5, 5}),
                                     tensor("fc.weight", Kind::LinearWeight, {84, 120}),
                                     tensor("up.weight", Kind::ConvTransposeWeight, {8, 16, 4, 4})};
  const Layout layout = fit_layout(net, 1280, 720, false);
  const Section &conv = layout.sections[0], &fc = layout.sections[1], &up = layout.sections[2];
  REQUIRE(conv.complete);
  REQUIRE(fc.complete);
  REQUIRE(up.complete);
  if (conv.grid.columns() == 80) CHECK(element_at(conv, net[0].shape, 7, 13) == ((2 * 6 + 1) * 5 + 2) * 5 + 3);
  CHECK(fc.grid.rows() == 84);
  CHECK(fc.grid.columns() == 120);
  CHECK(element_at(fc, net[1].shape, 3, 7) == 3 * 120 + 7);
  if (up.grid.columns() == 64) CHECK(element_at(up, net[2].shape, 4 + 1, 2 * 4 + 3) == ((1 * 16 + 2) * 4 + 1) * 4 + 3);
  CHECK(fc.reading == "rows: outputs, columns: inputs");
  CHECK(fit_layout({tensor("fc", Kind::LinearWeight, {120, 84})}, 1280, 720, false).sections[0].reading ==
        "rows: inputs, columns: outputs");
}

TEST_CASE("no more than 15 % of the canvas is unused", "[geometry][fit]") {
  const std::pair<const char*, std::vector<TensorShape>> cases[] = {
      {"LeNet", lenet()},
      {"LeNet for 28 x 28", lenet(256)},
      {"Fashion-MNIST net", fashion_net()},
      {"its activations", fashion_activations()},
      {"ResNet-18", resnet18()},
      {"transformer", transformer()},
      {"one vector", {tensor("w", Kind::OtherParameter, {1000})}},
      {"one short vector", {tensor("w", Kind::OtherParameter, {10})}},
      {"one huge matrix", {tensor("w", Kind::LinearWeight, {10000, 10000})}},
      {"300 tensors", many(300)},
      {"1000 tensors", many(1000)}};
  for (const auto& [name, tensors] : cases) {
    const Layout layout = fit_layout(tensors, 1280, 720, false);
    const double share = unused_share(layout);
    INFO(name << ": " << 100 * share << " %");
    CHECK(share <= 0.15);
    CHECK(wrong_layout(layout, tensors) == "");
    CHECK(layout.sections.size() == tensors.size());
  }
  CHECK(resnet18().size() == 62);
  CHECK(transformer().size() == 100);
}

TEST_CASE("first layers of small networks get at least 6 pixels a value", "[geometry][fit]") {
  for (const auto& net : {lenet(), fashion_net()}) {
    const Layout layout = fit_layout(net, 1280, 720, false);
    const Section& conv1 = section_named(layout, net, "conv1.weight");
    CHECK(conv1.complete);
    CHECK(block_range(conv1.row_at).first >= 6);
    CHECK(block_range(conv1.column_at).first >= 6);
  }
}

TEST_CASE("blocks are whole squares of 3 pixels at least; activation maps are tiles of 28", "[geometry][fit]") {
  for (const auto& net : {lenet(), fashion_net(), resnet18(), transformer(), many(300)}) {
    const Layout layout = fit_layout(net, 1280, 720, false);
    for (const Section& section : layout.sections) {
      const auto rows = block_range(section.row_at), columns = block_range(section.column_at);
      INFO(net[section.tensor].name);
      CHECK(rows.first == rows.second);
      CHECK(columns.first == columns.second);
      CHECK(rows.first >= 3);
      CHECK(columns.first >= 3);
      if (net[section.tensor].shape.size() > 1) CHECK(rows.first == columns.first);
    }
  }
  const std::vector<TensorShape> maps = fashion_activations();
  const Layout layout = fit_layout(maps, 1280, 720, false);
  for (size_t k = 0; k < 3; ++k) {
    const std::vector<int32_t>& at = layout.sections[k].column_at;
    CHECK(std::find(at.begin(), at.end(), -1) - at.begin() >= 28);
  }
}

TEST_CASE("there is no gap between tiles of one value", "[geometry][fit]") {
  for (const Kind kind : {Kind::ConvWeight, Kind::Activation, Kind::OtherParameter}) {
    const Layout layout = fit_layout({tensor("w", kind, {128, 64, 1, 1})}, 1280, 720, false);
    const Section& section = layout.sections[0];
    CHECK(std::count(section.row_at.begin(), section.row_at.end(), -1) == 0);
    CHECK(std::count(section.column_at.begin(), section.column_at.end(), -1) == 0);
  }
}

TEST_CASE("weight and bias of a module stand in one column, one below the other", "[geometry][fit]") {
  for (const auto& net : {lenet(), fashion_net(), resnet18(), transformer(), many(300), many(1000)}) {
    for (const auto& [width, height] : {std::pair{1280, 720}, std::pair{640, 360}, std::pair{1920, 1080}}) {
      const Layout layout = fit_layout(net, width, height, false);
      for (size_t k = 1; k < layout.sections.size(); ++k) {
        const Section &section = layout.sections[k], &before = layout.sections[k - 1];
        if (net[section.tensor].module.empty() || net[section.tensor].module != net[before.tensor].module) continue;
        INFO(net[section.tensor].name << " on " << width);
        CHECK(section.area.x == before.area.x);
        CHECK(section.area.y >= before.area.y + before.area.height);
        CHECK(section.area.y <= before.area.y + before.area.height + FitMetrics::kGap);
      }
    }
  }
}

TEST_CASE("there is one spacing above every caption", "[geometry][fit]") {
  for (const auto& net : {lenet(), resnet18(), transformer()}) {
    const Layout layout = fit_layout(net, 1280, 720, false);
    std::set<int> above;
    for (size_t k = 1; k < layout.sections.size(); ++k) {
      const Section &section = layout.sections[k], &before = layout.sections[k - 1];
      if (section.area.x == before.area.x && !section.caption_inline)
        above.insert(section.caption.y - before.area.y - before.area.height);
    }
    CHECK(above.size() == 1);
  }
}

TEST_CASE("names have room for 16 characters beside a vector", "[geometry][fit]") {
  for (const auto& net : {resnet18(), transformer()}) {
    const Layout layout = fit_layout(net, 1280, 720, false);
    REQUIRE(layout.captions == CaptionDetail::Full);
    for (const Section& section : layout.sections)
      if (section.caption_inline) CHECK(section.caption.width >= 16 * 6);
  }
}

TEST_CASE("long names beside vectors have room for their last two components", "[geometry][fit]") {
  std::vector<TensorShape> net;
  for (int layer = 0; layer < 8; ++layer) {
    const std::string name = "encoder.layers." + std::to_string(layer) + ".";
    net.push_back(tensor(name + "self_attn.in_proj_weight", Kind::OtherParameter, {576, 192}));
    net.push_back(tensor(name + "self_attn.in_proj_bias", Kind::OtherParameter, {576}));
    add_linear(net, name + "self_attn.out_proj", 192, 192);
    add_linear(net, name + "linear1", 768, 192);
    add_linear(net, name + "linear2", 192, 768);
    for (const char* norm : {"norm1", "norm2"}) add_norm(net, name + norm, 192);
  }
  const Layout layout = fit_layout(net, 1280, 720, false);
  REQUIRE(layout.captions == CaptionDetail::Full);
  for (const Section& section : layout.sections) {
    if (section.caption_inline) CHECK(section.caption.width >= 22 * 6);  // "self_attn.in_proj_bias"
    // Columns are wide enough for name and shape of most.
    if (!section.caption_inline) CHECK(section.caption.width >= 40 * 5.8);  // "encoder.layers.0.linear1.weight 768x192"
  }
  CHECK(wrong_layout(layout, net) == "");
}

TEST_CASE("a small canvas keeps the names of a small network", "[geometry][fit]") {
  CHECK(fit_layout(lenet(), 320, 240, false).captions == CaptionDetail::Name);
}

TEST_CASE("small square matrices share a column fairly", "[geometry][fit]") {
  std::vector<TensorShape> net;
  add_linear(net, "fc", 64, 64);
  const std::vector<Shape> squares{{16, 16}, {20, 30}, {30, 30}};
  for (size_t k = 0; k < squares.size(); ++k)
    net.push_back(tensor("m" + std::to_string(k) + ".weight", Kind::LinearWeight, squares[k]));
  const Layout layout = fit_layout(net, 1280, 720, false);
  int lowest = 1 << 20, highest = 0;
  for (size_t k = 2; k < layout.sections.size(); ++k) {
    lowest = std::min(lowest, layout.sections[k].picture.height);
    highest = std::max(highest, layout.sections[k].picture.height);
  }
  CHECK(highest <= 3 * lowest / 2);
}

TEST_CASE("what a full column has left is shared among its sections", "[geometry][fit]") {
  std::vector<TensorShape> net;
  for (int k = 0; k < 500; ++k) add_linear(net, "m" + std::to_string(k), 24, 16);
  const Layout layout = fit_layout(net, 1280, 720, false);
  REQUIRE(layout.sections.size() == net.size());
  int fewest = 1 << 20, most = 0;
  for (const Section& section : layout.sections) {
    if (net[section.tensor].shape.size() != 2) continue;
    fewest = std::min(fewest, section.grid.rows());
    most = std::max(most, section.grid.rows());
  }
  CHECK(most - fewest <= 2);
}

TEST_CASE("of many leading dimensions the longest lies across", "[geometry][fit]") {
  const std::vector<TensorShape> net{tensor("w", Kind::OtherParameter, {8, 3, 3, 3, 3})};
  const Layout layout = fit_layout(net, 1280, 720, false);
  CHECK(layout.sections[0].complete);
  CHECK(layout.sections[0].grid.columns() >= 8 * 3);
  CHECK(wrong_layout(layout, net) == "");
}

TEST_CASE("with more sections: captions lose detail, then go, then blocks are the smallest, then pages",
          "[geometry][fit]") {
  for (const auto& [width, height] : {std::pair{1280, 720}, std::pair{640, 360}}) {
    CaptionDetail captions = CaptionDetail::Full;
    int pages = 1;
    std::set<CaptionDetail> seen;
    for (size_t count = 1; count <= 1000; count += count < 100 ? 7 : 37) {
      const Layout layout = fit_layout(many(count), width, height, false);
      INFO(count << " sections on " << width);
      CHECK(layout.captions >= captions);
      CHECK(layout.pages >= pages);
      if (layout.pages > 1) CHECK(layout.captions == CaptionDetail::None);
      CHECK(layout.total_sections == count);
      captions = layout.captions;
      pages = layout.pages;
      seen.insert(captions);
    }
    CHECK(seen.size() == 3);
    if (width == 1280)
      CHECK(pages == 1);
    else
      CHECK(pages > 1);
  }
}

TEST_CASE("ten thousand sections stand on a few pages, none is lost", "[geometry][fit]") {
  const std::vector<TensorShape> tensors = many(10000);
  const int pages = fit_layout(tensors, 1280, 720, false).pages;
  CHECK(pages > 1);
  size_t next = 0;
  for (int page = 0; page < pages; ++page) {
    const Layout layout = fit_layout(tensors, 1280, 720, false, page);
    CHECK(layout.first_section == next);
    for (const Section& section : layout.sections) CHECK(section.tensor == next++);
  }
  CHECK(next == tensors.size());
  CHECK(fit_layout(tensors, 1280, 720, false, 99).page == pages - 1);
  CHECK(fit_layout(tensors, 1280, 720, false, -1).page == 0);
}

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("a thousand sections are laid out in less than 50 ms", "[geometry][fit]") {
  const std::vector<TensorShape> tensors = many(1000);
  double best_ms = 1e9;
  for (int round = 0; round < 5; ++round) {
    const auto start = std::chrono::steady_clock::now();
    const Layout layout = fit_layout(tensors, 1280, 720, false);
    best_ms =
        std::min(best_ms, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    REQUIRE(layout.sections.size() == 1000);
  }
  CHECK(best_ms < 50);
}
#endif

TEST_CASE("what does not fit: the top-left part, or with show all a regular sample of the whole", "[geometry][fit]") {
  const std::vector<TensorShape> net{tensor("w", Kind::LinearWeight, {10000, 8000})};
  const Section part = fit_layout(net, 1280, 720, false).sections[0];
  CHECK_FALSE(part.complete);
  CHECK_FALSE(part.sampled);
  REQUIRE(part.selection.box.size() == 2);
  for (const Range& range : part.selection.box) {
    CHECK(range.start == 0);
    CHECK(range.step == 1);
  }
  const Section sample = fit_layout(net, 1280, 720, true).sections[0];
  CHECK_FALSE(sample.complete);
  CHECK(sample.sampled);
  REQUIRE(sample.selection.box.size() == 2);
  for (size_t dim = 0; dim < 2; ++dim) {
    const Range& range = sample.selection.box[dim];
    CHECK(range.step > 1);
    CHECK(range.start + range.count * range.step >= net[0].shape[dim]);
  }
}

TEST_CASE("a long vector is wrapped, then cut", "[geometry][fit]") {
  const std::vector<TensorShape> net = resnet18();
  const Layout layout = fit_layout(net, 1280, 720, false);
  const Section& fc_bias = section_named(layout, net, "fc.bias");
  CHECK(fc_bias.grid.rows() > 1);
  CHECK_FALSE(fc_bias.complete);
  CHECK(section_named(layout, net, "bn1.bias").complete);
}

TEST_CASE("a frame is enlarged by a whole number, or reduced by one", "[geometry][fit]") {
  const Layout small = fit_layout({tensor("f", Kind::Frame, {48, 64})}, 1280, 720, false);
  CHECK(small.sections[0].picture.width % 64 == 0);
  CHECK(small.sections[0].picture.width / 64 == small.sections[0].picture.height / 48);
  CHECK(small.sections[0].picture.width > 64 * 8);
  CHECK(small.sections[0].complete);
  const std::vector<TensorShape> large{tensor("f", Kind::Frame, {3, 1500, 2000})};
  const Layout reduced = fit_layout(large, 1280, 720, false);
  const Section& section = reduced.sections[0];
  REQUIRE(section.selection.box.size() == 3);
  CHECK(section.selection.box[1].step == 3);
  CHECK(section.selection.box[2].step == 3);
  CHECK(section.sampled);
  CHECK(section.channel_stride == 500 * 667);
  CHECK(wrong_layout(reduced, large) == "");
}

TEST_CASE("nothing to show is a canvas without sections", "[geometry][fit]") {
  const Layout layout = fit_layout({}, 1280, 720, false);
  CHECK(layout.width == 1280);
  CHECK(layout.sections.empty());
  CHECK(layout.pages == 1);
  CHECK(layout.total_sections == 0);
}

// ---- Bounds

TEST_CASE("values are bounded by sampling, and the layout says so", "[geometry]") {
  std::mt19937 random(4);
  for (int round = 0; round < 150; ++round) {
    const std::vector<TensorShape> tensors = random_tensors(random, 1 + random() % 5);
    const bool show_all = random() % 2;
    const int64_t bound = 20 + static_cast<int64_t>(random() % 20000);
    const Layout layouts[] = {
        classic_layout(tensors, show_all, bound), fit_layout(tensors, 640, 360, show_all, 0, bound),
        solo_layout(tensors[0], 640, 360, show_all, static_cast<double>(1 + random() % 5), 0.5, 0.5, bound)};
    const Layout free[] = {classic_layout(tensors, show_all), fit_layout(tensors, 640, 360, show_all)};
    for (int kind = 0; kind < 3; ++kind) {
      INFO("round " << round << ", layout " << kind << ", bound " << bound << ", show all " << show_all);
      CHECK(values_of(layouts[kind]) <= bound);
      CHECK(wrong_layout(layouts[kind], kind == 2 ? std::vector<TensorShape>{tensors[0]} : tensors) == "");
      if (kind < 2 && values_of(free[kind]) > bound) CHECK_FALSE(layouts[kind].reduced.empty());
      if (kind == 1 && values_of(free[kind]) <= bound) CHECK(layouts[kind].reduced.empty());
    }
  }
}

TEST_CASE("classic with show all bounds its canvas as well", "[geometry][classic]") {
  std::vector<TensorShape> tensors{tensor("long", Kind::OtherParameter, {100000000})};
  for (int k = 0; k < 60; ++k) tensors.push_back(tensor("fc", Kind::LinearWeight, {100, 100}));
  const Layout layout = classic_layout(tensors, true, 1000000);
  CHECK(static_cast<int64_t>(layout.width) * layout.height <= 4 * 1000000 + 61 * 133 * 768);
  CHECK_FALSE(layout.reduced.empty());
  CHECK(layout.sections[0].sampled);
}

// ---- Solo

TEST_CASE("solo shows random tensors at any zoom and place", "[geometry][solo]") {
  std::mt19937 random(5);
  static const int kWidths[] = {1, 3, 100, 640, 1280}, kHeights[] = {1, 2, 50, 119, 360, 720};
  static const double kZooms[] = {1, 1.5, 2, 7, 50, 1e9};
  for (int round = 0; round < 1000; ++round) {
    const std::vector<TensorShape> tensors{random_tensor(random, round)};
    const double pan_x = static_cast<double>(random() % 5) / 4, pan_y = static_cast<double>(random() % 5) / 4;
    const double zoom = kZooms[random() % 6];
    const int width = kWidths[random() % 5], height = kHeights[random() % 6];
    const Layout layout = solo_layout(tensors[0], width, height, random() % 2, zoom, pan_x, pan_y);
    INFO("round " << round << ", rank " << tensors[0].shape.size() << ", " << width << " x " << height << ", zoom "
                  << zoom);
    REQUIRE(wrong_layout(layout, tensors) == "");
  }
}

TEST_CASE("solo at zoom 1 shows the whole where one pixel a value allows", "[geometry][solo]") {
  const TensorShape fc = tensor("fc", Kind::LinearWeight, {128, 1152}),
                    conv = tensor("c", Kind::ConvWeight, {64, 3, 7, 7});
  CHECK(solo_layout(fc, 1280, 720, false).sections[0].complete);
  CHECK(solo_layout(conv, 1280, 720, false).sections[0].complete);
  const TensorShape huge = tensor("w", Kind::LinearWeight, {5000, 5000});
  const Section part = solo_layout(huge, 1280, 720, false).sections[0],
                sample = solo_layout(huge, 1280, 720, true).sections[0];
  CHECK_FALSE(part.complete);
  CHECK_FALSE(part.sampled);
  CHECK(sample.sampled);
}

TEST_CASE("solo pans from the first value to the last, and zoom brings every value on the canvas", "[geometry][solo]") {
  const TensorShape huge = tensor("w", Kind::LinearWeight, {5000, 4000});
  for (bool show_all : {false, true}) {
    const double zoom = show_all ? 20 : 3;
    const Section first = solo_layout(huge, 1280, 720, show_all, zoom, 0, 0).sections[0];
    const Section last = solo_layout(huge, 1280, 720, show_all, zoom, 1, 1).sections[0];
    CHECK(element_at(first, huge.shape, 0, 0) == 0);
    CHECK(element_at(last, huge.shape, last.grid.rows() - 1, last.grid.columns() - 1) == huge.numel() - 1);
    CHECK_FALSE(last.sampled);
    CHECK(first.selection.size() <= 1280 * 720);
  }
  const TensorShape conv = tensor("c", Kind::ConvWeight, {64, 3, 7, 7});
  const int whole = block_range(solo_layout(conv, 1280, 720, false).sections[0].column_at).second;
  const int twice = block_range(solo_layout(conv, 1280, 720, false, 2, 0.5, 0.5).sections[0].column_at).second;
  CHECK(twice == 2 * whole);
}
