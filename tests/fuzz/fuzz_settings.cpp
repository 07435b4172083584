// Fuzzes settings as viewers post them: JSON, names, texts, numbers. A refused post changes nothing and says why in one
// line; an accepted one keeps the table's ranges, and what the state then shows is, posted again, the same settings.
#include <stdexcept>
#include <string>

#include "beholder/callbacks/live_json.h"
#include "beholder/settings.h"
#include "fuzz.h"
#include "settings_checks.h"

using namespace beholder;

namespace {

/// As POST /settings does it; what is wrong, or an empty text.
std::string post(SharedSettings& settings, const std::string& body) {
  try {
    return settings.set_by_name(changes_of(parse_posted(body)));
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string body(reinterpret_cast<const char*>(data), size);
  SharedSettings settings;
  const auto [before, revision] = settings.snapshot();
  fuzz::start_counting();
  const std::string wrong = post(settings, body);
  fuzz::expect_at_most((1 << 16) + 64 * static_cast<int64_t>(size));
  if (!wrong.empty()) {
    if (!fuzz::is_one_line(wrong)) fuzz::found("more than a line: " + wrong);
    fuzz::expect(settings.get() == before, "a refused post changed a setting");
    fuzz::expect(settings.revision() == revision, "a refused post changed the revision");
    dump(Json{{"error", wrong}});
    return 0;
  }
  const Settings after = settings.get();
  fuzz::expect((settings.revision() != revision) == (after != before), "the revision does not tell of the change");
  check_ranges(after);

  SharedSettings again;
  const std::string shown = dump(json_of(after));
  const std::string refused = post(again, shown);
  if (!refused.empty()) fuzz::found("what is shown is refused: " + refused);
  if (again.get() != after) fuzz::found("what is shown is not what is set: " + shown);
  return 0;
}
