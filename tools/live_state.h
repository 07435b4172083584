// What a live server says about itself (GET /state), read into the core's own types, so that a viewer draws with the
// same code as the films. Nothing in it is trusted: wrong types and absurd numbers are errors, not pictures. Pure.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "beholder/picture.h"
#include "beholder/settings.h"

namespace beholder::viewer {

/// A text that is not a state; one line.
class LiveStateError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Immutable once read.
struct LiveState {
  std::string logdir, nonce;
  uint64_t revision = 0;
  Settings settings;            ///< those that are wished
  bool waiting = false;         ///< for values that the next update() brings
  bool ended = false;           ///< the run is over, and its server about to be
  uint64_t picture_layout = 0;  ///< of `picture`: another number where sections stand elsewhere; 0 = no picture
  std::shared_ptr<const Picture> picture;  ///< the newest one without its pixels (rgb is empty); may be nullptr
  std::vector<std::string> names;          ///< every section that could be shown
  double fps_wished = 0, fps_real = 0;
  int64_t step = 0, updates = 0, dropped = 0;
};

/// Throws LiveStateError.
LiveState parse_live_state(const std::string& json);

}  // namespace beholder::viewer
