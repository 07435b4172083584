#!/usr/bin/env bash
# Measures what Beholder costs and prints a table of ratios, each from this one run, in CPU time where nothing else is
# said. Exit status 1 where a bound is missed; --quick takes a minute, and judges only what does not vary.
#
#   tests/benchmarks/run.sh [--quick]
set -euo pipefail
seconds=1 repetitions=5 pairs=7
case "$*" in
  "") ;;
  --quick) seconds=0.1 repetitions=3 pairs=2 ;;
  *) echo "usage: tests/benchmarks/run.sh [--quick]" >&2; exit 2 ;;
esac

cd "$(dirname "$(realpath "$0")")/../.."
. tools/setup.sh
find_torch
install_packages "${BUILD_PACKAGES[@]}" "${ALL_PACKAGES[@]}" python3-numpy

build=build/benchmarks
say "Building into $build"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBEHOLDER_BENCHMARKS=ON -DBEHOLDER_TOOLS=OFF \
  -DBEHOLDER_EXAMPLES=OFF ${TORCH_FOLDER:+"-DTorch_DIR=$TORCH_FOLDER"} >/dev/null
ninja -C "$build" core_benchmark throughput_benchmark training_benchmark >/dev/null ||
  fail "the build failed: ninja -C $build core_benchmark"

say "Measuring"
programs=$build/tests/benchmarks
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
if [[ $* == --quick ]]; then echo "run.quick 1" >>"$results/lines"; fi
measure() {
  "$@" >>"$results/lines" 2>"$results/log" || { cat "$results/log" >&2; fail "$* failed"; }
}

measure env OMP_NUM_THREADS=1 "$programs/core_benchmark" --benchmark_min_time="$seconds" \
  --benchmark_repetitions="$repetitions" --benchmark_enable_random_interleaving=true \
  --benchmark_out="$results/core.json" --benchmark_out_format=json
measure env OMP_NUM_THREADS=1 "$programs/training_benchmark" face $((pairs * 2))
measure "$programs/throughput_benchmark" "$pairs" 2 10 "$(nproc)" busy
measure env OMP_NUM_THREADS=1 /usr/bin/python3 tests/benchmarks/numpy_renderer.py

python3 tests/benchmarks/run_table.py "$results/lines" "$results/core.json"
