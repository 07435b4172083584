// Numbers as text and back, the same in every locale: toolkits and users set one (setlocale, std::locale::global), and
// a decimal comma in JSON, an index or a caption is an error. The one place for it: tests/lint.sh.
#pragma once

#include <cstdint>
#include <locale>
#include <sstream>
#include <string>

namespace beholder {

/// The shortest text that is read as this number again; "nan", "inf".
std::string number_text(double value);
/// With so many digits after the point, as printf's f; in all, as g; after the point of a power of ten, as e.
std::string fixed_text(double value, int digits);
std::string general_text(double value, int digits);
std::string scientific_text(double value, int digits);
/// NaN where `text` is not a number and nothing else.
double number_of(const std::string& text);

/// For what has no other text than by operator<<.
class PlainStream : public std::ostringstream {
 public:
  PlainStream() { imbue(std::locale::classic()); }
};

}  // namespace beholder
