// What Beholder knows about itself: counters, budgets, and what could not be shown. A value, made on request.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace beholder {

/// One callback's counters.
struct CallbackState {
  std::string name;
  bool open = false;    ///< open() succeeded and close() was not called
  int64_t shown = 0;    ///< pictures that show() finished
  int64_t dropped = 0;  ///< pictures that its queue did not keep
  int64_t errors = 0;   ///< exceptions out of it
  std::string last_error;
  int64_t queued_bytes = 0;
};

struct State {
  int64_t step = 0;       ///< of the last update()
  int64_t updates = 0;    ///< calls of update()
  int64_t captured = 0;   ///< updates whose values were gathered
  int64_t dropped = 0;    ///< due updates without a picture: no free slot, or the plan was not true any more
  int64_t in_graphs = 0;  ///< due updates, outputs and taps that came while a graph was recorded, and did nothing
  int64_t rendered = 0;   ///< pictures
  int64_t errors = 0;     ///< failures inside update() and the render thread, each logged once per text
  std::string last_error;
  double fps_wished = 0, fps_real = 0;
  double overhead = 0;  ///< share of the training thread's time, measured
  double max_overhead = 0;
  double background = 0;  ///< CPU time of our threads, as a share of one core, measured
  double max_background = 0;
  double update_seconds = 0;  ///< moving average of a due update(), hooks included
  int64_t device_bytes = 0, max_device_bytes = 0;
  int64_t host_bytes = 0, max_host_bytes = 0;  ///< with pictures, copies of them, and what callbacks say they need
  bool waiting_for_update = false;             ///< the settings ask for values that the next update() will bring
  /// Tensors that cannot be shown, and why: (name, "empty"), (name, "meta tensor"), ...
  std::vector<std::pair<std::string, std::string>> not_shown;
  std::vector<CallbackState> callbacks;
};

}  // namespace beholder
