#!/usr/bin/env bash
# What sources must not contain: the promises of the core that a compiler does not check. Looks at code, not at what
# stands behind `//`. Lines that are right all the same stand in tests/lint_allowed.txt, each with its reason.
#
#   tests/lint.sh [FOLDER]      checks the sources below FOLDER (default: this repository); 1 where something is found
#   tests/lint.sh --self-test   breaks each rule in a folder of its own, and fails where that is not noticed
set -euo pipefail

here=$(cd "$(dirname "$(realpath "$0")")" && pwd)

# Name, folders (separated by blanks), Perl regular expression, what is wrong. `%` separates; no pattern may contain it.
rules=(
  "vendor%beholder%\b(at|torch|c10)::(cuda|hip|xpu|mps)\b|\bk(CUDA|HIP|XPU|MPS)\b|\bis_cuda\b|\b(cuda|hip)[A-Z]\w*|#\s*include\s*[<\"][^>\"]*(cuda|cudnn|hip/|hip_)[^>\"]*[>\"]%the core knows devices by c10 alone: device_work.h"
  "waits%beholder%(\.|->)\s*item\s*(<|\()|\bitem\s*<|(\.|->)\s*(cpu|is_nonzero|tolist)\s*\(|_local_scalar_dense|\w*[sS]ynchronize\s*\(|\bto\s*\(\s*((at|torch|c10)::)?(kCPU\b|(c10::)?DeviceType::CPU)|(\bat::|\btorch::|\.|->)(nonzero|nonzero_static|masked_select|unique_dim|_unique2?|unique_consecutive|bincount|histc|equal|allclose)\s*\(%this makes the host wait for the device"
  "whole torch%beholder%#\s*include\s*[<\"]torch/(torch|all|nn|extension)\.h[>\"]%17 seconds of compilation for each file: include what is used"
  "spdlog%beholder callbacks tools examples%\bspdlog\b|\bfmt::%fmt's headers of the torch wheel and Debian's spdlog do not go together: beholder/log.h"
  "libraries%beholder%#\s*include\s*[<\"](opencv2|libav|libsw|httplib|nlohmann|CLI/|zip\.h|zlib\.h)|\bcv::|\bnlohmann::|\bhttplib::|\bAV[A-Z]\w+|\bavcodec_|\bavformat_%the core needs LibTorch and spdlog, nothing else"
  "locks%beholder callbacks tools%\bstd::((recursive_|timed_|recursive_timed_|shared_|shared_timed_)?mutex|condition_variable(_any)?|lock_guard|unique_lock|scoped_lock|shared_lock)\b%clang cannot check what it guards: Mutex, MutexLock and Condition of beholder/thread_safety.h"
  "libav%callbacks tools examples%#\s*include\s*[<\"]lib(av|sw)|\bAV[A-Z]\w+\s*[*&(]|\bav(codec|format|_)\w*\s*\(%libav is known to callbacks/video_writer.cpp alone"
  "pool%callbacks%#\s*include\s*[<\"]opencv2/(imgproc|opencv|video|photo|features2d)|\bcv::(cvtColor|resize|LUT|merge|split|mixChannels|transform|parallel_for_|setNumThreads|filter2D|\w*[bB]lur|warp\w+|remap|convertScaleAbs)\s*\(|(\.|->)convertTo\s*\(%this wakes OpenCV's threads, which no budget counts: callbacks/bgr.h"
  "locale%beholder callbacks tools%\b(v?s?n?printf|f?printf)\s*\(.*\x25[-+ #0-9.*]*[aAeEfFgG]|\bstd::(w?o|w?)stringstream\b|\bstd::(fixed|setprecision|scientific|put_money|to_wstring)\b|\b(strtod|strtof|strtold|atof|stod|stof|stold)\s*\(|\bsetlocale\s*\(|\bstd::locale::global\b%decimal commas where the user's locale has them: beholder/numbers.h"
)

# lint FOLDER ALLOWED: prints what is found, and entries of ALLOWED that excuse nothing; 1 where there is any.
lint() {
  local root=$1 allowed=$2 rule name folders pattern why file text line number reason
  local -a lines=() used=() existing=()
  local bad=0 i
  mapfile -t lines < <(grep -vE '^\s*(#|$)' "$allowed")
  for rule in "${rules[@]}"; do
    IFS=% read -r name folders pattern why <<<"$rule"
    existing=()
    for file in $folders; do [[ -d $root/$file ]] && existing+=("$file"); done
    [[ ${#existing[@]} -gt 0 ]] || continue
    while IFS=: read -r file number text; do
      [[ -n $file ]] || continue
      local excused=false
      for i in "${!lines[@]}"; do
        local allowed_rule allowed_file allowed_text
        IFS='|' read -r allowed_rule allowed_file allowed_text reason <<<"${lines[i]}"
        if [[ $(trim "$allowed_rule") == "$name" && $(trim "$allowed_file") == "$file" &&
          $text == *"$(trim "$allowed_text")"* && -n $(trim "$reason") ]]; then
          excused=true
          used[i]=1
        fi
      done
      if ! $excused; then
        echo "$file:$number: $(trim "$text")"
        echo "  $name: $why"
        bad=1
      fi
    done < <(cd "$root" && grep -rnP --include='*.cpp' --include='*.h' -- "^(?:(?!//).)*?(?:$pattern)" "${existing[@]}" || true)
  done
  for i in "${!lines[@]}"; do
    [[ -n ${used[i]:-} ]] && continue
    echo "lint_allowed.txt: \"${lines[i]}\" excuses no line, or gives no reason: remove or mend it"
    bad=1
  done
  return $bad
}

trim() {
  local text=$1
  text=${text#"${text%%[![:space:]]*}"}
  printf '%s' "${text%"${text##*[![:space:]]}"}"
}

# ---- seen to fail

failures=0
folder=

# expect CLEAN-OR-RULE FILE LINE [ALLOWED LINE]: `lint` of one file with one line.
expect() {
  local expected=$1 file=$2 line=$3 allowed=${4:-} output found=clean
  rm -rf "$folder"/*
  mkdir -p "$folder/$(dirname "$file")"
  printf '%s\n' "$line" >"$folder/$file"
  printf '%s\n' "$allowed" >"$folder/allowed.txt"
  output=$(lint "$folder" "$folder/allowed.txt") || found=$(sed -n 's/^  \([a-z ]*\): .*/\1/p' <<<"$output" | head -1)
  [[ -n $found ]] || found=allowed.txt  # a complaint about the list itself
  if [[ $found != "$expected" ]]; then
    echo "$file with \"$line\": expected $expected, found $found"
    failures=1
  fi
}

self_test() {
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  expect vendor beholder/a.cpp 'auto s = at::cuda::getCurrentCUDAStream();'
  expect vendor beholder/a.cpp 'if (torch::cuda::is_available()) {}'
  expect vendor beholder/a.h '#include <c10/cuda/CUDAStream.h>'
  expect vendor beholder/a.h '#include <cuda_runtime_api.h>'
  expect vendor beholder/a.cpp '  cudaStreamSynchronize(stream);'
  expect vendor beholder/a.cpp 'if (x.is_cuda()) return;'
  expect waits beholder/a.cpp 'return x.sum().item<float>();'
  expect waits beholder/a.cpp 'return x.item().toDouble();'
  expect waits beholder/a.cpp 'return x.template item<double>();'
  expect waits beholder/a.cpp 'y = x.cpu();'
  expect waits beholder/a.cpp 'y = x.to(at::kCPU);'
  expect waits beholder/a.cpp 'stream.synchronize();'
  expect waits beholder/a.cpp 'guard.deviceSynchronize();'
  expect waits beholder/a.cpp 'auto where = at::nonzero(x);'
  expect waits beholder/a.cpp 'if (x.equal(y)) return;'
  expect 'whole torch' beholder/a.cpp '#include <torch/torch.h>'
  expect spdlog beholder/a.cpp '#include <spdlog/spdlog.h>'
  expect spdlog callbacks/a.cpp 'spdlog::info("{}", x);'
  expect libraries beholder/a.cpp '#include <opencv2/core.hpp>'
  expect libraries beholder/a.cpp 'cv::Mat picture;'
  expect libraries beholder/a.cpp '#include <nlohmann/json.hpp>'
  expect libraries beholder/a.cpp '#include "httplib.h"'
  expect libraries beholder/a.cpp '#include <libavcodec/avcodec.h>'
  expect locks beholder/a.h '  mutable std::mutex mutex_;'
  expect locks callbacks/a.cpp '  std::unique_lock<std::mutex> lock(mutex_);'
  expect locks tools/a.cpp '  std::condition_variable changed_;'
  expect libav callbacks/a.cpp 'extern "C" { #include <libavformat/avformat.h>'
  expect libav callbacks/a.cpp '  AVFrame* frame = av_frame_alloc();'

  expect locale beholder/a.cpp '  std::snprintf(text, sizeof text, "%.2g", value);'
  expect locale callbacks/a.cpp '  std::printf("%5.1f of %d", part, all);'
  expect locale beholder/a.cpp '  std::ostringstream text;'
  expect locale tools/a.cpp '  const double seconds = std::stod(argv[1]);'
  expect locale tools/a.cpp '  out << std::fixed << seconds;'
  expect locale callbacks/a.cpp '  return std::strtod(text.c_str(), nullptr);'
  expect pool callbacks/a.cpp '    cv::cvtColor(picture, bgr, cv::COLOR_RGB2BGR);'
  expect pool callbacks/a.cpp '#include <opencv2/imgproc.hpp>'
  expect pool callbacks/a.cpp '  picture.convertTo(floats, CV_32F);'

  # What looks alike and is right.
  expect clean beholder/a.cpp '// no .item<float>(), no at::cuda, no spdlog'
  expect clean beholder/a.cpp 'std::string device;  ///< "cpu", "cuda:0"'
  expect clean beholder/a.cpp 'std::unique_ptr<Item> items(item); if (std::equal(a, b, c)) item.reset();'
  expect clean beholder/a.cpp 'auto d = c10::Device(c10::kCPU); if (x.is_cpu()) x.device().is_cpu();'
  expect clean beholder/a.cpp '#include <torch/nn/module.h>'
  expect clean callbacks/a.cpp '#include <opencv2/core.hpp>'
  expect clean callbacks/a.cpp 'if (cv::imencode(".png", bgr, bytes)) return bytes;'
  expect clean callbacks/a.cpp 'std::snprintf(name, sizeof name, "/%05lld.png", static_cast<long long>(frames_));'
  expect clean beholder/a.cpp 'std::istringstream words(text); std::strtoul(text, nullptr, 10);'
  expect clean tools/a.cpp 'cv::cvtColor(decoded, decoded, cv::COLOR_BGR2RGB);'
  expect clean callbacks/a.cpp '#include <mutex>  // std::call_once'
  expect clean callbacks/a.cpp '#include <torch/torch.h>'

  # The list of what is allowed.
  expect clean beholder/a.cpp 'stream.synchronize();' 'waits | beholder/a.cpp | stream.synchronize() | the render thread'
  expect waits beholder/b.cpp 'stream.synchronize();' 'waits | beholder/a.cpp | stream.synchronize() | the render thread'
  expect waits beholder/a.cpp 'x.cpu();' 'vendor | beholder/a.cpp | x.cpu() | another rule'
  expect waits beholder/a.cpp 'stream.synchronize();' 'waits | beholder/a.cpp | stream.synchronize() |'
  expect allowed.txt beholder/a.cpp 'int x;' 'waits | beholder/a.cpp | stream.synchronize() | nothing of the kind is there'
  [[ $failures == 0 ]] && echo "each rule is seen to fail where it is broken"
  return $failures
}

case ${1:-} in
  --self-test) self_test ;;
  -*) sed -n 's/^#   /usage: /p' "$0" >&2; exit 2 ;;
  *) lint "${1:-$here/..}" "$here/lint_allowed.txt" && echo "nothing found" ;;
esac
