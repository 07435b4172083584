#include "beholder/callbacks/live_actions.h"

#include <algorithm>

namespace beholder {
namespace {

/// A step of panning, as a share of what is visible, and at most this share of what is hidden.
constexpr double kPanOfVisible = 0.25, kPanOfHidden = 0.1;

void show_whole_section(Settings& s) {
  s.zoom = 1;
  s.pan_x = s.pan_y = 0;
}

void next_section(Settings& s, const std::vector<std::string>& names, int direction) {
  if (names.empty()) return;
  const auto found = std::find(names.begin(), names.end(), s.solo);
  const auto count = static_cast<std::ptrdiff_t>(names.size());
  const std::ptrdiff_t next =
      found == names.end() ? (direction > 0 ? 0 : count - 1) : ((found - names.begin()) + direction + count) % count;
  if (names[next] == s.solo) return;
  s.solo = names[next];
  show_whole_section(s);
}

std::string toggle_solo(const KeyAction& action, const ActionContext& context, Settings& s) {
  const auto known = [&](const std::string& name) {
    return std::find(context.names.begin(), context.names.end(), name) != context.names.end();
  };
  std::string wanted;
  if (action.section) {
    wanted = *action.section;
    if (!known(wanted)) {
      return "section: expected one of /state's names; found " + quoted(wanted);
    }
  }
  if (!s.solo.empty() && (wanted.empty() || wanted == s.solo)) {
    s.solo.clear();
    show_whole_section(s);
    return {};
  }
  if (wanted.empty()) {
    if (known(context.last_solo)) {
      wanted = context.last_solo;
    } else if (!context.names.empty()) {
      wanted = context.names.front();
    } else {
      return "solo_toggle: there is no section yet";
    }
  }
  s.solo = wanted;
  show_whole_section(s);
  return {};
}

double panned(double pan, int direction, double zoom) {
  const double step = zoom > 1 ? std::min(kPanOfHidden, kPanOfVisible / (zoom - 1)) : kPanOfHidden;
  return std::clamp(pan + direction * step, 0.0, 1.0);
}

/// The pan that keeps the middle of the visible part where it is.
double zoomed_pan(double pan, double from, double to) {
  if (to <= 1) return 0;
  const double middle = pan * (1 - 1 / from) + 0.5 / from;
  return std::clamp((middle - 0.5 / to) / (1 - 1 / to), 0.0, 1.0);
}

}  // namespace

std::string apply(const KeyAction& action, const ActionContext& context, Settings& s) {
  const Control* control = find_control(action.control);
  if (!control || action.control == "help" || action.control == "quit" || control->type == Control::Type::Text) {
    std::string known;
    for (const auto& one : controls()) {
      if (one.name == "help" || one.name == "quit" || one.type == Control::Type::Text) continue;
      known += (known.empty() ? "" : ", ") + one.name;
    }
    return "control: expected one of " + known + "; found " + quoted(action.control);
  }
  if (action.direction != 1 && action.direction != -1) {
    return "direction: expected 1 or -1; found " + std::to_string(action.direction);
  }
  if (action.control == "next") {
    if (!s.solo.empty()) {
      next_section(s, context.names, action.direction);
    } else {
      const int last = std::max(0, context.pages - 1);
      s.page = std::clamp(std::min(s.page, last) + action.direction, 0, last);
    }
    return {};
  }
  if (action.control == "solo_toggle") return toggle_solo(action, context, s);
  if (action.control == "pan") {
    if (std::abs(action.dx) > 1 || std::abs(action.dy) > 1) return "pan: expected dx and dy of -1, 0 or 1";
    if (s.solo.empty()) return {};
    s.pan_x = panned(s.pan_x, action.dx, s.zoom);
    s.pan_y = panned(s.pan_y, action.dy, s.zoom);
    return {};
  }
  if (action.control == "zoom") {
    if (s.solo.empty()) return {};
    const double before = s.zoom;
    control->step(s, action.direction);
    s.pan_x = zoomed_pan(s.pan_x, before, s.zoom);
    s.pan_y = zoomed_pan(s.pan_y, before, s.zoom);
    return {};
  }
  if (action.control == "reset") {
    s = context.defaults;
    return {};
  }
  control->step(s, action.direction);
  return {};
}

}  // namespace beholder
