// What a key of the keyboard means: the codes of OpenCV's windows, which differ between Qt, GTK and X11 and carry
// modifier bits, to the key names of the table of controls (KeyBinding::key). Pure; no window.
#pragma once

#include <string>

#include "beholder/settings.h"

namespace beholder::viewer {

/// The table's name of the key with this code (of cv::waitKeyEx()): a lower-case character, "space", "Esc", "left",
/// "right", "up", "down". Empty for no key (-1), for what has no name there, and together with Ctrl or Alt.
std::string key_name(int code);

/// What a key does.
struct KeyAction {
  const Control* control = nullptr;  ///< nullptr: nothing
  int direction = 1;                 ///< of its KeyBinding
};
KeyAction action_of_key(const std::string& name);

}  // namespace beholder::viewer
