// CUDA's runtime is asked by the names of its functions, which a LibTorch with CUDA has loaded: no header of a vendor
// is needed, and nothing is linked.
#include "beholder/graph_capture.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

namespace beholder {
namespace {

constexpr auto kTypes = static_cast<size_t>(c10::COMPILE_TIME_MAX_DEVICE_TYPES);
std::array<std::atomic<RecordsGraph>, kTypes> ways{};

// The first of these enumerations are `success`, `not capturing` and `global`, in all versions of CUDA.
constexpr int kSuccess = 0, kNotCapturing = 0, kRelaxed = 2;

struct Cuda {
  int (*is_capturing)(void* stream, int* status);
  int (*exchange_mode)(int* mode);
  int (*take_error)();

  template <typename Function>
  static void find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  }
  static const Cuda& get() {
    static const Cuda cuda = [] {
      Cuda found{};
      find(found.is_capturing, "cudaStreamIsCapturing");
      find(found.exchange_mode, "cudaThreadExchangeStreamCaptureMode");
      find(found.take_error, "cudaGetLastError");
      return found;
    }();
    return cuda;
  }
  /// An error of ours must not be found by LibTorch's next kernel.
  void forget_error() const {
    if (take_error) take_error();
  }
};

/// CUDA's own stream, where this version of LibTorch tells it.
template <typename Stream>
auto native_stream(const Stream& stream, void** out, int) -> decltype(stream.native_handle(), bool()) {
  *out = stream.native_handle();
  return true;
}
template <typename Stream>
bool native_stream(const Stream&, void**, long) {
  return false;
}

bool cuda_records(const c10::Stream& stream) {
  const Cuda& cuda = Cuda::get();
  void* native = nullptr;
  if (!cuda.is_capturing || !native_stream(stream, &native, 0)) return false;
  int status = kNotCapturing;
  if (cuda.is_capturing(native, &status) == kSuccess) return status != kNotCapturing;
  cuda.forget_error();
  return true;  // the legacy stream, while another one records: whatever is asked of it now would do harm
}

}  // namespace

void set_records_graph(c10::DeviceType type, RecordsGraph records) { ways[static_cast<size_t>(type)] = records; }

bool records_graph(const c10::Stream& stream) {
  if (stream.device_type() == c10::DeviceType::CUDA) return cuda_records(stream);
  const RecordsGraph records = ways[static_cast<size_t>(stream.device_type())].load(std::memory_order_relaxed);
  return records && records(stream);
}

bool records_graph(c10::Device device) {
  return !device.is_cpu() && records_graph(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

bool any_records_graph(const std::vector<c10::Device>& devices) {
  return std::any_of(devices.begin(), devices.end(), [](c10::Device device) { return records_graph(device); });
}

BesideGraphs::BesideGraphs(c10::Device device) {
  if (device.type() == c10::DeviceType::CUDA) begin();
}

BesideGraphs::BesideGraphs(const std::vector<c10::Device>& devices) {
  const auto is_cuda_device = [](c10::Device device) { return device.type() == c10::DeviceType::CUDA; };
  if (std::any_of(devices.begin(), devices.end(), is_cuda_device)) begin();
}

void BesideGraphs::begin() {
  const Cuda& cuda = Cuda::get();
  if (!cuda.exchange_mode) return;
  int mode = kRelaxed;
  if (cuda.exchange_mode(&mode) == kSuccess) {
    before_ = mode;
  } else {
    cuda.forget_error();
  }
}

BesideGraphs::~BesideGraphs() {
  if (before_ >= 0 && Cuda::get().exchange_mode(&before_) != kSuccess) Cuda::get().forget_error();
}

}  // namespace beholder
