// What holds for any tensors on any canvas, seen on 100,000 random shapes in each layout. The sizes are spread evenly
// over their magnitudes, up to tensors that no memory holds; tests/fuzz looks for the cases that chance does not find.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "beholder/layout.h"
#include "beholder/section.h"
#include "catch.h"
#include "geometry_checks.h"

using namespace beholder;
using namespace geometry_checks;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
constexpr int kShapes = 5'000;
#else
constexpr int kShapes = 100'000;
#endif

/// Random numbers that are the same with every standard library.
class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  int64_t below(int64_t end) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(end)); }
  bool one_in(int64_t n) { return below(n) == 0; }
  /// 1 to 2^bits, each magnitude as often as the others.
  int64_t magnitude(int bits) {
    const int64_t low = int64_t{1} << below(bits);
    return low + below(low + 1);
  }

 private:
  std::mt19937_64 engine_;
};

TensorShape random_tensor(Random& random, int number) {
  TensorShape t;
  t.name = std::string(static_cast<size_t>(1 + random.below(30)), 'a') + "." + std::to_string(number);
  t.kind = static_cast<Kind>(random.below(9));
  const auto rank = random.one_in(50) ? random.below(20) : random.below(6);
  int64_t room = random.one_in(10) ? kMostElements : int64_t{1} << 24;
  for (int64_t dim = 0; dim < rank; ++dim) {
    const int64_t extent = random.one_in(4) ? 1 : random.magnitude(random.one_in(8) ? 40 : 9);
    t.shape.push_back(std::min(extent, room));
    room /= t.shape.back();
  }
  if (!random.one_in(3)) t.module = "m" + std::to_string(number / (1 + random.below(3)));
  return t;
}

std::vector<TensorShape> random_tensors(Random& random) {
  std::vector<TensorShape> tensors;
  const int64_t count = random.one_in(20) ? 1 + random.below(100) : 1 + random.below(8);
  const bool repeats = random.one_in(2);  // as layers do
  for (int k = 0; k < count; ++k) {
    tensors.push_back(random_tensor(random, k));
    if (!repeats || k == 0 || random.one_in(3)) continue;
    const TensorShape& like = tensors[static_cast<size_t>(random.below(k))];
    tensors.back().kind = like.kind;
    tensors.back().shape = like.shape;
  }
  return tensors;
}

/// 0, no bound, or one of any magnitude.
int64_t random_bound(Random& random) { return random.one_in(2) ? 0 : random.magnitude(22); }

/// Of sections that show few values: none twice, and complete means all of them.
std::string wrong_values(const Section& section, const TensorShape& t) {
  if (section.selection.size() > 3000 || t.numel() > 30000) return "";
  std::vector<char> seen(static_cast<size_t>(t.numel()), 0);
  int64_t cells = 0;
  for (int row = 0; row < section.grid.rows(); ++row) {
    for (int column = 0; column < columns_of_row(section, row); ++column, ++cells) {
      char& here = seen[static_cast<size_t>(element_at(section, t.shape, row, column))];
      if (here) return "a value stands in two cells";
      here = 1;
    }
  }
  if (section.channel_stride > 0) cells *= 3;
  return section.complete == (cells == t.numel()) ? "" : "complete is not what it says";
}

std::string wrong(const Layout& layout, const std::vector<TensorShape>& tensors, int64_t max_values) {
  std::string text = wrong_layout(layout, tensors);
  for (size_t k = 0; k < layout.sections.size() && text.empty(); ++k)
    text = wrong_values(layout.sections[k], tensors[layout.sections[k].tensor]);
  const auto least = static_cast<int64_t>(3 * layout.sections.size());  // a value of each, three of a coloured frame
  if (text.empty() && max_values > 0 && values_of(layout) > std::max(max_values, least))
    return "more values than the bound";
  return text;
}

}  // namespace

TEST_CASE("100,000 shapes in the fit layout: nothing overlaps, leaves the canvas, changes its order, or is lost",
          "[geometry]") {
  Random random(1);
  for (int shapes = 0, round = 0; shapes < kShapes; ++round) {
    const auto tensors = random_tensors(random);
    shapes += static_cast<int>(tensors.size());
    const auto width = static_cast<int>(random.magnitude(12)), height = static_cast<int>(random.magnitude(12));
    const bool show_all = random.one_in(2);
    const int64_t max_values = random_bound(random);
    size_t next = 0;
    int pages = 1;
    for (int page = 0; page < pages; ++page) {
      const Layout layout = fit_layout(tensors, width, height, show_all, page, max_values);
      INFO("round " << round << ", " << width << " x " << height << ", page " << page << ", show all " << show_all
                    << ", bound " << max_values);
      REQUIRE(wrong(layout, tensors, max_values) == "");
      REQUIRE(wrong_equals(layout, tensors) == "");
      REQUIRE(layout.width == width);
      REQUIRE(layout.height == height);
      REQUIRE(layout.page == page);
      REQUIRE(layout.first_section == next);
      REQUIRE_FALSE(layout.sections.empty());
      pages = layout.pages;
      next += layout.sections.size();
      // A vast canvas of pages is looked at in part: its first pages and the last one.
      if (page == 4 && pages > 6) {
        page = pages - 2;
        next = fit_layout(tensors, width, height, show_all, pages - 1, max_values).first_section;
      }
    }
    REQUIRE(next == tensors.size());
  }
}

TEST_CASE("100,000 shapes in the classic layout: one column, in order, within the bound", "[geometry]") {
  Random random(2);
  for (int shapes = 0, round = 0; shapes < kShapes; ++round) {
    const auto tensors = random_tensors(random);
    shapes += static_cast<int>(tensors.size());
    const bool show_all = random.one_in(2);
    const int64_t max_values = random.magnitude(20);  // without a bound the column has no end
    const Layout layout = classic_layout(tensors, show_all, max_values);
    INFO("round " << round << ", show all " << show_all << ", bound " << max_values);
    REQUIRE(wrong(layout, tensors, max_values) == "");
    REQUIRE(layout.sections.size() == tensors.size());
    REQUIRE(layout.pages == 1);
  }
}

TEST_CASE("100,000 shapes alone, at any zoom and place", "[geometry]") {
  Random random(3);
  for (int round = 0; round < kShapes; ++round) {
    const std::vector<TensorShape> tensors{random_tensor(random, round)};
    const auto width = static_cast<int>(random.magnitude(11)), height = static_cast<int>(random.magnitude(11));
    const bool show_all = random.one_in(2);
    const double zoom = std::exp2(static_cast<double>(random.below(80)) / 4 - 2);  // 0.25 to 200,000
    const double pan_x = static_cast<double>(random.below(5)) / 4, pan_y = static_cast<double>(random.below(101)) / 100;
    const int64_t max_values = random_bound(random);
    const Layout layout = solo_layout(tensors[0], width, height, show_all, zoom, pan_x, pan_y, max_values);
    INFO("round " << round << ", " << width << " x " << height << ", zoom " << zoom << ", pan " << pan_x << " " << pan_y
                  << ", show all " << show_all << ", bound " << max_values);
    REQUIRE(wrong(layout, tensors, max_values) == "");
    REQUIRE(layout.sections.size() == 1);
    REQUIRE(layout.width == width);
    REQUIRE(layout.height == height);
  }
}
