#include "clocks.h"

#include <algorithm>
#include <sstream>

namespace fake_device {
namespace {

std::string stream_name(Timeline stream) {
  return "device " + std::to_string(stream / kStreamsPerDevice) + " stream " +
         std::to_string(stream % kStreamsPerDevice);
}

std::string describe(const char* kind, const Access& later, const Access& earlier) {
  std::ostringstream line;
  line << kind << ": " << later.name << (later.writes ? " writes" : " reads") << " bytes [" << later.begin << ", "
       << later.end << ") on " << stream_name(later.stream) << ", not ordered after " << earlier.name << ", which "
       << (earlier.writes ? "writes" : "reads") << " [" << earlier.begin << ", " << earlier.end << ") on "
       << stream_name(earlier.stream);
  return line.str();
}

const char* kind_of(const Access& later, const Access& earlier) {
  if (!later.writes) return "read after write";
  return earlier.writes ? "write after write" : "write after read";
}

}  // namespace

void Clock::merge(const Clock& other) {
  for (Timeline t = 0; t < kTimelines; ++t) ticks_[t] = std::max(ticks_[t], other.ticks_[t]);
}

bool Clock::covers(const Clock& other) const {
  for (Timeline t = 0; t < kTimelines; ++t) {
    if (!covers(t, other.ticks_[t])) return false;
  }
  return true;
}

std::vector<std::string> AccessLog::add(const Access& access, const Clock& known) {
  std::vector<std::string> races;
  std::vector<Access> kept;
  for (Access& earlier : accesses_) {
    const bool overlaps = earlier.begin < access.end && access.begin < earlier.end;
    const bool conflicts = overlaps && (earlier.writes || access.writes);
    const bool ordered = earlier.stream == access.stream || known.covers(earlier.stream, earlier.tick);
    if (conflicts && !ordered) races.push_back(describe(kind_of(access, earlier), access, earlier));

    // Whoever is ordered after this access is ordered after what it supersedes too, so the log stays short: a write
    // supersedes everything inside its bytes, a read the same stream's earlier reads.
    const bool inside = access.begin <= earlier.begin && earlier.end <= access.end;
    const bool superseded = inside && (access.writes || (!earlier.writes && earlier.stream == access.stream));
    if (!superseded) kept.push_back(std::move(earlier));
  }
  kept.push_back(access);
  accesses_ = std::move(kept);
  return races;
}

std::vector<std::string> AccessLog::free(Timeline owner, const Clock& known,
                                         const std::set<Timeline>& announced) const {
  std::vector<std::string> races;
  for (const Access& access : accesses_) {
    if (access.stream == owner || known.covers(access.stream, access.tick) || announced.count(access.stream)) continue;
    const Access freeing{access.begin, access.end, owner, 0, true, "free"};
    races.push_back(describe("free", freeing, access));
  }
  return races;
}

}  // namespace fake_device
