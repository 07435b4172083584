// Whether this process can show windows. Asked before a toolkit is started, because toolkits abort the process where
// the display is missing. Plain functions; any thread.
#pragma once

#include <string>

namespace beholder {

/// True where the environment names a display (DISPLAY or WAYLAND_DISPLAY). Nothing is connected to.
bool names_a_display();
/// Empty where the display that the environment names takes connections; else why there is none, in one line. Waits at
/// most two seconds for a display on another machine.
std::string display_problem();

}  // namespace beholder
