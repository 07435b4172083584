#!/usr/bin/env bash
# Measures what Beholder costs and prints a table of ratios, each from this one run, in CPU time where nothing else is
# said. Needs libbenchmark-dev, and python3-numpy for the row that compares with a numpy renderer.
#
#   tests/benchmarks/run.sh [--quick]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build/benchmarks
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBEHOLDER_BENCHMARKS=ON -DBEHOLDER_TOOLS=OFF \
  -DBEHOLDER_EXAMPLES=OFF >/dev/null
ninja -C "$build" core_benchmark throughput_benchmark training_benchmark >/dev/null

seconds=1 repetitions=5 pairs=7
if [[ "${1:-}" == --quick ]]; then seconds=0.1 repetitions=3 pairs=2; fi
results=$(mktemp)
trap 'rm -f "$results"' EXIT
OMP_NUM_THREADS=1 "$build/tests/benchmarks/core_benchmark" --benchmark_min_time="$seconds" \
  --benchmark_repetitions="$repetitions" --benchmark_enable_random_interleaving=true \
  --benchmark_out="$results" --benchmark_out_format=json >/dev/null
numpy_ms=$(OMP_NUM_THREADS=1 python3 tests/benchmarks/numpy_renderer.py 2>/dev/null || echo "")
face=$(OMP_NUM_THREADS=1 "$build/tests/benchmarks/training_benchmark" face $((pairs * 2)) 2>/dev/null)
throughput=$("$build/tests/benchmarks/throughput_benchmark" "$pairs" 2 2>/dev/null | sed -n 's/median ratio //p')

python3 - "$results" "$numpy_ms" "$throughput" "$face" <<'PY'
import json, statistics, sys
results, numpy_ms, throughput, face = sys.argv[1:]
face = {name: float(value) for name, value in (line.split() for line in face.splitlines())}
times = {}
for row in json.load(open(results))["benchmarks"]:
    if row.get("run_type") == "iteration":
        unit = {"ns": 1e-3, "us": 1.0, "ms": 1e3}[row["time_unit"]]
        times.setdefault(row["run_name"], []).append(row["cpu_time"] * unit)
t = {name: statistics.median(values) for name, values in times.items()}
million = {n: t[f"parameters/millions/{n}"] for n in (1, 10, 100, 1000)}
rows = [
    ("update() when nothing is due", f"{1e3 * t['update/idle']:.0f} ns", "200 ns"),
    ("gather of a due update(), ResNet-18, classic, again and again", f"{t['update/due_classic']:.0f} us = {t['update/due_classic'] / t['memcpy/classic_values']:.2f} x memcpy of its values", "3 x"),
    ("the same, fit 1280 x 720", f"{t['update/due_fit']:.0f} us = {t['update/due_fit'] / t['update/due_classic']:.2f} x classic", "0.6 x"),
    ("a whole due update() from outside, real module, classic", f"{face['face.classic.cpu_us']:.0f} us CPU, {face['face.classic.wall_us']:.0f} us wall = {face['face.classic.cpu_us'] / face['face.classic.memcpy_us']:.2f} x a memcpy that is as cold", "3 x"),
    ("the same, fit 1280 x 720", f"{face['face.fit.cpu_us']:.0f} us CPU, {face['face.fit.wall_us']:.0f} us wall = {face['face.fit.cpu_us'] / face['face.classic.cpu_us']:.2f} x classic", "0.6 x"),
    ("render, classic, current", f"{t['render/classic_current'] / 1e3:.2f} ms = {t['render/classic_current'] / t['memcpy/classic_picture']:.2f} x memcpy of the picture", "12 x"),
    ("the same by numpy", f"{float(numpy_ms):.0f} ms = {1e3 * float(numpy_ms) / t['render/classic_current']:.0f} x ours" if numpy_ms else "not run: numpy is missing", "15 x"),
    ("variance, window 2, against current", f"{t['render/classic_variance_2'] / t['render/classic_current']:.2f} x", "1.5 x"),
    ("variance, window 20, against current", f"{t['render/classic_variance_20'] / t['render/classic_current']:.2f} x", "1.5 x"),
    ("capture + render, 1 M to 1 B parameters", f"{million[1]:.0f}, {million[10]:.0f}, {million[100]:.0f}, {million[1000]:.0f} us: {million[1000] / million[1]:.2f} x", "1.3 x"),
    ("training throughput with recorder at 10 FPS", f"{100 * float(throughput):.1f} %", "90 %"),
]
print("| what | measured | must |\n|---|---|---|")
for row in rows:
    print("| " + " | ".join(row) + " |")
PY
