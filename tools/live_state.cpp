#include "tools/live_state.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace beholder::viewer {
namespace {

using nlohmann::json;

constexpr size_t kMaxSections = 100000;
constexpr int kMaxPixels = 1 << 20;  // of a coordinate

double number_or_nan(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

int64_t count(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

bool flag(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

std::string text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

/// An empty object or array where there is none.
const json& part(const json& object, const char* key) {
  static const json nothing;
  const auto found = object.find(key);
  return found != object.end() ? *found : nothing;
}

Rect rect(const json& object, const char* key) {
  const json& r = part(object, key);
  if (!r.is_array() || r.size() != 4) return {};
  int v[4];
  for (size_t i = 0; i < 4; ++i) {
    const double value = r[i].is_number() ? r[i].get<double>() : -1;
    if (!(value >= 0 && value <= kMaxPixels)) throw LiveStateError(std::string(key) + ": not a rectangle of a picture");
    v[i] = static_cast<int>(value);
  }
  return {v[0], v[1], v[2], v[3]};
}

/// Settings that this version does not know, or whose values it does not know, stay at their defaults.
Settings settings_of(const json& object) {
  Settings settings;
  for (const auto& control : controls()) {
    if (control.type == Control::Type::Action) continue;
    const json& value = part(object, control.name.c_str());
    std::string as_text;
    if (value.is_boolean()) {
      as_text = value.get<bool>() ? "on" : "off";
    } else if (value.is_number()) {
      as_text = value.dump();
    } else if (value.is_string()) {
      as_text = value.get<std::string>();
    } else {
      continue;
    }
    control.set(settings, as_text);
  }
  return settings;
}

Kind kind_of(const std::string& name) {
  for (const Kind kind : {Kind::Vector, Kind::LinearWeight, Kind::EmbeddingWeight, Kind::ConvWeight,
                          Kind::ConvTransposeWeight, Kind::OtherParameter, Kind::Activation, Kind::Frame}) {
    if (name == to_string(kind)) return kind;
  }
  return Kind::Array;
}

std::vector<uint8_t> from_base64(const std::string& encoded) {
  static const std::string kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes;
  uint32_t bits = 0;
  int held = 0;
  for (char c : encoded) {
    const auto digit = kAlphabet.find(c);
    if (digit == std::string::npos) break;  // padding
    bits = bits << 6 | static_cast<uint32_t>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes.push_back(static_cast<uint8_t>(bits >> held));
  }
  return bytes;
}

SectionInfo info_of(const json& object) {
  SectionInfo info;
  info.name = text(object, "name");
  info.kind = kind_of(text(object, "kind"));
  info.dtype = text(object, "dtype");
  info.device = text(object, "device");
  info.shown_as = text(object, "shown_as");
  for (const auto& n : part(object, "shape")) info.shape.push_back(n.is_number_integer() ? n.get<int64_t>() : 0);
  auto& s = info.statistics;
  s.min = number_or_nan(object, "min");
  s.max = number_or_nan(object, "max");
  s.mean = number_or_nan(object, "mean");
  s.std = number_or_nan(object, "std");
  s.count = count(object, "count");
  s.zeros = count(object, "zeros");
  s.nans = count(object, "nans");
  s.infs = count(object, "infs");
  s.beyond = count(object, "beyond_float32");
  info.scale_low = number_or_nan(object, "scale_low");
  info.scale_high = number_or_nan(object, "scale_high");
  info.values_total = count(object, "values_total");
  info.complete = flag(object, "complete");
  info.sampled = flag(object, "sampled");
  const double change = number_or_nan(object, "relative_change"), dead = number_or_nan(object, "dead_share");
  const auto absent = object.find("absent_since");
  if (absent != object.end() && absent->is_number_integer()) info.absent_since = absent->get<int64_t>();
  if (!std::isnan(change)) info.relative_change = change;
  if (!std::isnan(dead)) info.dead_share = dead;
  return info;
}

Section section_of(const json& object) {
  Section section;
  section.area = rect(object, "area");
  section.caption = rect(object, "caption");
  section.picture = rect(object, "picture");
  section.caption_inline = flag(object, "caption_inline");
  section.reading = text(object, "reading");
  section.complete = flag(object, "complete");
  section.sampled = flag(object, "sampled");
  // The grid's size alone: captions tell it.
  const json& grid = part(object, "grid");
  if (grid.is_array() && grid.size() == 2 && grid[0].is_number_integer() && grid[1].is_number_integer()) {
    const auto rows = grid[0].get<int64_t>(), columns = grid[1].get<int64_t>();
    if (rows > 0 && rows <= kMaxPixels && columns > 0 && columns <= kMaxPixels) {
      section.grid.row_position.resize(static_cast<size_t>(rows));
      section.grid.column_position.resize(static_cast<size_t>(columns));
    }
  }
  return section;
}

std::shared_ptr<const Picture> picture_of(const json& object) {
  auto picture = std::make_shared<Picture>();
  picture->sequence = static_cast<uint64_t>(count(object, "sequence"));
  picture->step = count(object, "step");
  const double time = number_or_nan(object, "time");
  if (time > 0 && time < 1e11) {
    picture->time = std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(std::chrono::duration<double>(time)));
  }
  picture->width = static_cast<int>(std::min<int64_t>(count(object, "width"), kMaxPixels));
  picture->height = static_cast<int>(std::min<int64_t>(count(object, "height"), kMaxPixels));
  picture->settings = settings_of(part(object, "settings"));
  picture->history_size = static_cast<int>(count(object, "history_size"));
  picture->change_steps = count(object, "change_steps");
  picture->message = text(object, "message");
  picture->notice = text(object, "notice");
  picture->colour_scale = from_base64(text(object, "colours"));
  auto layout = std::make_shared<Layout>();
  layout->width = picture->width;
  layout->height = picture->height;
  layout->footer = rect(object, "footer");
  layout->page = static_cast<int>(count(object, "page"));
  layout->pages = static_cast<int>(std::max<int64_t>(1, count(object, "pages")));
  layout->first_section = static_cast<size_t>(std::max<int64_t>(0, count(object, "first_section")));
  layout->total_sections = static_cast<size_t>(std::max<int64_t>(0, count(object, "total_sections")));
  layout->separators = text(object, "layout") == "classic" && layout->footer.height == 0;  // solo has a footer
  const json& sections = part(object, "sections");
  if (sections.size() > kMaxSections) throw LiveStateError("too many sections");
  const std::string captions = text(object, "captions");
  layout->captions = captions == "name"   ? CaptionDetail::Name
                     : captions == "none" ? CaptionDetail::None
                                          : CaptionDetail::Full;
  for (const auto& section : sections) {
    if (!section.is_object()) throw LiveStateError("sections: expected objects");
    layout->sections.push_back(section_of(section));
    picture->sections.push_back(info_of(section));
  }
  picture->layout = layout;
  return picture;
}

}  // namespace

LiveState parse_live_state(const std::string& body) try {
  const json object = json::parse(body);
  if (!object.is_object() || !part(object, "settings").is_object() || !part(object, "run").is_object()) {
    throw LiveStateError("expected the state of a live server with its run and its settings");
  }
  LiveState state;
  state.logdir = text(object["run"], "logdir");
  state.nonce = text(object["run"], "nonce");
  state.revision = static_cast<uint64_t>(count(object, "revision"));
  state.settings = settings_of(object["settings"]);
  state.waiting = flag(object, "waiting");
  state.ended = flag(object, "ended");
  for (const auto& name : part(object, "names")) {
    if (name.is_string() && state.names.size() < kMaxSections) state.names.push_back(name.get<std::string>());
  }
  const json& counters = part(object, "counters");
  state.fps_wished = number_or_nan(counters, "fps_wished");
  state.fps_real = number_or_nan(counters, "fps_real");
  state.step = count(counters, "step");
  state.updates = count(counters, "updates");
  state.dropped = count(counters, "dropped");
  const json& picture = part(object, "picture");
  if (picture.is_object()) {
    state.picture = picture_of(picture);
    state.picture_layout = static_cast<uint64_t>(count(picture, "layout_id"));
  }
  return state;
} catch (const json::exception& error) {
  throw LiveStateError(error.what());
}

}  // namespace beholder::viewer
