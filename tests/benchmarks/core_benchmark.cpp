// What the core costs, in one process on one thread, each figure beside the memcpy that it cannot beat.
// Run it through tests/benchmarks/run.sh, which prints the ratios.

#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "beholder/beholder.h"
#include "tests/benchmarks/bare_watch.h"
#include "tests/benchmarks/measure.h"
#include "tests/benchmarks/resnet18.h"

namespace {

using namespace beholder;
using namespace beholder::benchmarks;

void copy_of(benchmark::State& state, int64_t bytes) {
  std::vector<char> from(bytes, 1), to(bytes, 2);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * bytes);
}

void capture_of(benchmark::State& state, const Settings& settings) {
  BareWatch bench(ResNet18::parameters(), settings);
  for (auto _ : state) abandon(*bench.capture());
  state.counters["values"] = static_cast<double>(bench.values());
}

void render_of(benchmark::State& state, const Settings& settings) {
  BareWatch bench(ResNet18::parameters(), settings);
  for (int i = 0; i < 25; ++i) {  // the window is full
    Slot* slot = bench.capture();
    bench.train(slot);
    bench.render(slot);
  }
  for (auto _ : state) {
    state.PauseTiming();
    Slot* slot = bench.capture();
    bench.train(slot);
    state.ResumeTiming();
    benchmark::DoNotOptimize(bench.render(slot));
  }
}

void idle_update(benchmark::State& state) {
  Options options;
  options.settings.fps = 0;
  const TemporaryFolder logdir;
  Beholder beholder(logdir.path(), options);
  for (int i = 0; i < 10; ++i) beholder.update();
  for (auto _ : state) beholder.update();
}

/// The same eight tensors, ever larger: capture and render together.
void parameters_of(benchmark::State& state) {
  const int64_t side = static_cast<int64_t>(std::sqrt(static_cast<double>(state.range(0)) * 1e6 / 8));
  Arrays tensors;
  for (int i = 0; i < 8; ++i) {
    tensors.push_back({"fc" + std::to_string(i) + ".weight", at::randn({side, side}), Kind::LinearWeight});
  }
  BareWatch bench(std::move(tensors), settings_of(LayoutKind::Fit));
  for (auto _ : state) benchmark::DoNotOptimize(bench.render(bench.capture()));
}

void register_all() {
  const auto classic = settings_of(LayoutKind::Classic), fit = settings_of(LayoutKind::Fit);
  const auto add = [](const char* name, auto run) {
    return benchmark::RegisterBenchmark(name, [run](benchmark::State& state) { run(state); })
        ->Unit(benchmark::kMicrosecond);
  };
  const int64_t values = BareWatch(ResNet18::parameters(), classic).values();
  benchmark::RegisterBenchmark("update/idle", [](benchmark::State& state) {
    idle_update(state);
  })->Unit(benchmark::kNanosecond);
  add("memcpy/classic_values", [values](auto& state) { copy_of(state, values * 4); });
  add("update/due_classic", [=](auto& state) { capture_of(state, classic); });
  add("update/due_fit", [=](auto& state) { capture_of(state, fit); });
  add("memcpy/classic_picture", [](auto& state) { copy_of(state, int64_t{3} * 768 * 8241); });
  add("render/classic_current", [=](auto& state) { render_of(state, classic); });
  add("render/classic_variance_2",
      [](auto& state) { render_of(state, settings_of(LayoutKind::Classic, Mode::Variance, 2)); });
  add("render/classic_variance_20",
      [](auto& state) { render_of(state, settings_of(LayoutKind::Classic, Mode::Variance, 20)); });
  add("render/classic_change", [](auto& state) { render_of(state, settings_of(LayoutKind::Classic, Mode::Change)); });
  add("render/fit_current", [=](auto& state) { render_of(state, fit); });
  for (const int64_t millions : {1, 10, 100, 1000}) {
    benchmark::RegisterBenchmark("parameters/millions", parameters_of)->Arg(millions)->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
