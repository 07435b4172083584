// What the key of a control does, as a pure function on Settings: the server applies it, so that all viewers agree.
// Internal; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "beholder/settings.h"

namespace beholder {

/// One press of a key.
struct KeyAction {
  std::string control;                 ///< wire name of the table's row
  int direction = 1;                   ///< 1: the control's first sign, -1: its second
  std::optional<std::string> section;  ///< solo_toggle: which; else the last one
  int dx = 0, dy = 0;                  ///< pan: -1, 0 or 1 each
};

/// What there is to act on: of the newest picture, and of the run.
struct ActionContext {
  std::vector<std::string> names;  ///< every section that could be shown, in order; empty = not known yet
  int pages = 1;
  std::string last_solo;  ///< the section that was alone last; empty = none yet
  Settings defaults;      ///< what a reset returns to
};

/// Does what the key does and returns an empty text, or says what is wrong, `settings` unchanged. A key that means
/// nothing now (pan while all sections are shown) is right and changes nothing. Not for help and quit, which are the
/// viewer's own, and not for snapshot, which changes no setting.
std::string apply(const KeyAction& action, const ActionContext& context, Settings& settings);

}  // namespace beholder
