#!/usr/bin/env bash
# Trains a small convolutional network on Fashion-MNIST: a film of its parameters, a live page in the browser, and a
# window where there is a display.
set -euo pipefail

usage="usage: tools/demo.sh [--seconds N] [--logdir DIR]
  --seconds N   how long it trains (default 30)
  --logdir DIR  where the film goes (default runs/fashion-mnist)"
seconds=30
logdir=
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds=* | --logdir=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    --seconds | --logdir)
      [[ $# -ge 2 ]] || { echo "$usage" >&2; exit 2; }
      if [[ $1 == --seconds ]]; then seconds=$2; else logdir=$(realpath -m -- "$2"); fi
      shift 2
      ;;
    -h | --help) echo "$usage"; exit 0 ;;
    *) echo "unknown option '$1'"$'\n'"$usage" >&2; exit 2 ;;
  esac
done
[[ $seconds =~ ^[0-9]{1,6}$ && $((10#$seconds)) -gt 0 ]] || { echo "--seconds: expected a whole number above 0; found '$seconds'" >&2; exit 2; }
seconds=$((10#$seconds))
logdir=${logdir:-runs/fashion-mnist}  # the default is in the repository, wherever this was started

cd "$(dirname "$(realpath "$0")")/.."
. tools/setup.sh
find_torch
install_packages "${BUILD_PACKAGES[@]}" "${DEMO_PACKAGES[@]}"

# torch's MNIST reader wants the files unzipped.
data=build/data/fashion-mnist
for name in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do
  [[ -e $data/$name-ubyte ]] && continue
  mkdir -p "$data"
  gzip -dc "/usr/share/datasets/fashion-mnist/$name-ubyte.gz" >"$data/$name-ubyte.part" ||
    fail "Fashion-MNIST is missing: put $name-ubyte into $data"
  mv "$data/$name-ubyte.part" "$data/$name-ubyte"
done

# Tests may be configured here already (tools/test.sh): they stay.
if [[ ! -e build/release/build.ninja || $(cat build/release/torch-folder 2>/dev/null) != "${TORCH_FOLDER:-Debian}" ]]; then
  configure release -DBEHOLDER_TESTS=OFF
fi
say "Building into build/release"
cmake --build --preset release --target fashion_mnist beholder

say "Training for $seconds seconds; logdir $logdir"
build/release/examples/fashion_mnist --data "$data" --seconds "$seconds" --logdir "$logdir"
# shellcheck disable=SC2012
film=$(ls -td -- "$logdir"/plugins/beholder/video-*/ "$logdir"/plugins/beholder/video-*.{mp4,mkv} 2>/dev/null | head -1 || true)
[[ -n $film ]] || fail "No film was written into $logdir/plugins/beholder"
say "The film: $film"
