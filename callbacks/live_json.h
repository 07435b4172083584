// Settings, controls, pictures and the state as the JSON that viewers read. Internal; any thread. (The one header of
// the live server that shows the JSON library; included by .cpp files alone.)
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "beholder/callbacks/live_file.h"
#include "beholder/callbacks/live_view.h"
#include "beholder/picture.h"
#include "beholder/settings.h"
#include "beholder/state.h"

namespace beholder {

using Json = nlohmann::ordered_json;

/// Every control that is not an action: numbers as numbers, switches as booleans, the others as text.
Json json_of(const Settings& settings);
/// The table of controls, in its order.
Json json_of_controls();
/// What is known about a picture and its sections; no pixels. NaN and infinities are null.
Json json_of(const Picture& picture, uint64_t layout);
Json json_of(const std::vector<RecordingFile>& recordings);

/// What the whole state is made of.
struct LiveState {
  LiveView::Now now;
  bool waiting = false;
  Settings settings, defaults;
  State state;
  std::vector<RecordingFile> recordings;
  int viewers = 0, max_viewers = 0;
  double server_cpu = 0, max_server_cpu = 0;  ///< CPU time of the server's threads, as a share of one core
};
Json json_of(const LiveState& state, const LiveRun& run, const std::string& logdir, const std::string& directory);

/// The changes that a posted object asks for, as names and texts for SharedSettings::set_by_name(). Throws
/// std::invalid_argument with one line where it is no object, or a value cannot be meant.
std::vector<std::pair<std::string, std::string>> changes_of(const Json& posted);

/// As text: bytes that are no UTF-8 (names of tensors, filters) are replaced.
std::string dump(const Json& json);
/// Throws std::invalid_argument with one line. Nothing at all is an empty object.
Json parse_posted(const std::string& body);

}  // namespace beholder
