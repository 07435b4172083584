// How the price of a picture grows with the model's size, the number of tensors, the canvas and the window: gather (on
// the training thread) and render (on the render thread), each alone, in CPU time. All variants of a group take turns,
// so that each picture finds the caches as cold as the others do.
//
//   growth_benchmark ROUNDS

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/benchmarks/bare_watch.h"
#include "tests/benchmarks/measure.h"
#include "tests/benchmarks/resnet18.h"

namespace {

using namespace beholder;
using namespace beholder::benchmarks;

/// Every page of it is written: a tensor that was never touched would be one page of zeros, and cheap to read.
at::Tensor filled(std::vector<int64_t> shape) {
  static const at::Tensor noise = at::randn({1 << 20});
  at::Tensor tensor = at::empty(shape);
  auto* to = static_cast<float*>(tensor.data_ptr());
  const auto* from = static_cast<const float*>(noise.data_ptr());
  for (int64_t i = 0; i < tensor.numel(); i += noise.numel()) {
    std::memcpy(to + i, from, static_cast<size_t>(std::min(noise.numel(), tensor.numel() - i)) * sizeof(float));
  }
  return tensor;
}

Arrays matrices(int count, double parameters) {
  const auto side = static_cast<int64_t>(std::sqrt(parameters / count));
  Arrays tensors;
  for (int i = 0; i < count; ++i) {
    tensors.push_back({"fc" + std::to_string(i) + ".weight", filled({side, side}), Kind::LinearWeight});
  }
  return tensors;
}

struct Variant {
  std::string name;
  BareWatch watch;
  std::vector<double> gather_us, render_us;
};
using Variants = std::vector<std::unique_ptr<Variant>>;

void add(Variants& variants, std::string name, Arrays tensors, const Settings& settings, int width = 1280,
         int height = 720) {
  variants.push_back(std::unique_ptr<Variant>(
      new Variant{std::move(name), BareWatch(std::move(tensors), settings, width, height), {}, {}}));
}

void measure(Variants variants, int warm_up, int rounds) {
  for (int round = -warm_up; round < rounds; ++round) {
    for (auto& variant : variants) {
      Slot* slot = nullptr;
      const double gather = timed([&] { slot = variant->watch.capture(); }).cpu;
      variant->watch.train(slot);
      const double render = timed([&] { variant->watch.render(slot); }).cpu;
      if (round < 0) continue;
      variant->gather_us.push_back(1e6 * gather);
      variant->render_us.push_back(1e6 * render);
    }
  }
  for (auto& variant : variants) {
    tell(variant->name + ".gather_us", median(variant->gather_us));
    tell(variant->name + ".render_us", median(variant->render_us));
    tell(variant->name + ".values", static_cast<double>(variant->watch.values()));
  }
}

/// Gather and render of the original's picture of ResNet-18, each beside a memcpy of as many bytes, by turns.
void beside_memcpy(int rounds) {
  BareWatch watch(beholder::ResNet18::parameters(), settings_of(LayoutKind::Classic));
  const auto copy = [](std::vector<char>& to, const std::vector<char>& from) {
    std::memcpy(to.data(), from.data(), from.size());
    asm volatile("" : : "r"(to.data()) : "memory");
  };
  const std::vector<char> values(4 * watch.values(), 1), picture(watch.picture_bytes(), 1);
  std::vector<char> values_copy(values.size()), picture_copy(picture.size());
  std::vector<double> gathers, renders;
  for (int round = -5; round < rounds; ++round) {
    // The second of two: each of the four finds in the caches what it has used just before.
    double gather = 0, gather_floor = 0, render = 0, render_floor = 0;
    for (int i = 0; i < 2; ++i) {
      Slot* slot = nullptr;
      gather = timed([&] { slot = watch.capture(); }).cpu;
      abandon(*slot);
    }
    for (int i = 0; i < 2; ++i) gather_floor = timed([&] { copy(values_copy, values); }).cpu;
    for (int i = 0; i < 2; ++i) {
      Slot* slot = watch.capture();
      render = timed([&] { watch.render(slot); }).cpu;
    }
    for (int i = 0; i < 2; ++i) render_floor = timed([&] { copy(picture_copy, picture); }).cpu;
    if (round < 0) continue;
    gathers.push_back(gather / gather_floor);
    renders.push_back(render / render_floor);
  }
  tell("memcpy.gather", median(gathers));
  tell("memcpy.render", median(renders));
}

}  // namespace

int main(int argc, char** argv) try {
  at::set_num_threads(1);
  const int rounds = argc > 1 ? std::stoi(argv[1]) : 101;
  beside_memcpy(rounds);
  const Settings fit = settings_of(LayoutKind::Fit);
  Variants variants;
  for (const int millions : {1, 10, 100, 1000}) {
    add(variants, "parameters." + std::to_string(millions), matrices(8, 1e6 * millions), fit);
  }
  measure(std::move(variants), 5, rounds);

  variants.clear();
  for (const int tensors : {10, 100, 1000}) {
    add(variants, "tensors." + std::to_string(tensors), matrices(tensors, 1e7), fit);
  }
  measure(std::move(variants), 5, rounds);

  variants.clear();
  const int heights[] = {360, 720, 1080, 1440, 2160};
  for (const int height : heights) {
    add(variants, "canvas." + std::to_string(height), beholder::ResNet18::parameters(), fit, height * 16 / 9, height);
  }
  measure(std::move(variants), 5, rounds);

  for (const auto layout : {LayoutKind::Fit, LayoutKind::Classic}) {
    variants.clear();
    const std::string name = layout == LayoutKind::Fit ? "window_fit." : "window_classic.";
    add(variants, name + "current", beholder::ResNet18::parameters(), settings_of(layout));
    for (const int window : {2, 5, 10, 20}) {
      add(variants, name + std::to_string(window), beholder::ResNet18::parameters(),
          settings_of(layout, Mode::Variance, window));
    }
    measure(std::move(variants), 25, std::max(rounds / 2, 11));  // the windows are full
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "growth_benchmark: %s\n", error.what());
  return 1;
}
