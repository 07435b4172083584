#!/usr/bin/env bash
# shellcheck disable=SC2016,SC2046,SC2086  # words are split on purpose
# Clang's thread-safety analysis of beholder/, callbacks/ and tools/: every access of a field that names its guard
# (beholder/thread_safety.h), and every call of a function that requires one, is made with that lock held. Nothing is
# linked or run; clang++ only reads each source with the options of a build folder's compile_commands.json.
#
#   tests/thread_safety.sh BUILD-FOLDER   two at a time; a minute or two, most of it for LibTorch's headers
set -euo pipefail

build=$(realpath "${1:?usage: tests/thread_safety.sh BUILD-FOLDER}")
root=$(cd "$(dirname "$(realpath "$0")")/.." && pwd)
commands=$build/compile_commands.json
[[ -e $commands ]] || { echo "there is no $commands: configure with -DCMAKE_EXPORT_COMPILE_COMMANDS=ON" >&2; exit 2; }
command -v clang++ >/dev/null || { echo "there is no clang++: install clang" >&2; exit 2; }

# Nothing else that clang says is of interest here.
export analysis="-fsyntax-only -Wno-everything -Wthread-safety -Werror=thread-safety"

# First its own test: each mistake of a source full of them is found, and nothing else in it.
mistakes=$root/tests/thread_safety_mistakes.cpp
expected=$(grep -n '// mistake' "$mistakes" | cut -d: -f1)
found=$(clang++ -std=c++17 $analysis "-I$root" "$mistakes" 2>&1 |
  sed -n 's/^[^ ]*:\([0-9]*\):[0-9]*: error: .*thread-safety.*/\1/p' | sort -nu) || true
if [[ -z $expected || $found != "$expected" ]]; then
  echo "$mistakes: expected errors in the lines" ${expected:-(none is marked)}, found ${found:-none} >&2
  exit 1
fi

# check COMMAND: of compile_commands.json, with clang++ for its compiler and without what only GCC knows. Prints the
# source when it is in order.
check() {
  local -a words options=()
  local i source=
  eval "words=($1)"
  for ((i = 0; i < ${#words[@]}; ++i)); do
    case ${words[i]} in
      -o) ((++i)) ;;
      -c) source=${words[++i]} ;;
      -isystem) options+=(-isystem "${words[++i]}") ;;
      -include) [[ ${words[++i]} == *cmake_pch* ]] || options+=(-include "${words[i]}") ;;
      -W* | -fsanitize=*) ;;
      -*) options+=("${words[i]}") ;;
    esac
  done
  # The language of GCC, which is not clang's, where the build names none.
  [[ " ${options[*]} " == *" -std="* ]] || options+=(-std=gnu++17)
  clang++ "${options[@]}" $analysis "$source" && echo "$source"
}
export -f check

sources=$(cd "$root" && find beholder callbacks tools -name '*.cpp' | sort)
# The first command of each source. (What a build generates is not ours to read.)
checked=$(sed -n 's/^ *"command": "\(.*\)",\{0,1\}$/\1/p' "$commands" | sed 's/\\\(["\\]\)/\1/g' |
  grep -E -- " -c $root/(beholder|callbacks|tools)/[^ ]*\.cpp$" | awk '!seen[$NF]++' |
  (cd "$build" && xargs -d '\n' -P 2 -n 1 bash -c 'check "$1"' check) | sed "s|^$root/||" | sort) || true
if [[ $checked != "$sources" ]]; then
  echo "not in order, or not built in $build:" $(comm -3 <(echo "$sources") <(echo "$checked")) >&2
  exit 1
fi
echo "$(wc -l <<<"$sources") sources: every guarded field is used under its lock"
