// What any settings must satisfy that a request was allowed to make.
#pragma once

#include <string>

#include "beholder/settings.h"
#include "fuzz.h"

namespace beholder {

/// Each setting accepts what it says of itself, and is the same after that.
inline void check_ranges(const Settings& settings) {
  for (const auto& control : controls()) {
    if (control.type == Control::Type::Action) continue;
    Settings same = settings;
    const std::string wrong = control.set(same, control.get(settings));
    if (!wrong.empty()) fuzz::found(wrong);
    if (same != settings) fuzz::found(control.name + " is another one when it is set to what it says");
  }
}

}  // namespace beholder
