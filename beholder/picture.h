// What was rendered: pixels without text, and what is known about each section. Immutable and shared by all
// callbacks; made by the render thread. No torch, no OpenCV: plain memory.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "beholder/layout.h"
#include "beholder/section.h"
#include "beholder/settings.h"
#include "beholder/thread_safety.h"

namespace beholder {

/// Numbers about the values of one section that are shown (a hidden part does not count). NaN, infinities and finite
/// numbers beyond float32 are counted and left out of the rest; where nothing else is shown, min, max, mean and std are
/// NaN. Zeros, NaN and infinities are those of the tensor's own dtype.
struct Statistics {
  double min = 0, max = 0, mean = 0, std = 0;  ///< std: population
  int64_t count = 0;                           ///< values shown
  int64_t zeros = 0, nans = 0, infs = 0;       ///< infs: both signs
  int64_t beyond = 0;                          ///< finite, and larger than float32 holds; both signs
};

/// What a viewer tells about one section.
struct SectionInfo {
  std::string name;
  Kind kind = Kind::Array;
  std::vector<int64_t> shape;
  std::string dtype;   ///< "float32"
  std::string device;  ///< "cpu", "cuda:0"
  Statistics statistics;
  double scale_low = 0, scale_high = 0;  ///< the values that the first and the last colour stand for
  int64_t values_total = 0;              ///< elements of the tensor
  bool complete = true;                  ///< all of them are shown
  /// The step since which it did not come: what is shown is what came last, if anything.
  std::optional<int64_t> absent_since;
  bool sampled = false;                   ///< those shown are a regular sample, not the top-left part
  std::optional<double> relative_change;  ///< ||change|| / ||previous|| over the values shown, in mode change
  std::optional<double> dead_share;       ///< of a tap of rank 2 or 4: channels that are 0 in every sample shown
  /// What the values shown are, where they are not the tensor's own: "magnitude of complex". Else empty.
  std::string shown_as;
};

/// What a derived copy counts in an account of bytes; overloads stand beside their types.
template <typename T>
int64_t held_bytes(const T&) {
  return static_cast<int64_t>(sizeof(T));
}
inline int64_t held_bytes(const std::vector<uint8_t>& bytes) { return static_cast<int64_t>(bytes.capacity()); }

/// Which View a picture shows.
enum class ViewKind {
  Live,  ///< what viewers see: with solo, page, zoom, pan and pause
  Film,  ///< the same without them
};

/// One rendered picture. Immutable once published; safe to read from any thread.
class Picture {
 public:
  uint64_t sequence = 0;                       ///< grows with every picture of a Beholder
  int64_t step = 0;                            ///< of the training, when the values were captured
  std::chrono::system_clock::time_point time;  ///< of the capture
  bool live = true;                            ///< shows the live view ...
  bool film = true;         ///< ... and/or the film's (both, as long as nobody uses solo, page, zoom, pan or pause)
  bool recoloured = false;  ///< the values of the picture before, with other colours or info: not for the film
  uint64_t revision = 0;    ///< of the settings that it shows
  Settings settings;

  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  ///< height x width x 3, row-major, R G B; no text

  std::shared_ptr<const Layout> layout;  ///< where things stand; layout->sections[i] belongs to sections[i]
  std::vector<SectionInfo> sections;
  /// Every section that these settings could show, in order: those of all pages, and all while one is shown alone.
  std::shared_ptr<const std::vector<std::string>> names;
  int history_size = 0;               ///< pictures in the variance window; 0 outside mode variance
  int64_t change_steps = 0;           ///< mode change: how many steps lie between the two pictures
  std::string message;                ///< not empty: there is nothing to show, and why ("no gradients yet: ...")
  std::string notice;                 ///< not empty: "collecting 1/15", "sampled to keep within 256 MiB"
  std::vector<uint8_t> colour_scale;  ///< 256 x 3, the colours from low to high, for a legend

  /// A copy made from this picture once for all who ask (with captions, encoded as PNG, ...): the first caller of a
  /// `key` makes it with `make`, others wait for it. The key is the address of something static of the maker.
  template <typename T>
  std::shared_ptr<const T> derived(const void* key, const std::function<std::shared_ptr<const T>()>& make) const {
    MutexLock lock(derived_mutex_);
    for (auto& entry : derived_) {
      if (entry.first == key) return std::static_pointer_cast<const T>(entry.second);
    }
    auto made = make();
    derived_.emplace_back(key, made);
    const int64_t bytes = held_bytes(*made);
    derived_bytes_ += bytes;
    if (account) account->fetch_add(bytes, std::memory_order_relaxed);
    return made;
  }

  /// Where the bytes of derived copies are counted while this picture lives; may be nullptr.
  std::shared_ptr<std::atomic<int64_t>> account;
  Picture() = default;
  Picture(const Picture&) = delete;
  Picture& operator=(const Picture&) = delete;
  ~Picture() {
    if (account) account->fetch_sub(derived_bytes_, std::memory_order_relaxed);
  }

  /// Bytes that a queue accounts for this picture.
  int64_t bytes() const { return static_cast<int64_t>(rgb.size()) + 4096; }

 private:
  mutable Mutex derived_mutex_;
  mutable int64_t derived_bytes_ = 0;  // guarded by derived_mutex_ until the end
  mutable std::vector<std::pair<const void*, std::shared_ptr<const void>>> derived_ BEHOLDER_GUARDED_BY(derived_mutex_);
};

}  // namespace beholder
