// The README's table of controls is the Controls table: one row each, in its order.
#include <fstream>
#include <sstream>
#include <string>

#include "beholder/settings.h"
#include "catch.h"

namespace {

std::string range_of(const beholder::Control& control) {
  using Type = beholder::Control::Type;
  std::ostringstream text;
  if (control.type == Type::Choice || control.type == Type::Switch) {
    for (const auto& choice : control.choices) text << (&choice == &control.choices[0] ? "" : ", ") << choice;
  } else if (control.type == Type::Number) {
    text << control.minimum << ".." << control.maximum;
  } else if (control.type == Type::Text) {
    text << "text";
  }
  return text.str();
}

std::string row_of(const beholder::Control& control) {
  const std::string keys = control.keys.empty() ? "" : "`" + control.keys + "`";
  return "| " + keys + " | " + control.name + " | " + range_of(control) + " | " + control.get({}) + " | " +
         control.help + " |";
}

}  // namespace

TEST_CASE("the README lists every control as the program knows it") {
  std::ifstream file(BEHOLDER_SOURCE_DIR "/README.md");
  std::stringstream text;
  text << file.rdbuf();
  std::string table;
  for (const auto& control : beholder::controls()) table += row_of(control) + "\n";
  INFO("expected in README.md:\n" << table);
  REQUIRE(text.str().find(table) != std::string::npos);
}
