// What can be done with a picture: the one interface between the core and recorders, viewers and your own code.
// Each callback has a thread and a bounded queue of its own (dispatcher.h): it may be slow, throw or hang, and
// neither the training nor another callback notices.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "beholder/picture.h"
#include "beholder/settings.h"

namespace beholder {

struct State;

/// What a callback wants. ORed over all callbacks, so that nobody pays for what nobody asked.
struct Needs {
  bool film = false;       ///< pictures of the film's view; otherwise those of the live view
  bool statistics = true;  ///< SectionInfo::statistics beyond min and max
  /// Memory that it takes for itself to show a picture, in bytes for each pixel: counts in Options::max_host_bytes.
  int host_bytes_per_pixel = 0;
};

/// What happens when the queue is full.
enum class Overflow {
  DropOldest,  ///< the newest pictures are kept
  DropNewest,  ///< what is queued stays, the new picture is not taken
  KeepLatest,  ///< a queue of one: a viewer that always wants the newest
};
const char* to_string(Overflow overflow);

/// One value of a picture, as a viewer points at it.
struct ShownValue {
  size_t section = 0;          ///< index into Picture::sections
  std::vector<int64_t> index;  ///< of the element in its tensor
  /// What is shown there: the value (of a complex number the magnitude), its variance or its change. Of integers above
  /// 2^53 the nearest float64: `text` has all their digits. NaN where it is beyond float32 and not a float64.
  double value = 0;
  /// The value exactly, as the tensor's dtype has it: "9007199254740993", "1e+300", "true", "1+2i", "NaN", "-Inf". A
  /// variance or a change is a float32; "beyond float32" where it is none.
  std::string text;
};

/// What a callback learns when it is opened. Valid until close() has returned; any thread.
struct Run {
  std::string logdir;                         ///< as the user gave it, absolute
  std::string directory;                      ///< <logdir>/plugins/beholder, exists
  std::shared_ptr<SharedSettings> settings;   ///< may be changed by the callback
  std::function<State()> state;               ///< counters and budgets now
  int64_t max_host_bytes = int64_t{1} << 30;  ///< Options::max_host_bytes
  /// The newest picture of the live view, or nullptr: for viewers that come while nothing new is shown.
  std::function<std::shared_ptr<const Picture>()> last_picture;
  /// The value at a pixel of the newest live picture; nothing between sections, or when `sequence` is another
  /// picture's. Waits for the render thread, at most a quarter of a second.
  std::function<std::optional<ShownValue>(uint64_t sequence, int x, int y)> value_at;
  /// To be told of CPU time, in seconds, that threads of the callback's own have used (the thread that calls it is
  /// known): it is paid for from Options::max_background, by fewer pictures. May be called after close().
  std::function<void(double cpu_seconds)> bill;
};

/// Base of everything that receives pictures. open(), show() and close() run on the callback's own thread, one after
/// the other. An exception out of any of them is counted, logged once per text, and shown in the state.
class Callback {
 public:
  virtual ~Callback() = default;
  /// For log lines and the state.
  virtual std::string name() const = 0;
  virtual Needs needs() const { return {}; }
  virtual Overflow overflow() const { return Overflow::DropOldest; }
  /// Before the first picture. Throw to be disabled, with one log line.
  virtual void open(const Run&) {}
  /// A picture that is kept counts in Options::max_host_bytes: where those kept leave no room, no new ones are made.
  virtual void show(std::shared_ptr<const Picture>) {}
  /// Called exactly once after an open() that succeeded, when everything queued was shown.
  virtual void close() {}
};

}  // namespace beholder
