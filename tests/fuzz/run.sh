#!/usr/bin/env bash
# Builds the fuzzers with clang and lets each search for so many seconds, a few at a time: a line for each, and 1 where
# one has found something. What is found, and the inputs that a fuzzer has grown, stay in build/fuzz.
#
#   tests/fuzz/run.sh [SECONDS] [NAME...]     20 seconds; all of geometry, glob, http, safetensors, settings
#   tests/fuzz/run.sh 3600                    by hand, after changes to what reads input
#
# A find becomes a test: copy its file into tests/fuzz/corpus/NAME, where the tests fuzz_corpus_NAME see it.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/../.."
seconds=${1:-20}
[[ $seconds =~ ^[0-9]+$ ]] || { sed -n 's/^#   /usage: /p' "$0" >&2; exit 2; }
names=("${@:2}")
[[ ${#names[@]} -gt 0 ]] || names=(geometry glob http safetensors settings)
command -v clang++ >/dev/null || { echo "The fuzzers need clang (Debian: clang, libclang-rt-dev)" >&2; exit 2; }

. tools/setup.sh
find_torch >/dev/null
folder=build/fuzz
configure fuzz
cmake --build --preset fuzz >$folder/build.log 2>&1 || {
  tail -n 40 $folder/build.log >&2
  exit 1
}

# search NAME: 0 where nothing was found.
search() {
  local name=$1 grown=$folder/grown/$1 log=$folder/$1.log found=$folder/found/$1-
  local -a options=(-max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=4096
    -print_final_stats=1 -artifact_prefix="$found")
  [[ -e tests/fuzz/$name.dict ]] && options+=(-dict="tests/fuzz/$name.dict")
  [[ $name == http ]] && options+=(-max_len=20000)  # beyond what a head may have
  mkdir -p "$grown" "$folder/found"
  if "$folder/tests/fuzz/fuzz_$name" "${options[@]}" "$grown" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
    printf '%-12s %9s inputs, %s parts of the code reached, nothing found\n' "$name" \
      "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
      "$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)"
  else
    printf '%-12s %s\n' "$name" "$(grep -a -m 1 -E '^FOUND: |runtime error: |ERROR: |run interrupted' "$log" || tail -n 1 "$log")"
    sed -n 's/.*Test unit written to /             input: /p' "$log"
    echo "             all of it: $log"
    return 1
  fi
}

bad=0
running=()
for name in "${names[@]}"; do
  if [[ ${#running[@]} -ge $(nproc) ]]; then
    wait "${running[0]}" || bad=1
    running=("${running[@]:1}")
  fi
  search "$name" &
  running+=($!)
done
for process in "${running[@]}"; do wait "$process" || bad=1; done
exit $bad
