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
  /// CPU time of Beholder's own threads, as a share of one core, above 0 to 64. A promise like max_overhead. Where the
  /// training's own threads take every core, an eighth of it is used.
  double max_background = 0.15;
  /// Memory for staging, history and rendering on one device, in bytes, at least 1 MiB. Beyond it sections are
  /// sampled, and the caption says so.
  int64_t max_device_bytes = int64_t{256} << 20;
  /// The same for host memory: pictures and all copies of them (queues, captions, what viewers get, the encoder of a
  /// film) included. The canvas takes 61 bytes for each pixel of it, at most seven eighths: see host_shares().
  int64_t max_host_bytes = int64_t{1} << 30;
  /// What is shown at first, and what a reset returns to.
  Settings settings;
};

/// Throws std::invalid_argument with what was expected, what was found and what to change.
void check(const Options& options);

/// What a picture costs in host memory where it is recorded and watched, in bytes for each of its pixels.
struct HostBytesPerPixel {
  static constexpr int kPicture = 3;
  static constexpr int kPictures = 5 * kPicture;  ///< two that are made, the last one, the film's, the viewers'
  static constexpr int kCopies = 4 * kPicture;    ///< with the film's captions, with labels, encoded with and without
  static constexpr int kEncoder = 22;             ///< of a film: libx264 (measured: 18.5, and 21.7 for odd sides)
  static constexpr int kViewers = 4 * kPicture;   ///< while a form is made for viewers, and while a snapshot is
  static constexpr int kAll = kPictures + kCopies + kEncoder + kViewers;
};

/// How max_host_bytes is divided.
struct HostShares {
  int64_t canvas = 0;  ///< pictures as large as the canvas, recorded and watched
  int64_t values = 0;  ///< staging, values and history of what is shown, at most
  int64_t queues = 0;  ///< pictures that wait for one callback, at most
};
/// Of any options; those whose canvas does not fit leave little for the others.
HostShares host_shares(const Options& options);
/// Throws std::invalid_argument, with the arithmetic and what to change, where the canvas does not fit.
void check_host_bytes(const Options& options);

}  // namespace beholder
