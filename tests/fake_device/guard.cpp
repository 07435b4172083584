// What c10 asks of every device type: the current device and stream of a thread, and events. Through it c10::Event,
// c10::StreamGuard and c10::impl::VirtualGuardImpl reach the driver.
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "driver.h"
#include "memory.h"

namespace fake_device {
namespace {

// What a c10::Event of this type points to.
struct RecordedEvent {
  c10::DeviceIndex device;
  Clock clock;
};

const Clock& clock_of(void* event) { return static_cast<RecordedEvent*>(event)->clock; }

c10::DeviceIndex checked_index(c10::Device device) {
  TORCH_CHECK(device.type() == kType && device.index() < kDeviceCount, "fake device: there is no ", device);
  return device.has_index() ? device.index() : this_thread().device;
}

struct GuardImpl final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kType;  // C10_REGISTER_GUARD_IMPL reads it

  c10::DeviceType type() const override { return kType; }
  c10::DeviceIndex deviceCount() const noexcept override { return kDeviceCount; }

  c10::Device getDevice() const override { return device(this_thread().device); }
  void setDevice(c10::Device device) const override { this_thread().device = checked_index(device); }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index()) this_thread().device = device.index();
  }

  // (1.13.1 has noexcept on these two, later versions do not mind it.)
  c10::Stream getStream(c10::Device device) const noexcept override { return stream_of(current_timeline(device)); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override {
    const c10::Stream before = getStream(stream.device());
    this_thread().stream[stream.device_index()] = stream.id();
    return before;
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return stream_of(checked_index(device) * kStreamsPerDevice);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool = false) const override {
    return stream_of(Driver::instance().next_stream(checked_index(device)));
  }

  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (!*event) *event = new RecordedEvent{stream.device_index(), {}};
    auto* recorded = static_cast<RecordedEvent*>(*event);
    TORCH_CHECK(recorded->device == stream.device_index(), "fake device: an event of device ", int(recorded->device),
                " cannot be recorded on a stream of device ", int(stream.device_index()));
    recorded->clock = Driver::instance().record(timeline_of(stream));
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event) Driver::instance().block(timeline_of(stream), clock_of(event));
  }
  bool queryEvent(void* event) const override { return !event || Driver::instance().query(clock_of(event)); }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<RecordedEvent*>(event);
  }

  bool queryStream(const c10::Stream& stream) const override {
    return Driver::instance().query(Driver::instance().tail(timeline_of(stream)));
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    Driver::instance().wait(Driver::instance().tail(timeline_of(stream)), &Counts::stream_synchronizations,
                            "Stream::synchronize");
  }

  void recordDataPtrOnStream(const c10::DataPtr& pointer, const c10::Stream& stream) const override {
    if (Block* block = block_of(pointer)) {
      std::lock_guard<std::mutex> lock(block->mutex);
      block->announced.insert(timeline_of(stream));
    }
  }

  // Overrides in LibTorch 2, unknown to 1.13.1: hence without the word.
  void synchronizeEvent(void* event) const {
    if (event) Driver::instance().wait(clock_of(event), &Counts::event_synchronizations, "Event::synchronize");
  }
  void synchronizeDevice(const c10::DeviceIndex index) const {
    Driver::instance().wait(Driver::instance().tail_of_device(index), &Counts::device_synchronizations,
                            "synchronizeDevice");
  }
  c10::Stream getNewStream(c10::Device device, int = 0) const { return getStreamFromGlobalPool(device); }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, GuardImpl);

}  // namespace

c10::Stream default_stream(c10::DeviceIndex index) {
  return c10::impl::VirtualGuardImpl(kType).getDefaultStream(device(index));
}
c10::Stream current_stream(c10::DeviceIndex index) {
  return c10::impl::VirtualGuardImpl(kType).getStream(device(index));
}
c10::Stream new_stream(c10::DeviceIndex index) {
  return c10::impl::VirtualGuardImpl(kType).getStreamFromGlobalPool(device(index));
}

}  // namespace fake_device
