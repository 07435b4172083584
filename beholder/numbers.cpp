#include "beholder/numbers.h"

#include <charconv>
#include <cmath>
#include <system_error>

namespace beholder {
namespace {

std::string text_of(double value, std::chars_format format, int digits) {
  char text[400];  // the largest double has 309 digits before the point
  const auto end = std::to_chars(text, text + sizeof text, value, format, digits);
  return end.ec == std::errc() ? std::string(text, end.ptr) : number_text(value);
}

}  // namespace

std::string number_text(double value) {
  char text[32];
  const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
  const auto end = whole ? std::to_chars(text, text + sizeof text, static_cast<int64_t>(value))
                         : std::to_chars(text, text + sizeof text, value);
  return std::string(text, end.ptr);
}

std::string fixed_text(double value, int digits) { return text_of(value, std::chars_format::fixed, digits); }
std::string general_text(double value, int digits) { return text_of(value, std::chars_format::general, digits); }
std::string scientific_text(double value, int digits) { return text_of(value, std::chars_format::scientific, digits); }

double number_of(const std::string& text) {
  double value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  return end.ec == std::errc() && end.ptr == text.data() + text.size() ? value : NAN;
}

}  // namespace beholder
