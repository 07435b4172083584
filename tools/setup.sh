# shellcheck shell=bash disable=SC2034
# Sourced by demo.sh and test.sh: installs what is missing, finds LibTorch, configures. REQUIRES: the current directory
# is the repository's root, `set -euo pipefail`.

# What each purpose needs, by Debian's names.
BUILD_PACKAGES=(cmake ninja-build g++ pkg-config libtorch-dev libopencv-dev libavcodec-dev libavformat-dev
  libavutil-dev libswscale-dev libspdlog-dev libcli11-dev nlohmann-json3-dev libcpp-httplib-dev fonts-dejavu-core)
DEMO_PACKAGES=(dataset-fashion-mnist)
TEST_PACKAGES=(catch2 zlib1g-dev ffmpeg curl)
WINDOW_TEST_PACKAGES=(xvfb xdotool imagemagick procps)
PAGE_TEST_PACKAGES=(chromium chromium-driver python3-selenium)
ALL_PACKAGES=(libbenchmark-dev clang clang-format libclang-rt-dev)

say() { printf '== %s\n' "$*"; }
fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# Sets TORCH_FOLDER to the folder of the user's own TorchConfig.cmake, or to nothing: then it is Debian's libtorch-dev.
find_torch() {
  local prefix version
  TORCH_FOLDER=
  local -a prefixes=()
  IFS=: read -ra prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for prefix in "${prefixes[@]}"; do
    for TORCH_FOLDER in "$prefix"/{share/cmake/Torch,Torch,torch/share/cmake/Torch,lib/cmake/Torch}; do
      if [[ -e $TORCH_FOLDER/TorchConfig.cmake ]]; then
        say "LibTorch: the one of CMAKE_PREFIX_PATH, $TORCH_FOLDER"
        return
      fi
    done
  done
  TORCH_FOLDER=
  # Looked up, not imported: that would take seconds each time.
  if prefix=$(python3 -c 'import importlib.util as u, os; print(os.path.dirname(u.find_spec("torch").origin))' 2>/dev/null) &&
    [[ -e $prefix/share/cmake/Torch/TorchConfig.cmake ]]; then
    version=$(sed -n "s/^__version__ *=* *['\"]\([0-9]*\.[0-9]*\).*/\1/p" "$prefix/version.py" 2>/dev/null | head -1)
    if [[ $(printf '%s\n' 2.7 "${version:-0}" | sort -V | head -1) == 2.7 ]]; then
      TORCH_FOLDER=$prefix/share/cmake/Torch
      say "LibTorch: Python's torch $version, $TORCH_FOLDER"
      return
    fi
    say "LibTorch: Python's torch ${version:-of unknown version} is not used (it has the old C++ ABI; 2.7 or newer would be)"
  fi
}

# install_packages PACKAGE...: with apt what is missing, after saying so; nothing where all is there.
install_packages() {
  local -a missing=() run=(env DEBIAN_FRONTEND=noninteractive)
  local package
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "No apt here: these must be there, by Debian's names: $*"
    [[ -n $TORCH_FOLDER ]] || say "LibTorch must be there: set CMAKE_PREFIX_PATH to its folder, or \`pip install torch\`"
    return
  fi
  for package in "$@"; do
    [[ $package == libtorch-dev && -n $TORCH_FOLDER ]] && continue
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  if [[ ${#missing[@]} == 0 ]]; then
    [[ -n $TORCH_FOLDER ]] || say "LibTorch: Debian's libtorch-dev"
    return
  fi
  say "Installing with apt: ${missing[*]}"
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || fail "Not root, and there is no sudo. As root: apt-get install ${missing[*]}"
    run=(sudo "${run[@]}")
  fi
  "${run[@]}" apt-get update -qq || say "apt-get update failed; trying with the package lists that are there"
  if [[ " ${missing[*]} " == *" libtorch-dev "* ]] && ! apt-cache show libtorch-dev >/dev/null 2>&1; then
    fail "This distribution has no libtorch-dev. Set CMAKE_PREFIX_PATH to LibTorch's folder, or \`pip install torch\` (2.7 or newer), and start again."
  fi
  "${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >build/apt.log 2>&1 ||
    fail "apt-get could not install them: $(tail -n 5 build/apt.log)"
  [[ -n $TORCH_FOLDER ]] || say "LibTorch: Debian's libtorch-dev"
}

# configure PRESET [CMAKE OPTION...]: quiet unless it fails. Starts anew where LibTorch is another one than before.
configure() {
  local folder=build/$1 torch="${TORCH_FOLDER:-Debian}"
  mkdir -p "$folder"
  [[ $(cat "$folder/torch-folder" 2>/dev/null) == "$torch" ]] || rm -rf "$folder/CMakeCache.txt" "$folder/CMakeFiles"
  printf '%s\n' "$torch" >"$folder/torch-folder"
  cmake --preset "$1" ${TORCH_FOLDER:+"-DTorch_DIR=$TORCH_FOLDER"} "${@:2}" >"$folder/configure.log" 2>&1 || {
    cat "$folder/configure.log" >&2
    fail "CMake could not configure $folder"
  }
}

mkdir -p build
