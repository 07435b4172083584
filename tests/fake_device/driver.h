// What a driver does for a real accelerator: it knows how far each stream has come, what each host thread has seen
// complete, and makes threads wait. One for both devices, for the whole life of the process.
#pragma once

#include <c10/core/Stream.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "clocks.h"
#include "fake_device.h"

namespace fake_device {

static_assert(kTimelines == kDeviceCount * kStreamsPerDevice, "one timeline for each stream of each device");

inline Timeline timeline_of(const c10::Stream& stream) {
  return stream.device_index() * kStreamsPerDevice + static_cast<Timeline>(stream.id());
}
c10::Stream stream_of(Timeline timeline);

/// What belongs to one thread of the program. Only `counts` and `seen` are touched by others.
struct HostThread {
  Counts counts;  // guarded by Driver::mutex_
  Clock seen;     // what this thread knows to be complete; guarded by Driver::mutex_
  int queries_in_a_row = 0;
  int no_sync_scopes = 0;
  c10::DeviceIndex device = 0;                       // the current device
  std::array<c10::StreamId, kDeviceCount> stream{};  // the current stream of each device
};

HostThread& this_thread();

/// This thread's current stream on `device` (index -1: on the current device).
Timeline current_timeline(c10::Device device);

/// The place that an operator got on a stream.
struct Enqueued {
  Timeline stream;
  Tick tick;
  Clock known;  // what it is ordered after, itself included
};

class Driver {
 public:
  static Driver& instance();

  /// Puts an operator on a stream: after what is on the stream, and after what this thread has seen complete.
  Enqueued enqueue(Timeline stream);

  // Events. A recorded event is the clock of its stream at that moment.
  Clock record(Timeline stream);
  void block(Timeline stream, const Clock& event);

  /// What a stream's next operator will be ordered after.
  Clock tail(Timeline stream);
  Clock tail_of_device(c10::DeviceIndex index);

  /// Whether `moment` is complete; if so, this thread has seen it.
  bool query(const Clock& moment);

  /// Waits until `moment` is complete, and counts it as `kind`. Throws in a NoSync scope, and on a frozen device when
  /// patience ends; `what` names the culprit.
  void wait(const Clock& moment, int64_t Counts::*kind, const std::string& what);

  /// Runs `land` as soon as a thread has seen that `copy` is complete: how bytes get into pinned memory.
  void land_later(const Enqueued& copy, std::function<void()> land);

  /// `waiting` goes on when `awaited` has come this far, without an event that the program would have recorded.
  void order_after(Timeline waiting, Timeline awaited);

  void count(int64_t Counts::*what, int64_t number = 1);
  void report(const std::vector<std::string>& races);

  /// What is ordered before memory of `owner` that this thread frees now can be used again.
  Clock known_at_free(Timeline owner);

  Timeline next_stream(c10::DeviceIndex index);

  // The public functions of the same names.
  Counts counts();
  Counts total_counts();
  void reset();
  std::vector<std::string> races();
  void freeze(std::chrono::milliseconds patience);
  void thaw();
  void host_release(const void* key);
  void host_acquire(const void* key);

 private:
  friend HostThread& this_thread();

  struct Landing {
    Timeline stream;
    Tick tick;
    std::function<void()> land;
  };

  HostThread& add_thread();
  bool complete(const Clock& moment) const;
  std::vector<Landing> see(HostThread& host, const Clock& moment);

  std::mutex mutex_;
  std::condition_variable thawed_;
  // All below: guarded by mutex_.
  std::array<Clock, kTimelines> tails_;
  std::vector<std::unique_ptr<HostThread>> threads_;  // those that ended too: their counts still count
  std::vector<Landing> landings_;                     // non-blocking copies to the host that nobody has seen complete
  std::map<const void*, Clock> released_;
  std::vector<std::string> races_;
  std::array<int, kDeviceCount> streams_dealt_{};
  bool frozen_ = false;
  Clock complete_;  // while frozen: what was complete when that began
  std::chrono::milliseconds patience_{0};
};

}  // namespace fake_device
