#!/usr/bin/env bash
# Measures what Beholder takes of a training beside what other tools take, how that grows, and whether its promises are
# kept; prints a table with "pass" or "fail" where there is a bound. Everything is measured in this one run, one thread
# for each side, by turns, as medians. Exit status 1 where a line fails.
set -euo pipefail

usage="usage: tests/benchmarks/compare.sh [--quick] [--only PART]... [--python PATH] [--without-peers] [--build DIR]
  --quick          a few minutes instead of half an hour; figures are rougher, and those that vary from turn to turn are
                   not judged
  --only PART      that part alone: render, training, growth, promises, example, cores (as many OpenMP threads as cores,
                   with and without watch() and a viewer: ten minutes), shapes (that are others at each step)
  --python PATH    an interpreter that has torch and numpy; tensorboard, wandb and rerun-sdk are added to it. Without it
                   an environment is made below build/ (PyPI's torch: some 6 GB). BEHOLDER_BENCHMARK_PYTHON does the same
  --without-peers  Beholder's own lines only
  --build DIR      where to build (default build/benchmarks)"
quick=false peers=true only=() build=build/benchmarks python=${BEHOLDER_BENCHMARK_PYTHON:-}
while [[ $# -gt 0 ]]; do
  case $1 in
    --quick) quick=true ;;
    --without-peers) peers=false ;;
    --python=* | --build=* | --only=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
    --python | --build | --only)
      [[ $# -ge 2 ]] || { echo "$usage" >&2; exit 2; }
      if [[ $1 == --python ]]; then python=$(command -v -- "$2") || { echo "--python: '$2' is no program" >&2; exit 2; }
      elif [[ $1 == --only ]]; then
        [[ " render training growth promises example cores shapes " == *" $2 "* ]] ||
          { echo "--only: no part '$2'"$'\n'"$usage" >&2; exit 2; }
        only+=("$2")
      else build=$(realpath -m -- "$2"); fi
      shift
      ;;
    -h | --help) echo "$usage"; exit 0 ;;
    *) echo "unknown option '$1'"$'\n'"$usage" >&2; exit 2 ;;
  esac
  shift
done
[[ -z $python || $python == /* ]] || python=$(realpath -s -- "$python")

# wanted PART
wanted() { [[ ${#only[@]} -eq 0 || " ${only[*]} " == *" $1 "* ]]; }
wanted training || peers=false

cd "$(dirname "$(realpath "$0")")/../.."
. tools/setup.sh
find_torch
install_packages "${BUILD_PACKAGES[@]}" "${ALL_PACKAGES[@]}" curl

if $peers; then
  if [[ -z $python ]]; then
    say "A Python environment for the other tools, in build/peers"
    install_packages python3-venv
    [[ -x build/peers/bin/python ]] || python3 -m venv build/peers
    python=$PWD/build/peers/bin/python
  fi
  missing=()
  for module in torch numpy tensorboard wandb rerun:rerun-sdk; do
    "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('${module%%:*}') is None)" || missing+=("${module#*:}")
  done
  if [[ ${#missing[@]} -gt 0 ]]; then
    say "Installing with pip into $python: ${missing[*]}"
    "$python" -m pip install -q --disable-pip-version-check "${missing[@]}" || fail "pip could not install them"
  fi
fi

say "Building into $build"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBEHOLDER_BENCHMARKS=ON -DBEHOLDER_TOOLS=OFF \
  -DBEHOLDER_EXAMPLES=OFF ${TORCH_FOLDER:+"-DTorch_DIR=$TORCH_FOLDER"} >/dev/null
ninja -C "$build" benchmarks >/dev/null || fail "the build failed: ninja -C $build benchmarks"

training_seconds=60 rounds=101 calls=21 budget_seconds=6 pairs=15 core_seconds=1 repetitions=5 turns=3
watch_pairs=5 watch_seconds=60 shape_seconds=60
if $quick; then
  training_seconds=16 rounds=21 calls=7 budget_seconds=3 pairs=5 core_seconds=0.1 repetitions=3 turns=1
  watch_pairs=3 watch_seconds=6 shape_seconds=10
fi
programs=$build/tests/benchmarks
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
export OMP_NUM_THREADS=1
if $quick; then echo "run.quick 1" >>"$results/lines"; fi

# measure NAME PROGRAM...: its lines go to the table, what it says else is shown where it fails.
measure() {
  say "Measuring: $1"
  "${@:2}" >>"$results/lines" 2>"$results/log" || { cat "$results/log" >&2; fail "${*:2} failed"; }
}

core=()
if wanted render; then
  core=("$results/core.json")
  measure "render by mode" "$programs/core_benchmark" --benchmark_min_time="$core_seconds" \
    --benchmark_repetitions="$repetitions" --benchmark_enable_random_interleaving=true \
    --benchmark_out="$results/core.json" --benchmark_out_format=json '--benchmark_filter=render'
fi
# Each tool beside Beholder, turn by turn: the machine may be another one after a minute.
if wanted training; then
  for ((turn = 1; turn <= turns; ++turn)); do
    for network in resnet18 transformer; do
      measure "training $network ($turn of $turns)" "$programs/training_benchmark" "$network" $((training_seconds / turns))
      $peers && measure "training $network with other tools ($turn of $turns)" \
        "$python" tests/benchmarks/peers.py "$network" "$calls"
    done
  done
fi
if wanted growth; then
  measure "gather and render beside a memcpy, and growth" "$programs/growth_benchmark" "$rounds"
fi
if wanted promises; then measure "promises" "$programs/budget_benchmark" "$budget_seconds"; fi
cores=$(nproc)
if wanted example; then
  measure "the example, a core free" env -u OMP_NUM_THREADS \
    "$programs/throughput_benchmark" "$pairs" 2 10 $((cores > 1 ? cores - 1 : 1)) free
  measure "the example, all cores busy" env -u OMP_NUM_THREADS \
    "$programs/throughput_benchmark" "$pairs" 2 10 "$cores" busy
fi
if wanted shapes; then
  measure "shapes that are others at each step" "$programs/shapes_benchmark" "$shape_seconds"
fi
if wanted cores; then
  measure "the example with film, server and a viewer, as many OpenMP threads as cores" env -u OMP_NUM_THREADS \
    "$programs/throughput_benchmark" "$watch_pairs" "$watch_seconds" 10 "$cores" watched watch
fi

python3 tests/benchmarks/compare_table.py "$results/lines" "${core[@]}"
