// The two painters against each other, pixel by pixel and number by number: render_on_cpu(), and render_on_device() on
// the test-only device and on the CPU, whose operators run it as well. Sections of one and of three channels, tensors
// that are smaller than their places, and tensors that do not come, in any order and layout.
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "beholder/beholder.h"
#include "beholder/capture.h"
#include "beholder/colormaps.h"
#include "beholder/narrowing.h"
#include "beholder/plan.h"
#include "beholder/renderer.h"
#include "beholder/rendering.h"
#include "beholder/still_renderer.h"
#include "catch.h"
#include "fake_device/fake_device.h"

using namespace beholder;
using torch::Tensor;

namespace {

const c10::Device kCpu(torch::kCPU);
const float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

constexpr LayoutKind kLayouts[] = {LayoutKind::Fit, LayoutKind::Classic};
constexpr Mode kModes[] = {Mode::Current, Mode::Variance, Mode::Change};

Options options_for(const Settings& settings) {
  Options options;
  options.canvas_width = 240;
  options.canvas_height = 180;
  options.settings = settings;
  return options;
}

std::vector<NamedTensor> on(const c10::Device& device, std::vector<NamedTensor> tensors) {
  for (auto& named : tensors) {
    if (named.tensor.defined()) named.tensor = named.tensor.to(device);
  }
  return tensors;
}

std::vector<Candidate> candidates_of(const std::vector<NamedTensor>& tensors) {
  std::vector<Candidate> out;
  for (const auto& named : tensors) out.push_back({&named.name, &named.module, named.kind, false, named.tensor});
  return out;
}

std::shared_ptr<const Plan> plan_for(const std::vector<NamedTensor>& tensors, const Options& options) {
  PlanRequest request;
  request.settings = options.settings;
  for (const auto& candidate : candidates_of(tensors)) request.tensors.push_back(describe(candidate));
  return make_plan(request, options, /*slots=*/1);
}

int pick(std::mt19937& random, int from, int to) {
  return from + static_cast<int>(random() % static_cast<uint32_t>(to - from + 1));
}

/// Arrays of all ranks, gray frames and RGB frames, in any order.
std::vector<NamedTensor> some_tensors(std::mt19937& random) {
  std::vector<NamedTensor> out;
  const int count = pick(random, 1, 7);
  for (int i = 0; i < count; ++i) {
    const auto size = [&](int most) { return int64_t{pick(random, 1, most)}; };
    NamedTensor named;
    named.name = "t" + std::to_string(i);
    switch (pick(random, 0, 7)) {
      case 0:
      case 1:
      case 2: named = {named.name, torch::rand({3, size(90), size(300)}), Kind::Frame}; break;  // RGB
      case 3: named = {named.name, torch::rand({size(90), size(90)}), Kind::Frame}; break;      // gray
      case 4: named.tensor = torch::randn({size(400)}); break;
      case 5: named = {named.name, torch::randn({size(40), size(500)}), Kind::LinearWeight}; break;
      case 6: named = {named.name, torch::randn({size(30), size(9), 3, 3}), Kind::ConvWeight}; break;
      default: named = {named.name, torch::randn({size(4), size(6), size(20), size(20)}), Kind::Activation}; break;
    }
    out.push_back(named);
  }
  return out;
}

Settings some_settings(std::mt19937& random, const std::vector<NamedTensor>& tensors) {
  Settings settings;
  settings.values = Values::Arrays;
  settings.layout = kLayouts[pick(random, 0, 1)];
  settings.mode = kModes[pick(random, 0, 2)];
  settings.window_size = 3;
  settings.scaling = static_cast<Scaling>(pick(random, 0, 2));
  settings.colormap = static_cast<Colormap>(pick(random, 0, 5));
  settings.show_all = random() % 2 == 0;
  if (settings.layout == LayoutKind::Fit && random() % 4 == 0) {
    settings.solo = tensors[random() % tensors.size()].name;
    settings.zoom = 1 + pick(random, 0, 2);
    settings.pan_x = 0.5;
  }
  return settings;
}

// ---- the painters alone

struct Painted {
  std::vector<uint8_t> rgb;
  std::vector<SectionNumbers> numbers;
};

Painted on_cpu(const ViewPlan& view, const Tensor& values, const Tensor& previous, ColourRange range,
               const ColourTable& table) {
  Painted out;
  out.rgb.assign(static_cast<size_t>(view.pixels()) * 3, 77);
  out.numbers.resize(view.sections.size());
  render_on_cpu({view, values, previous, range, /*statistics=*/true, table}, out.rgb.data(), out.numbers.data());
  return out;
}

Painted on_device(const ViewPlan& view, const Tensor& values, const Tensor& previous, ColourRange range,
                  const ColourTable& table) {
  RenderTask task{view, values, previous, range, /*statistics=*/true, table};
  task.device_table =
      torch::from_blob(const_cast<Rgb*>(table.data()), {kColours, 3}, torch::kByte).clone().to(values.device());
  const Tensor bytes = render_on_device(task).cpu();
  Painted out;
  const auto* first = bytes.data_ptr<uint8_t>();
  out.rgb.assign(first, first + view.pixels() * 3);
  out.numbers.resize(view.sections.size());
  std::memcpy(out.numbers.data(), first + picture_bytes(view), out.numbers.size() * sizeof(SectionNumbers));
  return out;
}

bool close(double a, double b, double reach) { return a == b || std::abs(a - b) <= 1e-9 * std::max(1.0, reach); }

void check_same(const Painted& found, const Painted& expected) {
  CHECK(std::mismatch(found.rgb.begin(), found.rgb.end(), expected.rgb.begin()).first == found.rgb.end());
  REQUIRE(found.numbers.size() == expected.numbers.size());
  for (size_t i = 0; i < found.numbers.size(); ++i) {
    const SectionNumbers &f = found.numbers[i], &e = expected.numbers[i];
    CHECK((f.min == e.min && f.max == e.max && f.zeros == e.zeros && f.nans == e.nans && f.infs == e.infs));
    CHECK((f.absent == e.absent && f.beyond == e.beyond));
    CHECK(close(f.sum, e.sum, e.squares));  // another order of summation
    CHECK(close(f.squares, e.squares, e.squares));
    CHECK(close(f.previous_squares, e.previous_squares, e.previous_squares));
  }
}

/// Values with all kinds of trouble in them. Padding holds what must not be looked at.
Tensor some_values(std::mt19937& random, const ViewPlan& view) {
  Tensor values = torch::full({view.value_count}, 1e30F);
  for (const auto& staged : view.sections) {
    Tensor part = values.narrow(0, staged.value_offset, staged.count);
    part.copy_(torch::randn({staged.count}));
    const int trouble = pick(random, 0, 9);
    if (trouble == 0) part.fill_(0.25F);
    if (trouble == 1) make_absent(part);
    if (trouble > 5) continue;
    for (int64_t k = 0; k < std::min<int64_t>(8, staged.count); ++k) {
      Tensor one = part.narrow(0, static_cast<int64_t>(random() % static_cast<uint64_t>(staged.count)), 1);
      if (k % 4 == 3) {
        make_absent(one);
      } else if (k > 4) {
        const auto bits = static_cast<int32_t>(trouble % 2 == 0 ? kAboveBits : kBelowBits);
        one.view(torch::kInt).fill_(bits);
      } else {
        one.fill_(k % 4 == 0 ? kNan : k % 4 == 1 ? kInf : -kInf);
      }
    }
  }
  return values;
}

// ---- the whole renderer, with tensors that do not come, or come in part

/// What a training's plan does with one picture's tensors, on one device.
class Shown {
 public:
  Shown(const std::vector<NamedTensor>& largest, const Options& options, const c10::Device& device)
      : device_(device), plan_(plan_for(on(device, largest), options)), index_(*plan_) {}

  /// How each tensor fits the place that `largest` has.
  std::vector<Fit> fits(const std::vector<NamedTensor>& tensors) const {
    const auto moved = on(device_, tensors);
    const auto candidates = candidates_of(moved);
    std::vector<Fit> out;
    for (size_t i = 0; i < candidates.size(); ++i) out.push_back(fit(*plan_, index_, i, candidates[i]));
    return out;
  }

  std::shared_ptr<Picture> render(const std::vector<NamedTensor>& tensors, const std::vector<Fit>& fits, int64_t step) {
    const auto moved = on(device_, tensors);
    SlotLease slot;
    while (!(slot = SlotLease(plan_))) std::this_thread::sleep_for(std::chrono::microseconds(50));
    for (size_t i = 0; i < moved.size(); ++i) {
      if (is_gathered(fits[i])) gather(*plan_, index_, *slot, i, moved[i].tensor, fits[i]);
    }
    record_filled(*slot);
    SideStreams side(plan_->devices);
    for (auto& event : slot->filled) {
      for (const auto& device : plan_->devices) event.block_current_stream(device);
    }
    renderer_.render(plan_, 0, *slot, {step, {}}, plan_->settings, /*statistics=*/true);
    side.synchronize();
    slot.give_back();
    return renderer_.finish();
  }

 private:
  const c10::Device device_;
  std::shared_ptr<const Plan> plan_;
  GatherIndex index_;
  ViewRenderer renderer_{std::make_shared<PixelPool>()};
};

void check_same(const Picture& found, const Picture& expected) {
  REQUIRE(found.rgb.size() == expected.rgb.size());
  CHECK(std::mismatch(found.rgb.begin(), found.rgb.end(), expected.rgb.begin()).first == found.rgb.end());
  REQUIRE(found.sections.size() == expected.sections.size());
  for (size_t i = 0; i < found.sections.size(); ++i) {
    const SectionInfo &f = found.sections[i], &e = expected.sections[i];
    CHECK(f.name == e.name);
    CHECK(f.shape == e.shape);
    CHECK(f.complete == e.complete);
    CHECK(f.absent_since == e.absent_since);
    CHECK(f.statistics.count == e.statistics.count);
    CHECK(f.statistics.nans == e.statistics.nans);
    CHECK((f.statistics.min == e.statistics.min || std::isnan(e.statistics.min)));
    CHECK(std::isnan(f.statistics.min) == std::isnan(e.statistics.min));
    CHECK(f.scale_low == Approx(e.scale_low));
    CHECK(f.scale_high == Approx(e.scale_high));
  }
}

Rgb pixel(const Picture& picture, int x, int y) {
  const uint8_t* p = &picture.rgb[(static_cast<size_t>(y) * picture.width + x) * 3];
  return {p[0], p[1], p[2]};
}

/// The pixel that shows cell (row, column) of section `i`.
Rgb cell(const Picture& picture, size_t i, int row, int column) {
  const Section& section = picture.layout->sections.at(i);
  for (int y = 0; y < section.picture.height; ++y) {
    for (int x = 0; x < section.picture.width; ++x) {
      if (section.row_at[y] == row && section.column_at[x] == column)
        return pixel(picture, section.picture.x + x, section.picture.y + y);
    }
  }
  FAIL("no pixel shows this cell");
  return {};
}

}  // namespace

TEST_CASE("an RGB frame beside arrays has its own colours, and they theirs, in any order") {
  const Tensor colour = torch::tensor({0, 255, 51}).to(torch::kFloat).view({3, 1, 1}).expand({3, 4, 6});
  const Tensor matrix = torch::tensor({{0.0, 1.0}, {2.0, 4.0}});
  const std::vector<NamedTensor> orders[] = {
      {{"matrix", matrix}, {"rgb", colour, Kind::Frame}, {"another", matrix}},
      {{"rgb", colour, Kind::Frame}, {"matrix", matrix}},
      {{"gray", matrix, Kind::Frame}, {"rgb", colour, Kind::Frame}},
      {{"rgb", colour, Kind::Frame}, {"larger", torch::rand({3, 40, 50}), Kind::Frame}, {"matrix", matrix}},
  };
  for (const auto& tensors : orders) {
    for (const LayoutKind layout : kLayouts) {
      for (const auto& device : {kCpu, fake_device::device()}) {
        Settings settings;
        settings.values = Values::Arrays;
        settings.layout = layout;
        settings.colormap = Colormap::Viridis;
        StillRenderer renderer(options_for(settings));
        const auto picture = renderer.render(on(device, tensors));
        INFO(tensors[0].name << " " << to_string(layout) << " " << device);
        REQUIRE(picture->sections.size() == tensors.size());
        const ColourTable table = colour_table(Colormap::Viridis, false);
        for (size_t i = 0; i < tensors.size(); ++i) {
          if (tensors[i].name == "rgb") CHECK(cell(*picture, i, 3, 5) == Rgb{0, 255, 51});
          if (tensors[i].tensor.sizes() == matrix.sizes()) {
            CHECK(cell(*picture, i, 0, 0) == table[0]);
            CHECK(cell(*picture, i, 1, 1) == table[255]);
          }
        }
      }
    }
  }
}

TEST_CASE("a picture of several frames may have some with and some without colours") {
  Settings settings;
  settings.values = Values::Frame;
  const std::vector<NamedTensor> frames = {{"gray", torch::rand({30, 40}), Kind::Frame},
                                           {"rgb", torch::rand({3, 20, 60}), Kind::Frame},
                                           {"matrix", torch::rand({5, 5})}};  // no frame: left out
  for (const LayoutKind layout : kLayouts) {
    settings.layout = layout;
    StillRenderer on_cpu(options_for(settings)), on_device(options_for(settings));
    const auto expected = on_cpu.render(frames);
    CHECK(expected->sections.size() == 2);
    check_same(*on_device.render(on(fake_device::device(), frames)), *expected);
  }
}

TEST_CASE("a training's RGB array stands beside its others as it is") {
  const Tensor colour = torch::tensor({0, 255, 51}).to(torch::kFloat).view({3, 1, 1}).expand({3, 4, 6});
  for (const auto& device : {kCpu, fake_device::device()}) {
    struct Newest : Callback {
      std::string name() const override { return "newest"; }
      void show(std::shared_ptr<const Picture> picture) override { std::atomic_store(&newest, std::move(picture)); }
      std::shared_ptr<const Picture> newest;
    };
    const auto newest = std::make_shared<Newest>();
    Settings settings;
    settings.values = Values::Arrays;
    settings.fps = 60;
    Options options = options_for(settings);
    options.max_overhead = 1;
    options.max_background = 64;
    beholder::Beholder beholder(std::string(BEHOLDER_BINARY_DIR) + "/tests/painters", options);
    beholder.add(newest);
    const beholder::Arrays arrays =
        on(device, {{"matrix", torch::rand({6, 5})}, {"rgb", colour, Kind::Frame}, {"vector", torch::rand({9})}});
    std::shared_ptr<const Picture> picture;
    for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
         std::chrono::steady_clock::now() < end && (!picture || picture->sections.size() < 3);) {
      beholder.update(arrays);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      picture = std::atomic_load(&newest->newest);
    }
    REQUIRE(picture);
    REQUIRE(picture->sections.size() == 3);
    CHECK(cell(*picture, 1, 3, 5) == Rgb{0, 255, 51});
  }
}

TEST_CASE("both painters paint the same, whatever stands beside what") {
  fake_device::reset();
  int mixed = 0;
  double values_beyond = 0;
  for (uint32_t seed = 0; seed < 150; ++seed) {
    std::mt19937 random(seed);
    torch::manual_seed(seed);
    const auto tensors = some_tensors(random);
    const Settings settings = some_settings(random, tensors);
    const Options options = options_for(settings);
    const auto cpu_plan = plan_for(tensors, options);
    const auto device_plan = plan_for(on(fake_device::device(), tensors), options);
    const ViewPlan &view = cpu_plan->views[0], &device_view = device_plan->views[0];
    REQUIRE(view.value_count == device_view.value_count);
    ViewPlan both = device_view;  // as a device that happens to be the CPU
    for (Tensor* map : {&both.pixel_map, &both.channel_steps, &both.padding, &both.chunk_section}) {
      if (map->defined()) *map = map->cpu();
    }
    const auto& sections = view.layout->sections;
    const auto rgb = std::count_if(sections.begin(), sections.end(), [](const Section& s) { return s.channel_stride; });
    mixed += rgb > 0 && rgb < static_cast<int64_t>(sections.size()) ? 1 : 0;

    const ColourTable table = colour_table(settings.colormap, view.layout->separators);
    const Tensor values = some_values(random, view);
    const Tensor previous = random() % 2 == 0 ? torch::randn({view.value_count}) : Tensor();
    for (const auto range : {ColourRange::Section, ColourRange::All, ColourRange::Centred}) {
      INFO("seed " << seed << ", range " << static_cast<int>(range) << ", " << to_string(settings.layout));
      const Painted expected = on_cpu(view, values, previous, range, table);
      for (const auto& numbers : expected.numbers) values_beyond += numbers.beyond;
      check_same(on_device(both, values, previous, range, table), expected);
      const Tensor there = previous.defined() ? previous.to(fake_device::device()) : previous;
      check_same(on_device(device_view, values.to(fake_device::device()), there, range, table), expected);
    }
  }
  CHECK(mixed > 30);
  CHECK(values_beyond > 100);
  CHECK(fake_device::races().size() == 0);
}

TEST_CASE("what comes in part, and what does not come, is painted the same by both painters") {
  fake_device::reset();
  int parts = 0, absences = 0, returns = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    torch::manual_seed(seed);
    const auto largest = some_tensors(random);
    const Options options = options_for(some_settings(random, largest));
    Shown on_cpu(largest, options, kCpu), on_device(largest, options, fake_device::device());
    std::vector<bool> came_last(largest.size(), true);
    for (int64_t step = 0; step < 6; ++step) {
      INFO("seed " << seed << ", step " << step << ", " << to_string(options.settings.layout) << ", "
                   << to_string(options.settings.mode));
      auto tensors = largest;
      for (size_t i = 0; i < tensors.size(); ++i) {
        Tensor& tensor = tensors[i].tensor;
        tensor = torch::rand_like(tensor);
        if (random() % 5 == 0) tensor.view({-1})[0] = kNan;
        const auto what = random() % 4;
        if (what == 0) tensor = Tensor();  // does not come
        if (what != 1) continue;
        const bool rgb = tensors[i].kind == Kind::Frame && tensor.dim() == 3;
        for (int64_t d = rgb ? 1 : 0; d < tensor.dim(); ++d) {
          if (random() % 2 == 0) tensor = tensor.narrow(d, 0, pick(random, 1, static_cast<int>(tensor.size(d))));
        }
      }
      // What a device cannot gather in part gets another plan in a training; here it does not come.
      const auto fits = on_device.fits(tensors);
      for (size_t i = 0; i < tensors.size(); ++i) {
        const bool came = is_gathered(fits[i]);
        if (!came) tensors[i].tensor = Tensor();
        parts += fits[i] == Fit::Part ? 1 : 0;
        absences += came ? 0 : 1;
        returns += came && !came_last[i] ? 1 : 0;
        came_last[i] = came;
      }
      const auto expected = on_cpu.render(tensors, on_cpu.fits(tensors), step);
      check_same(*on_device.render(tensors, fits, step), *expected);
    }
  }
  CHECK(parts > 20);
  CHECK(absences > 50);
  CHECK(returns > 50);
  CHECK(fake_device::races().size() == 0);
}

TEST_CASE("what never came is background in every mode, and no NaN") {
  for (const Mode mode : kModes) {
    for (const auto& device : {kCpu, fake_device::device()}) {
      Settings settings;
      settings.values = Values::Arrays;
      settings.mode = mode;
      settings.layout = LayoutKind::Fit;
      const Options options = options_for(settings);
      const std::vector<NamedTensor> all = {{"comes", torch::rand({5, 6})},
                                            {"part", torch::rand({5, 6})},
                                            {"never", torch::rand({5, 6})},
                                            {"rgb", torch::rand({3, 5, 6}), Kind::Frame}};
      Shown shown(all, options, device);
      for (int64_t step = 0; step < 3; ++step) {
        INFO(to_string(mode) << " " << device << " step " << step);
        auto tensors = all;
        tensors[0].tensor = torch::rand({5, 6});
        tensors[1].tensor = torch::rand({4, 6});
        tensors[2].tensor = Tensor();
        tensors[3].tensor = Tensor();
        const auto picture = shown.render(tensors, shown.fits(tensors), step);
        for (const size_t i : {size_t{2}, size_t{3}}) {
          CHECK(picture->sections[i].absent_since == 0);
          CHECK(picture->sections[i].statistics.count == 0);
          CHECK(picture->sections[i].statistics.nans == 0);
          for (int row = 0; row < 5; ++row) CHECK(cell(*picture, i, row, 2) == kBackgroundColour);
        }
        CHECK(picture->sections[1].statistics.count == 24);
        CHECK(picture->sections[1].statistics.nans == 0);
        CHECK(cell(*picture, 1, 4, 0) == kBackgroundColour);
        CHECK(!(cell(*picture, 1, 3, 5) == kBackgroundColour));
        CHECK(picture->sections[0].statistics.count == 30);
      }
    }
  }
}
