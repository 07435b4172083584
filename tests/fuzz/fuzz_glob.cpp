// Fuzzes the filter on tensor names: "FILTER\nNAME". It agrees with the plainest definition of a glob, and its time
// grows with the product of the lengths, not faster.
#include <algorithm>
#include <string>
#include <vector>

#include "beholder/settings.h"
#include "fuzz.h"

namespace {

/// Whether glob[g..] matches name[n..], for all g and n from the ends on.
bool matches_by_definition(const std::string& glob, const std::string& name) {
  const size_t width = name.size() + 1;
  std::vector<char> matches((glob.size() + 1) * width, 0);
  const auto at = [&](size_t g, size_t n) -> char& { return matches[g * width + n]; };
  at(glob.size(), name.size()) = 1;
  for (size_t g = glob.size(); g-- > 0;) {
    for (size_t n = name.size() + 1; n-- > 0;) {
      if (glob[g] == '*') {
        at(g, n) = at(g + 1, n) || (n < name.size() && at(g, n + 1));
      } else if (n < name.size() && (glob[g] == '?' || glob[g] == name[n])) {
        at(g, n) = at(g + 1, n + 1);
      }
    }
  }
  return at(0, 0);
}

std::string without_blanks(std::string text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.back())) text.pop_back();
  text.erase(text.begin(), std::find_if_not(text.begin(), text.end(), blank));
  return text;
}

bool passes_by_definition(const std::string& filter, const std::string& name) {
  std::vector<std::string> globs(1);
  for (const char c : filter) {
    if (c == ',') {
      globs.emplace_back();
    } else {
      globs.back() += c;
    }
  }
  bool asked = false, wanted = false;
  for (std::string glob : globs) {
    glob = without_blanks(glob);
    if (glob.empty()) continue;
    if (glob[0] == '!') {
      if (matches_by_definition(without_blanks(glob.substr(1)), name)) return false;
    } else {
      asked = true;
      wanted = wanted || matches_by_definition(glob, name);
    }
  }
  return wanted || !asked;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t line = std::min(text.find('\n'), text.size());
  const std::string filter = text.substr(0, std::min<size_t>(line, 1000));  // settings take no more
  const std::string name = line < text.size() ? text.substr(line + 1) : std::string();

  if (filter.size() * name.size() < 200'000 &&
      beholder::matches_filter(filter, name) != passes_by_definition(filter, name)) {
    fuzz::found("the filter '" + filter + "' and the name '" + name + "'");
  }

  // The same on a name that is long enough for an explosion to be seen.
  if (name.empty()) return 0;
  std::string longer;
  while (longer.size() < 1000) longer += name;
  longer += '\n';
  const double before = fuzz::cpu_seconds();
  fuzz::start_counting();
  beholder::matches_filter(filter, longer);
  fuzz::expect_at_most(4096 + 16 * static_cast<int64_t>(filter.size()));
  const double allowed = 0.02 + 200e-9 * static_cast<double>(filter.size() * longer.size());
  const double used = fuzz::cpu_seconds() - before;
  if (used > allowed) fuzz::found(std::to_string(used) + " s for a filter of " + std::to_string(filter.size()));
  return 0;
}
