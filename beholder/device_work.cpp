#include "beholder/device_work.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace beholder {

void DeviceEvent::record() {
  if (device_.is_cpu()) return;
  if (!event_) event_.emplace(device_.type());
  stream_ = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  event_->record(*stream_);
}

void DeviceEvent::extend() {
  if (stream_ && *stream_ != c10::impl::VirtualGuardImpl(device_.type()).getStream(device_)) {
    block_current_stream(device_);
  }
  record();
}

bool DeviceEvent::query() const { return !event_ || event_->query(); }

void DeviceEvent::block_current_stream(c10::Device device) {
  if (!event_ || device.is_cpu()) return;
  event_->block(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

SideStream::SideStream(c10::Device device) : beside_graphs_(device) {
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  // The pool hands out another stream at each call; one for each device keeps our own work in order.
  thread_local std::optional<c10::Stream> mine[16];
  auto& kept = mine[device.index() & 15];
  // The user may have the same one of the pool, and record a graph with it: then another one.
  constexpr int kStreamsOfAPool = 32;
  for (int i = 0; i < kStreamsOfAPool && (!kept || kept->device() != device || records_graph(*kept)); ++i) {
    kept = guard.getStreamFromGlobalPool(device, /*isHighPriority=*/false);
  }
  stream_ = kept;
  previous_ = guard.exchangeStream(*stream_);
}

SideStream::~SideStream() {
  if (!previous_) return;
  try {
    c10::impl::VirtualGuardImpl(previous_->device().type()).exchangeStream(*previous_);
  } catch (...) {  // a lost device; the render thread reports it by its next operator
  }
}

void SideStream::synchronize() {
  if (!stream_) return;
  c10::Event done(stream_->device_type());
  done.record(*stream_);
  using std::chrono::microseconds;
  constexpr microseconds kShortest(50), kLongest(2000);
  for (auto pause = kShortest; !done.query(); pause = std::min(2 * pause, kLongest)) {
    std::this_thread::sleep_for(pause);
  }
}

SideStreams::SideStreams(const std::vector<c10::Device>& devices) {
  for (const auto& device : devices) streams_.push_back(std::make_unique<SideStream>(device));
}

void SideStreams::synchronize() {
  for (auto& stream : streams_) stream->synchronize();
}

at::Tensor host_buffer(int64_t bytes, c10::Device device) {
  auto plain = at::empty({bytes}, at::TensorOptions().dtype(at::kByte));
  if (device.is_cpu()) return plain;
#if TORCH_VERSION_MAJOR < 2
  return plain.pin_memory(device);  // otherwise it asks CUDA
#else
  return plain.pin_memory();  // for the accelerator of this process; naming it is deprecated
#endif
}

void use_one_cpu_thread() {
  // at::set_num_threads() is for the whole process. OpenMP's own setting holds for the calling thread, once LibTorch
  // has made its first use of the thread. Found by name: PyPI's torch brings an OpenMP library of its own.
  at::get_num_threads();  // the first use: at its own, LibTorch would give this thread what the user asked for
  using Set = void (*)(int);
  if (auto set = reinterpret_cast<Set>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"))) set(1);
}

}  // namespace beholder
