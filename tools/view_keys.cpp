#include "tools/view_keys.h"

namespace beholder::viewer {
namespace {

// GTK puts the state of the modifiers above the 16 bits of the X11 key symbol: 1 shift, 2 caps lock, 4 Ctrl, 8 Alt,
// 16 num lock, ... Qt gives the symbol, or a lower-case character, alone.
constexpr int kSymbol = 0xffff, kControlOrAlt = 0xc0000;

std::string special_key(int symbol) {
  switch (symbol) {
    case 0x20:
    case 0xff80: return "space";  // the second is the keypad's, here and below
    case 0x1b:
    case 0xff1b: return "Esc";
    case 0xff51:
    case 0xff96: return "left";
    case 0xff52:
    case 0xff97: return "up";
    case 0xff53:
    case 0xff98: return "right";
    case 0xff54:
    case 0xff99: return "down";
    case 0xffab: return "+";
    case 0xffad: return "-";
    default: return "";
  }
}

}  // namespace

std::string key_name(int code) {
  if (code < 0 || (code & kControlOrAlt) != 0) return "";
  const int symbol = code & kSymbol;
  const std::string special = special_key(symbol);
  if (!special.empty()) return special;
  if (symbol <= 0x20 || symbol >= 0x7f) return "";
  const bool upper = symbol >= 'A' && symbol <= 'Z';
  return std::string(1, static_cast<char>(upper ? symbol - 'A' + 'a' : symbol));
}

KeyAction action_of_key(const std::string& name) {
  if (name.empty()) return {};
  for (const auto& control : controls()) {
    for (const auto& binding : control.bindings) {
      if (binding.key == name) return {&control, binding.direction};
    }
  }
  return {};
}

}  // namespace beholder::viewer
