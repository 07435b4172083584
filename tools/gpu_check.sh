#!/usr/bin/env bash
# Checks and measures Beholder's core on this machine's GPU. Needs CMake, a C++ compiler and LibTorch (Python's torch is
# one): no nvcc, no network, no other library. Prints one line for each check and a table.
set -euo pipefail

usage="usage: tools/gpu_check.sh [--quick] [--build-only] [--device NAME]
  --quick        shorter; its times are no measurements
  --build-only   builds against a LibTorch with CUDA where there is no GPU
  --device NAME  cuda (default), cuda:1, ..., or cpu to try the program itself
LibTorch is that of CMAKE_PREFIX_PATH, else Python's torch, else an installed one. Lines are logged by spdlog where
SPDLOG_INCLUDE_DIR names a folder with spdlog/spdlog.h (header-only), or an ordinary place has it; else to stderr.
Exit status: 0 all passed, 1 a check failed, 2 a wrong command line, 3 it could not be built, 77 there is no such GPU:
nothing was checked."
quick=()
build_only=false
device=${BEHOLDER_TEST_DEVICE:-cuda}
while [[ $# -gt 0 ]]; do
  case $1 in
    --quick) quick=(--quick) ;;
    --build-only) build_only=true ;;
    --device=*) device=${1#*=} ;;
    --device)
      [[ $# -ge 2 ]] || { echo "$usage" >&2; exit 2; }
      device=$2
      shift
      ;;
    -h | --help) echo "$usage"; exit 0 ;;
    *) echo "unknown option '$1'"$'\n'"$usage" >&2; exit 2 ;;
  esac
  shift
done

cd "$(dirname "$(realpath "$0")")/.."
build=build/gpu_check
mkdir -p "$build"
say() { printf '== %s\n' "$*"; }
not_built() {
  printf 'gpu_check: not built: %s\n' "$*" >&2
  exit 3
}

command -v cmake >/dev/null || not_built "cmake is missing (\`pip install cmake\` has it)"
command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || not_built "a C++ compiler is missing"

# The folder of a spdlog whose headers are complete (Debian's need fmt's beside them), or nothing.
find_spdlog() {
  local folder
  for folder in "${SPDLOG_INCLUDE_DIR:-}" /usr/include /usr/local/include; do
    [[ -n $folder && -e $folder/spdlog/spdlog.h ]] || continue
    if [[ -e $folder/spdlog/fmt/bundled/core.h || -e $folder/fmt/core.h ]]; then
      printf '%s' "$folder"
      return
    fi
  done
}

options=(-DCMAKE_BUILD_TYPE=Release -DBEHOLDER_CALLBACKS=OFF -DBEHOLDER_TOOLS=OFF -DBEHOLDER_EXAMPLES=OFF
  -DBEHOLDER_TESTS=OFF -DBEHOLDER_GPU_CHECK=ON -DBEHOLDER_TORCH_DIRECT=ON)
spdlog=$(find_spdlog)
if [[ -n $spdlog ]]; then
  say "spdlog: header-only, from $spdlog"
  options+=(-DBEHOLDER_SPDLOG=ON "-DSPDLOG_INCLUDE_DIR=$spdlog")
else
  say "spdlog: none; lines go to stderr"
  options+=(-DBEHOLDER_SPDLOG=OFF -DSPDLOG_INCLUDE_DIR=)
fi

# Asked here, not in CMake: it must be this shell's Python, and only where CMAKE_PREFIX_PATH does not say it already.
if [[ -z ${CMAKE_PREFIX_PATH:-} ]] && command -v python3 >/dev/null &&
  torch=$(python3 -c 'import importlib.util as u, os; print(os.path.dirname(u.find_spec("torch").origin))' 2>/dev/null) &&
  [[ -e $torch/share/cmake/Torch/TorchConfig.cmake ]]; then
  export CMAKE_PREFIX_PATH=$torch
fi
# Where LibTorch is another one than before, what CMake found then is forgotten.
[[ $(cat "$build/prefix-path" 2>/dev/null) == "${CMAKE_PREFIX_PATH:-}" ]] || rm -rf "$build/CMakeCache.txt" "$build/CMakeFiles"
printf '%s\n' "${CMAKE_PREFIX_PATH:-}" >"$build/prefix-path"

cmake -S . -B "$build" "${options[@]}" >"$build/configure.log" 2>&1 || {
  cat "$build/configure.log" >&2
  not_built "CMake could not configure $build"
}
say "$(sed -n 's/^-- \(LibTorch .*\)/\1/p' "$build/configure.log" | tail -1)"
say "Building into $build"
cmake --build "$build" --parallel "$(nproc)" --target gpu_check >"$build/build.log" 2>&1 || {
  tail -n 50 "$build/build.log" >&2
  not_built "see $build/build.log"
}

program=$(find "$build" -name gpu_check -type f -perm -u+x | head -1)
[[ -n $program ]] || not_built "no program in $build"
if $build_only; then
  say "Built, not run: $program"
  exit
fi
BEHOLDER_TEST_DEVICE=$device exec "$program" "${quick[@]}"
