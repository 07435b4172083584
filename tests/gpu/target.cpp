#include "target.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

#include "cuda_calls.h"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Milliseconds between two events, -1 where this version cannot tell.
template <typename Event>
auto elapsed_ms(const Event& start, const Event& end, int) -> decltype(start.elapsedTime(end)) {
  return start.elapsedTime(end);
}
template <typename Event>
double elapsed_ms(const Event&, const Event&, long) {
  return -1;
}

c10::Stream current_stream(c10::Device device) { return c10::impl::VirtualGuardImpl(device.type()).getStream(device); }

template <typename Stream>
constexpr auto tells_native_stream(int) -> decltype(std::declval<Stream>().native_handle(), bool()) {
  return true;
}
template <typename Stream>
constexpr bool tells_native_stream(long) {
  return false;
}

/// CUDA's own stream, which is nullptr for the default one and where this version cannot tell.
template <typename Stream>
auto native_stream(const Stream& stream, int) -> decltype(stream.native_handle()) {
  return stream.native_handle();
}
template <typename Stream>
void* native_stream(const Stream&, long) {
  return nullptr;
}

class Cpu final : public Target {
 public:
  c10::Device device() const override { return at::kCPU; }
  std::string name() const override { return "the CPU"; }
};

class Cuda final : public Target {
 public:
  explicit Cuda(c10::Device device) : device_(device) {}

  c10::Device device() const override { return device_; }
  std::string name() const override {
    const std::string name = cuda_device_name(device_.index());
    return name.empty() ? device_.str() : name;
  }

  std::string how_counted() const override {
    return "calls of CUDA's runtime by LibTorch: cudaStreamSynchronize, cudaDeviceSynchronize, cudaEventSynchronize, "
           "cudaMemcpy, cudaFree, and cudaMemcpyAsync where host memory is not pinned. What cuBLAS or cuDNN do inside "
           "is not seen; update() uses neither";
  }
  Asked asked_by_this_thread() const override { return asked(cuda_calls_of_this_thread()); }
  Asked asked_by_all_threads() const override { return asked(cuda_calls_of_all_threads()); }
  bool autograd_follows_streams() const override { return true; }

  bool while_busy(const std::function<void(const StillBusy&)>& work) const override {
    const at::NoGradGuard no_grad;
    constexpr int64_t kSide = 4096;
    const at::Tensor a = at::ones({kSide, kSide}, at::TensorOptions().device(device_));
    at::Tensor product = at::mm(a, a);
    synchronize();
    const auto start = Clock::now();
    at::mm_out(product, a, a);
    synchronize();
    // Seconds of it, but far fewer products than a queue of launches has room for: else it is the launch that waits.
    const int products = std::clamp(static_cast<int>(2.0 / seconds_since(start)), 2, 400);
    for (int i = 0; i < products; ++i) at::mm_out(product, a, a);
    c10::Event done(device_.type());
    done.record(current_stream(device_));
    work([&] { return !done.query(); });
    synchronize();
    return true;
  }

  bool records_graphs() const override { return tells_native_stream<c10::Stream>(0); }
  std::string record_graph(const std::function<void()>& work) const override {
    return cuda_record_graph(native_stream(current_stream(device_), 0), work);
  }

 private:
  static Asked asked(const CudaCalls& calls) {
    return {calls.synchronizations + calls.pageable_copies + calls.frees, calls.copies_to_host, calls.copies_to_device,
            calls.allocations};
  }

  const c10::Device device_;
};

}  // namespace

void Target::synchronize() const {
  if (!device().is_cpu()) current_stream(device()).synchronize();
}

double Target::seconds(const std::function<void()>& work) const {
  synchronize();
  if (device().type() == at::kCUDA) {
    // Behind other work, so that the device never waits for the host between the two events.
    const at::Tensor a = at::ones({4096, 4096}, at::TensorOptions().device(device()));
    synchronize();
    c10::Event start(device().type(), c10::EventFlag::BACKEND_DEFAULT);
    c10::Event end(device().type(), c10::EventFlag::BACKEND_DEFAULT);
    for (int i = 0; i < 4; ++i) at::mm(a, a);
    start.record(current_stream(device()));
    work();
    end.record(current_stream(device()));
    synchronize();
    const double ms = elapsed_ms(start, end, 0);
    if (ms >= 0) return ms / 1e3;
  }
  const auto start = Clock::now();
  work();
  synchronize();
  return seconds_since(start);
}

std::unique_ptr<Target> find_target(const std::string& name) {
  if (name == "cpu") return std::make_unique<Cpu>();
  if (name == "test") return make_test_device();
  if (name.compare(0, 4, "cuda") != 0) {
    throw std::invalid_argument("expected a device cuda, cuda:1, ..., cpu or test; found '" + name + "'");
  }
  try {
    c10::Device device(name);
    if (!device.has_index()) device.set_index(0);
    if (!c10::impl::hasDeviceGuardImpl(device.type())) return nullptr;  // a LibTorch without CUDA
    if (device.index() >= c10::impl::VirtualGuardImpl(device.type()).deviceCount()) return nullptr;
    at::empty({1}, at::TensorOptions().device(device));  // the driver works
    return std::make_unique<Cuda>(device);
  } catch (const c10::Error& error) {
    if (name == "cuda" || std::string(error.what()).find("Invalid device string") == std::string::npos) return nullptr;
    throw std::invalid_argument("expected a device cuda, cuda:1, ..., cpu or test; found '" + name + "'");
  }
}
