#include "beholder/callbacks/live_json.h"

#include <chrono>
#include <cmath>
#include <optional>
#include <stdexcept>

namespace beholder {
namespace {

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json number(const std::optional<double>& value) { return value ? number(*value) : Json(nullptr); }
Json rectangle(const Rect& r) { return Json::array({r.x, r.y, r.width, r.height}); }

double unix_seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

const char* name_of(Control::Type type) {
  switch (type) {
    case Control::Type::Choice: return "choice";
    case Control::Type::Switch: return "switch";
    case Control::Type::Number: return "number";
    case Control::Type::Text: return "text";
    case Control::Type::Action: return "action";
  }
  return "action";
}

std::string base64(const std::vector<uint8_t>& bytes) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = static_cast<uint32_t>(bytes[i]) << 16;
    if (i + 1 < bytes.size()) group |= static_cast<uint32_t>(bytes[i + 1]) << 8;
    if (i + 2 < bytes.size()) group |= bytes[i + 2];
    text += digits[group >> 18];
    text += digits[(group >> 12) & 63];
    text += i + 1 < bytes.size() ? digits[(group >> 6) & 63] : '=';
    text += i + 2 < bytes.size() ? digits[group & 63] : '=';
  }
  return text;
}

Json json_of(const SectionInfo& info, const Section* place) {
  Json json;
  json["name"] = info.name;
  json["kind"] = to_string(info.kind);
  json["shape"] = info.shape;
  json["dtype"] = info.dtype;
  json["device"] = info.device;
  json["shown_as"] = info.shown_as;
  json["area"] = rectangle(place ? place->area : Rect());
  json["caption"] = rectangle(place ? place->caption : Rect());
  json["caption_inline"] = place && place->caption_inline;
  json["picture"] = rectangle(place ? place->picture : Rect());
  json["reading"] = place ? place->reading : std::string();
  json["grid"] = place ? Json::array({place->grid.rows(), place->grid.columns()}) : Json::array({0, 0});
  const Statistics& s = info.statistics;
  json["min"] = number(s.min);
  json["max"] = number(s.max);
  json["mean"] = number(s.mean);
  json["std"] = number(s.std);
  json["count"] = s.count;
  json["zeros"] = s.zeros;
  json["nans"] = s.nans;
  json["infs"] = s.infs;
  json["beyond_float32"] = s.beyond;
  json["scale_low"] = number(info.scale_low);
  json["scale_high"] = number(info.scale_high);
  json["values_total"] = info.values_total;
  json["complete"] = info.complete;
  json["sampled"] = info.sampled;
  json["absent_since"] = info.absent_since ? Json(*info.absent_since) : Json();
  json["relative_change"] = number(info.relative_change);
  json["dead_share"] = number(info.dead_share);
  return json;
}

}  // namespace

Json json_of(const Settings& settings) {
  Json json = Json::object();
  for (const auto& control : controls()) {
    if (control.type == Control::Type::Action) continue;
    const std::string value = control.get(settings);
    switch (control.type) {
      case Control::Type::Switch: json[control.name] = value == "on"; break;
      case Control::Type::Number: json[control.name] = Json::parse(value); break;
      default: json[control.name] = value; break;
    }
  }
  return json;
}

Json json_of_controls() {
  Json table = Json::array();
  for (const auto& control : controls()) {
    Json row;
    row["keys"] = control.keys;
    row["bindings"] = Json::array();
    for (const auto& binding : control.bindings) {
      row["bindings"].push_back({{"key", binding.key}, {"direction", binding.direction}});
    }
    row["name"] = control.name;
    row["label"] = control.label;
    row["type"] = name_of(control.type);
    row["choices"] = control.choices;
    row["minimum"] = control.minimum;
    row["maximum"] = control.maximum;
    row["whole"] = control.whole;
    row["help"] = control.help;
    table.push_back(std::move(row));
  }
  return table;
}

Json json_of(const Picture& picture, uint64_t layout_id) {
  static const Layout none;
  const Layout& layout = picture.layout ? *picture.layout : none;
  Json json;
  json["sequence"] = picture.sequence;
  json["step"] = picture.step;
  json["time"] = unix_seconds(picture.time);
  json["width"] = picture.width;
  json["height"] = picture.height;
  json["layout_id"] = layout_id;
  json["layout"] = to_string(picture.settings.layout);
  json["page"] = layout.page;
  json["pages"] = layout.pages;
  json["first_section"] = layout.first_section;
  json["total_sections"] = layout.total_sections;
  json["message"] = picture.message;
  json["notice"] = picture.notice;
  json["history_size"] = picture.history_size;
  json["change_steps"] = picture.change_steps;
  json["settings"] = json_of(picture.settings);
  json["footer"] = rectangle(layout.footer);
  json["captions"] = layout.captions == CaptionDetail::Full   ? "full"
                     : layout.captions == CaptionDetail::Name ? "name"
                                                              : "none";
  json["colours"] = base64(picture.colour_scale);
  Json& sections = json["sections"] = Json::array();
  for (size_t i = 0; i < picture.sections.size(); ++i) {
    sections.push_back(json_of(picture.sections[i], i < layout.sections.size() ? &layout.sections[i] : nullptr));
  }
  return json;
}

Json json_of(const std::vector<RecordingFile>& recordings) {
  Json list = Json::array();
  for (const auto& film : recordings) {
    list.push_back({{"name", film.name}, {"bytes", film.bytes}, {"time", film.time}});
  }
  return list;
}

Json json_of(const LiveState& live, const LiveRun& run, const std::string& logdir, const std::string& directory) {
  const State& s = live.state;
  Json json;
  json["run"] = {{"logdir", logdir},   {"directory", directory}, {"pid", run.pid},
                 {"nonce", run.nonce}, {"started", run.started}, {"version", run.version}};
  json["revision"] = live.now.revision;
  json["settings"] = json_of(live.settings);
  json["defaults"] = json_of(live.defaults);
  json["controls"] = json_of_controls();
  json["waiting"] = live.waiting;
  json["ended"] = live.now.ended;
  json["picture"] = live.now.picture ? json_of(*live.now.picture, live.now.layout) : Json(nullptr);
  json["names"] = Json::array();
  if (live.now.picture && live.now.picture->names) json["names"] = *live.now.picture->names;
  Json& counters = json["counters"];
  counters["step"] = s.step;
  counters["updates"] = s.updates;
  counters["captured"] = s.captured;
  counters["dropped"] = s.dropped;
  counters["rendered"] = s.rendered;
  counters["errors"] = s.errors;
  counters["last_error"] = s.last_error;
  counters["fps_wished"] = number(s.fps_wished);
  counters["fps_real"] = number(s.fps_real);
  counters["overhead"] = number(s.overhead);
  counters["max_overhead"] = number(s.max_overhead);
  counters["background"] = number(s.background);
  counters["max_background"] = number(s.max_background);
  counters["update_seconds"] = number(s.update_seconds);
  counters["device_bytes"] = s.device_bytes;
  counters["max_device_bytes"] = s.max_device_bytes;
  counters["host_bytes"] = s.host_bytes;
  counters["max_host_bytes"] = s.max_host_bytes;
  counters["viewers"] = live.viewers;
  counters["max_viewers"] = live.max_viewers;
  counters["server_cpu"] = number(live.server_cpu);
  counters["max_server_cpu"] = number(live.max_server_cpu);
  Json& not_shown = json["not_shown"] = Json::array();
  for (const auto& [name, reason] : s.not_shown) not_shown.push_back({{"name", name}, {"reason", reason}});
  Json& callbacks = json["callbacks"] = Json::array();
  for (const auto& one : s.callbacks) {
    callbacks.push_back({{"name", one.name},
                         {"open", one.open},
                         {"shown", one.shown},
                         {"dropped", one.dropped},
                         {"errors", one.errors},
                         {"last_error", one.last_error},
                         {"queued_bytes", one.queued_bytes}});
  }
  json["recordings"] = json_of(live.recordings);
  return json;
}

std::vector<std::pair<std::string, std::string>> changes_of(const Json& posted) {
  if (!posted.is_object()) throw std::invalid_argument("expected a JSON object of settings, as in {\"fps\": 5}");
  std::vector<std::pair<std::string, std::string>> changes;
  for (const auto& [name, value] : posted.items()) {
    std::string text;
    if (value.is_string()) {
      text = value.get<std::string>();
    } else if (value.is_boolean()) {
      // A table that takes "on" where "true" is meant would take it for a text or a number too.
      const Control* control = find_control(name);
      const bool meant = !control || control->type == Control::Type::Switch;
      text = value.get<bool>() ? "on" : "off";
      if (!meant) throw std::invalid_argument(name + ": expected no boolean; found " + value.dump());
    } else if (value.is_number()) {
      text = value.dump();
    } else {
      throw std::invalid_argument((find_control(name) ? name : quoted(name)) +
                                  ": expected a text, a number or a boolean; found " + value.type_name());
    }
    changes.emplace_back(name, std::move(text));
  }
  return changes;
}

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json parse_posted(const std::string& body) {
  if (body.find_first_not_of(" \t\r\n") == std::string::npos) return Json::object();
  int depth = 0;
  const auto shallow = [&depth](int at, Json::parse_event_t, Json&) {
    depth = std::max(depth, at);
    return at < 8;  // deeper values are left out: nothing that is posted has any
  };
  Json json = Json::parse(body, shallow, false);
  if (json.is_discarded()) throw std::invalid_argument("expected JSON; found something else");
  if (depth >= 8) throw std::invalid_argument("expected a JSON object; found one that is nested too deep");
  return json;
}

}  // namespace beholder
