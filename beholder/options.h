// What is fixed at construction. (What can change while training runs: settings.h.)
#pragma once

#include <cstdint>
#include <string>

#include "beholder/settings.h"

namespace beholder {

struct Options {
  /// Size of the fit layout's canvas in pixels, 64..8192 each.
  int canvas_width = 1280, canvas_height = 720;
  /// Share of the training thread's time that Beholder may take, above 0 to 1. A promise: FPS falls to keep it.
  double max_overhead = 0.02;
  /// CPU time of Beholder's own threads, as a share of one core, above 0 to 64. A promise like max_overhead.
  double max_background = 0.15;
  /// Memory for staging, history and rendering on one device, in bytes, at least 1 MiB. Beyond it sections are
  /// sampled, and the caption says so.
  int64_t max_device_bytes = int64_t{256} << 20;
  /// The same for host memory, queues of callbacks included.
  int64_t max_host_bytes = int64_t{1} << 30;
  /// What is shown at first, and what a reset returns to.
  Settings settings;
};

/// Throws std::invalid_argument with what was expected, what was found and what to change.
void check(const Options& options);

}  // namespace beholder
