#!/usr/bin/env bash
# Builds and runs the tests. Those of load and of budgets have a command of their own:
# `cmake --build --preset release && ctest --preset release -L long`.
set -euo pipefail

usage="usage: tools/test.sh [--all]
  --all  also: warnings are errors, all tests of window and page instead of a few, those of faults, the format, clang's
         thread-safety analysis, the runs under address, undefined-behaviour and thread sanitizers, and ten seconds of each fuzzer"
all=false
for argument in "$@"; do
  case $argument in
    --all) all=true ;;
    -h | --help) echo "$usage"; exit 0 ;;
    *) echo "unknown option '$argument'"$'\n'"$usage" >&2; exit 2 ;;
  esac
done

cd "$(dirname "$(realpath "$0")")/.."
. tools/setup.sh
find_torch
packages=("${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" "${WINDOW_TEST_PACKAGES[@]}" "${PAGE_TEST_PACKAGES[@]}")
$all && packages+=("${ALL_PACKAGES[@]}")
install_packages "${packages[@]}"

# run PRESET CTEST-OPTION...: one line per area, then the count.
run() {
  ctest --preset "$1" --no-label-summary --parallel 2 "${@:2}" </dev/null | grep -v -E '^ *(Start +[0-9]+:|Test project )'
}

build() {
  say "Building $1 into build/$1"
  cmake --build --preset "$1" "${@:2}"
}

if ! $all; then
  configure release -DBEHOLDER_TESTS=ON
  build release --target quick_tests
  run release -LE '^(long|all)$'
  exit
fi

# Preset ci is release with warnings as errors: one build for both.
configure ci
build ci
say "Format"
if [[ $(clang-format --version) == *"version 14."* ]]; then  # each version formats differently
  find beholder callbacks examples tests tools \( -name '*.cpp' -o -name '*.h' \) -exec clang-format --dry-run --Werror {} +
else
  echo "skipped: the sources are formatted by clang-format 14, Debian 12's, and this is $(clang-format --version)"
fi
say "Clang's thread-safety analysis"
tests/thread_safety.sh build/ci

# No examples: they add minutes of compilation and no code of ours.
configure asan -DBEHOLDER_EXAMPLES=OFF
build asan
say "Under address and undefined-behaviour sanitizers"
# Without the tests in Python and the measurements, which take minutes and whose C++ the others run, nor that of memory,
# of which the sanitizer takes more than we do.
run asan -LE '^(long|all)$' -E '^((page|window)_(short|all)|gpu.*|host_memory)$'

say "Ten seconds of each fuzzer"
tests/fuzz/run.sh 10

# Only tests that do not run LibTorch's OpenMP, whose barriers the thread sanitizer does not know.
configure tsan -DBEHOLDER_EXAMPLES=OFF
build tsan --target tsan_tests
say "Under the thread sanitizer"
run tsan -L tsan

say "All tests but those of load and budgets"
run ci -LE '^long$' -E '^(page|window)_short$'  # they are among the others
