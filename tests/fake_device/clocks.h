// The race detector's arithmetic: vector clocks, and the log of accesses to one block of memory. Plain numbers; it
// knows neither LibTorch nor threads, whoever owns an object guards it.
#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace fake_device {

constexpr int kStreamsPerDevice = 16;
constexpr int kTimelines = 2 * kStreamsPerDevice;

using Timeline = int;   // one stream of one device: device index * kStreamsPerDevice + stream id
using Tick = uint64_t;  // position on a timeline; 0 is before everything

/// How far each timeline had come at some moment. Clock A covers B when everything that B saw happened before A.
class Clock {
 public:
  Tick operator[](Timeline timeline) const { return ticks_[timeline]; }
  Tick advance(Timeline timeline) { return ++ticks_[timeline]; }
  void merge(const Clock& other);
  bool covers(const Clock& other) const;
  bool covers(Timeline timeline, Tick tick) const { return tick <= ticks_[timeline]; }

 private:
  std::array<Tick, kTimelines> ticks_{};
};

/// An operator that read or wrote bytes [begin, end) of a block.
struct Access {
  int64_t begin;
  int64_t end;
  Timeline stream;
  Tick tick;
  bool writes;
  std::string name;
};

/// The accesses to one block that later ones must still be ordered after.
class AccessLog {
 public:
  /// Enters `access`, whose stream is ordered after `known`; returns one line for each race.
  std::vector<std::string> add(const Access& access, const Clock& known);

  /// A caching allocator hands freed memory to the next allocation on its `owner` stream at once. Returns one line for
  /// each access of another stream that may still run then: neither is `owner` ordered after it (`known`), nor was
  /// the stream `announced` by record_stream.
  std::vector<std::string> free(Timeline owner, const Clock& known, const std::set<Timeline>& announced) const;

 private:
  std::vector<Access> accesses_;
};

}  // namespace fake_device
