#include "beholder/settings.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <set>
#include <sstream>
#include <tuple>

#include "beholder/numbers.h"

namespace beholder {
namespace {

auto tied(const Settings& s) {
  return std::tie(s.values, s.mode, s.window_size, s.scaling, s.show_all, s.layout, s.colormap, s.fps, s.recording,
                  s.info, s.filter, s.paused, s.solo, s.page, s.zoom, s.pan_x, s.pan_y);
}

/// Enumerations in the order of their numbers, by the names of to_string().
template <typename Enum>
Control choice(std::string keys, std::string name, std::string label, std::vector<std::string> choices,
               Enum Settings::*member, std::string help) {
  Control c;
  c.keys = std::move(keys);
  c.name = std::move(name);
  c.label = std::move(label);
  c.type = Control::Type::Choice;
  c.choices = choices;
  c.help = std::move(help);
  c.get = [member](const Settings& s) { return std::string(to_string(s.*member)); };
  c.set = [member, choices, wire = c.name](Settings& s, const std::string& text) -> std::string {
    for (size_t i = 0; i < choices.size(); ++i) {
      if (choices[i] != text) continue;
      s.*member = static_cast<Enum>(i);
      return {};
    }
    std::string allowed;
    for (const auto& one : choices) allowed += (allowed.empty() ? "" : ", ") + one;
    return wire + ": expected one of " + allowed + "; found " + quoted(text);
  };
  c.step = [member, n = static_cast<int>(choices.size())](Settings& s, int direction) {
    s.*member = static_cast<Enum>((static_cast<int>(s.*member) + direction % n + n) % n);
  };
  return c;
}

Control on_off(std::string keys, std::string name, std::string label, bool Settings::*member, std::string help) {
  Control c;
  c.keys = std::move(keys);
  c.name = std::move(name);
  c.label = std::move(label);
  c.type = Control::Type::Switch;
  c.choices = {"off", "on"};
  c.help = std::move(help);
  c.get = [member](const Settings& s) { return std::string(s.*member ? "on" : "off"); };
  c.set = [member, wire = c.name](Settings& s, const std::string& text) -> std::string {
    if (text == "on" || text == "true" || text == "1") {
      s.*member = true;
    } else if (text == "off" || text == "false" || text == "0") {
      s.*member = false;
    } else {
      return wire + ": expected on or off; found " + quoted(text);
    }
    return {};
  };
  c.step = [member](Settings& s, int) { s.*member = !(s.*member); };
  return c;
}

template <typename Number>
Control number(std::string keys, std::string name, std::string label, double minimum, double maximum,
               Number Settings::*member, std::function<double(double, int)> next, std::string help) {
  Control c;
  c.keys = std::move(keys);
  c.name = std::move(name);
  c.label = std::move(label);
  c.type = Control::Type::Number;
  c.minimum = minimum;
  c.maximum = maximum;
  c.whole = std::is_integral<Number>::value;
  c.help = std::move(help);
  c.get = [member](const Settings& s) { return number_text(static_cast<double>(s.*member)); };
  c.set = [member, minimum, maximum, wire = c.name](Settings& s, const std::string& text) -> std::string {
    const double value = number_of(text);
    const bool whole = std::is_integral<Number>::value;
    // !(>=) instead of <: NaN is refused as well.
    if (!(value >= minimum) || !(value <= maximum) || (whole && value != std::floor(value))) {
      return wire + ": expected a " + (whole ? "whole " : "") + "number from " + number_text(minimum) + " to " +
             number_text(maximum) + "; found " + quoted(text);
    }
    s.*member = static_cast<Number>(value);
    return {};
  };
  c.step = [member, minimum, maximum, next](Settings& s, int direction) {
    s.*member = static_cast<Number>(std::clamp(next(static_cast<double>(s.*member), direction), minimum, maximum));
  };
  return c;
}

Control text(std::string name, std::string label, std::string Settings::*member, std::string help) {
  Control c;
  c.name = std::move(name);
  c.label = std::move(label);
  c.type = Control::Type::Text;
  c.maximum = 1000;  // characters
  c.help = std::move(help);
  c.get = [member](const Settings& s) { return s.*member; };
  c.set = [member, wire = c.name](Settings& s, const std::string& value) -> std::string {
    if (value.size() > 1000) {
      return wire + ": expected at most 1000 characters; found " + std::to_string(value.size());
    }
    for (unsigned char character : value) {
      if (character < 0x20) return wire + ": expected text without control characters";
    }
    s.*member = value;
    return {};
  };
  c.step = [](Settings&, int) {};
  return c;
}

Control action(std::string keys, std::string name, std::string label, std::string help) {
  Control c;
  c.keys = std::move(keys);
  c.name = std::move(name);
  c.label = std::move(label);
  c.type = Control::Type::Action;
  c.help = std::move(help);
  c.get = [](const Settings&) { return std::string(); };
  c.set = [wire = c.name](Settings&, const std::string&) { return wire + ": an action, not a setting"; };
  c.step = [](Settings&, int) {};
  return c;
}

/// "[ ]" as [ (-1) and ] (+1).
std::vector<KeyBinding> bindings_of(const std::string& keys) {
  static const std::set<std::string> kBackwards = {"[", "-", "p", "<"};
  static const std::vector<std::pair<std::string, std::string>> kSharedKeys = {
      {"+", "="}, {"-", "_"}, {"<", ","}, {">", "."}, {"h", "?"}};
  if (keys == "arrows") return {{"left", -1}, {"right", 1}, {"up", -1}, {"down", 1}};
  std::vector<KeyBinding> bindings;
  std::istringstream each(keys);
  for (std::string key; each >> key;) {
    const int direction = kBackwards.count(key) > 0 ? -1 : 1;
    bindings.push_back({key, direction});
    for (const auto& [main, shared] : kSharedKeys) {
      if (key == main) bindings.push_back({shared, direction});
    }
  }
  return bindings;
}

/// 0.5 steps below 1 (and down to 0), steps of 1 up to 30, of 5 above.
double next_fps(double fps, int direction) {
  if (direction > 0) return fps < 1 ? fps + 0.5 : fps < 30 ? fps + 1 : fps + 5;
  return fps <= 1 ? fps - 0.5 : fps <= 30 ? fps - 1 : fps - 5;
}

std::vector<Control> make_controls() {
  const auto by_one = [](double value, int direction) { return value + direction; };
  const auto by_half = [](double value, int direction) { return direction > 0 ? value * 1.5 : value / 1.5; };
  const auto by_tenth = [](double value, int direction) { return value + 0.1 * direction; };
  std::vector<Control> table;
  table.push_back(choice("v", "values", "values",
                         {"parameters", "gradients", "activations", "buffers", "optimizer", "arrays", "frame"},
                         &Settings::values, "what is shown"));
  table.push_back(choice("m", "mode", "mode", {"current", "variance", "change"}, &Settings::mode,
                         "values now, their variance over the window, or their change"));
  table.push_back(number("[ ]", "window_size", "window size", 2, 20, &Settings::window_size, by_one,
                         "pictures in the variance window"));
  table.push_back(choice("s", "scaling", "scaling", {"section", "all", "zero-centred"}, &Settings::scaling,
                         "range of the colours: of each section, of all, or symmetric around 0"));
  table.push_back(on_off("a", "show_all", "show all", &Settings::show_all,
                         "all values, or a regular sample of the whole instead of the top-left part"));
  table.push_back(choice("l", "layout", "layout", {"fit", "classic"}, &Settings::layout,
                         "several columns on a fixed canvas, or the original's single column"));
  table.push_back(choice("c", "colormap", "colormap", {"magma", "inferno", "plasma", "viridis", "gray", "diverging"},
                         &Settings::colormap, "colours from low to high"));
  table.push_back(
      number("+ -", "fps", "FPS", 0, 60, &Settings::fps, next_fps, "pictures per second wished; 0 shows nothing new"));
  table.push_back(on_off("space", "paused", "pause", &Settings::paused, "hold the live picture; the film goes on"));
  table.push_back(on_off("r", "recording", "record", &Settings::recording, "write the film"));
  table.push_back(action("n p", "next", "next / previous", "next or previous section in solo, else page"));
  table.push_back(action("z", "solo_toggle", "solo", "one section fills the canvas, and back"));
  table.push_back(number("< >", "zoom", "zoom", 1, 64, &Settings::zoom, by_half, "closer in solo"));
  table.push_back(action("arrows", "pan", "pan", "move in solo"));
  table.push_back(on_off("i", "info", "info", &Settings::info,
                         "name, shape, min, mean, max, std, zeros, NaN and Inf of each section"));
  table.push_back(action("w", "snapshot", "save PNG", "write this picture into the logdir"));
  table.push_back(action("h", "help", "help", "this table"));
  table.push_back(action("Esc", "reset", "reset", "back to the defaults"));
  table.push_back(action("q", "quit", "close", "close the viewer; the training goes on"));
  table.push_back(text("filter", "filter", &Settings::filter,
                       "globs on tensor names: * crosses dots, commas separate, ! excludes"));
  table.push_back(text("solo", "solo section", &Settings::solo, "name of the section that fills the canvas"));
  table.push_back(
      number("", "page", "page", 0, 100000, &Settings::page, by_one, "page, from 0, when there are several"));
  table.push_back(number("", "pan_x", "pan across", 0, 1, &Settings::pan_x, by_tenth, "in solo, 0 to 1"));
  table.push_back(number("", "pan_y", "pan down", 0, 1, &Settings::pan_y, by_tenth, "in solo, 0 to 1"));
  for (auto& control : table) control.bindings = bindings_of(control.keys);
  return table;
}

/// `*` matches any run of characters, `?` one. Greedy with one point of return: linear in practice, never more than the
/// product of the lengths.
bool matches_glob(const std::string& glob, const std::string& name) {
  size_t g = 0, n = 0, star = std::string::npos, retry = 0;
  while (n < name.size()) {
    if (g < glob.size() && (glob[g] == '?' || (glob[g] == name[n] && glob[g] != '*'))) {
      ++g;
      ++n;
    } else if (g < glob.size() && glob[g] == '*') {
      star = g++;
      retry = n;
    } else if (star != std::string::npos) {
      g = star + 1;
      n = ++retry;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

/// What the table allows: a C++ program can set any number.
Settings within_ranges(Settings s) {
  const Settings fresh;
  const auto limit = [](auto value, auto otherwise, double low, double high) {
    const auto number = static_cast<double>(value);
    if (!(number == number)) return otherwise;  // NaN
    return number < low    ? static_cast<decltype(value)>(low)
           : number > high ? static_cast<decltype(value)>(high)
                           : value;
  };
  for (const auto& control : controls()) {
    const double low = control.minimum, high = control.maximum;
    if (control.name == "window_size") s.window_size = limit(s.window_size, fresh.window_size, low, high);
    if (control.name == "fps") s.fps = limit(s.fps, fresh.fps, low, high);
    if (control.name == "page") s.page = limit(s.page, fresh.page, low, high);
    if (control.name == "zoom") s.zoom = limit(s.zoom, fresh.zoom, low, high);
    if (control.name == "pan_x") s.pan_x = limit(s.pan_x, fresh.pan_x, low, high);
    if (control.name == "pan_y") s.pan_y = limit(s.pan_y, fresh.pan_y, low, high);
  }
  return s;
}

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

}  // namespace

Settings Settings::film() const {
  Settings s = *this;
  const Settings fresh;
  s.paused = fresh.paused;
  s.solo = fresh.solo;
  s.page = fresh.page;
  s.zoom = fresh.zoom;
  s.pan_x = fresh.pan_x;
  s.pan_y = fresh.pan_y;
  return s;
}

bool operator==(const Settings& a, const Settings& b) { return tied(a) == tied(b); }

bool needs_capture(const Settings& from, const Settings& to) {
  Settings same = to;  // what may differ without other values being needed
  same.scaling = from.scaling;
  same.colormap = from.colormap;
  same.info = from.info;
  same.fps = from.fps;
  same.paused = from.paused;
  same.recording = from.recording;
  same.window_size = from.window_size;
  return same != from;
}

bool clears_history(const Settings& from, const Settings& to) {
  return from.values != to.values || from.mode != to.mode || from.show_all != to.show_all || from.layout != to.layout ||
         from.filter != to.filter;
}

const char* to_string(Values v) {
  switch (v) {
    case Values::Parameters: return "parameters";
    case Values::Gradients: return "gradients";
    case Values::Activations: return "activations";
    case Values::Buffers: return "buffers";
    case Values::Optimizer: return "optimizer";
    case Values::Arrays: return "arrays";
    case Values::Frame: return "frame";
  }
  return "?";
}

const char* to_string(Mode v) {
  switch (v) {
    case Mode::Current: return "current";
    case Mode::Variance: return "variance";
    case Mode::Change: return "change";
  }
  return "?";
}

const char* to_string(Scaling v) {
  switch (v) {
    case Scaling::Section: return "section";
    case Scaling::All: return "all";
    case Scaling::ZeroCentred: return "zero-centred";
  }
  return "?";
}

const char* to_string(LayoutKind v) { return v == LayoutKind::Fit ? "fit" : "classic"; }

const char* to_string(Colormap v) {
  switch (v) {
    case Colormap::Magma: return "magma";
    case Colormap::Inferno: return "inferno";
    case Colormap::Plasma: return "plasma";
    case Colormap::Viridis: return "viridis";
    case Colormap::Gray: return "gray";
    case Colormap::Diverging: return "diverging";
  }
  return "?";
}

const std::vector<Control>& controls() {
  static const auto* table = new std::vector<Control>(make_controls());  // leaked: outlives static destructors
  return *table;
}

const Control* find_control(const std::string& name) {
  for (const auto& control : controls()) {
    if (control.name == name) return &control;
  }
  return nullptr;
}

std::string set_by_name(Settings& s, const std::string& name, const std::string& text) {
  const Control* control = find_control(name);
  if (control && control->type != Control::Type::Action) return control->set(s, text);
  std::string known;
  for (const auto& one : controls()) {
    if (one.type != Control::Type::Action) known += (known.empty() ? "" : ", ") + one.name;
  }
  return "unknown setting " + quoted(name) + "; expected one of " + known;
}

std::string quoted(const std::string& text) {
  std::string shown = text.substr(0, 60);
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return "'" + shown + "'";
}

bool matches_filter(const std::string& filter, const std::string& name) {
  bool any_include = false, included = false;
  for (size_t begin = 0; begin <= filter.size();) {
    const size_t end = std::min(filter.find(',', begin), filter.size());
    std::string glob = trimmed(filter.substr(begin, end - begin));
    begin = end + 1;
    if (glob.empty()) continue;
    if (glob[0] == '!') {
      if (matches_glob(trimmed(glob.substr(1)), name)) return false;
      continue;
    }
    any_include = true;
    included = included || matches_glob(glob, name);
  }
  return included || !any_include;
}

SharedSettings::SharedSettings(Settings initial) : settings_(initial), defaults_(std::move(initial)) {}

Settings SharedSettings::get() const {
  MutexLock lock(mutex_);
  return settings_;
}

uint64_t SharedSettings::revision() const { return revision_.load(std::memory_order_acquire); }

std::pair<Settings, uint64_t> SharedSettings::snapshot() const {
  MutexLock lock(mutex_);
  return {settings_, revision_.load(std::memory_order_relaxed)};
}

Settings SharedSettings::defaults() const {
  MutexLock lock(mutex_);
  return defaults_;
}

void SharedSettings::set_defaults(const Settings& s) {
  MutexLock lock(mutex_);
  defaults_ = s;
}

uint64_t SharedSettings::set(const Settings& s) {
  return edit([&s](Settings& mine) { mine = s; });
}

uint64_t SharedSettings::edit(const std::function<void(Settings&)>& edit) {
  const auto self = std::this_thread::get_id();
  Settings next;
  {
    MutexLock lock(mutex_);
    if (editor_ == self) {  // called by an edit
      Settings* const mine = edited_;
      lock.unlock();
      edit(*mine);
      return revision();
    }
    const uint64_t number = next_number_++;
    turn_.wait(lock, [&]() BEHOLDER_REQUIRES(mutex_) { return served_ == number; });
    editor_ = self;
    edited_ = &next;
  }
  std::exception_ptr failed;
  try {
    next = get();  // nobody else changes them now
    edit(next);
    next = within_ranges(next);
  } catch (...) {
    failed = std::current_exception();
  }
  bool changed;
  uint64_t now;
  {
    MutexLock lock(mutex_);
    changed = !failed && next != settings_;
    if (changed) {
      std::swap(settings_, next);  // the old ones are let go after the lock
      revision_.fetch_add(1, std::memory_order_acq_rel);
    }
    now = revision_.load(std::memory_order_relaxed);
    editor_ = {};
    edited_ = nullptr;
    ++served_;
  }
  turn_.notify_all();
  if (failed) std::rethrow_exception(failed);
  if (changed) tell_listeners(now);
  return now;
}

/// Returns when all know of `revision`. One thread tells for all, so that listeners that change something never wait
/// for each other.
void SharedSettings::tell_listeners(uint64_t revision) {
  const auto self = std::this_thread::get_id();
  MutexLock lock(mutex_);
  if (teller_ == self) return;  // changed by a listener: goes on below
  told_all_.wait(lock, [&]() BEHOLDER_REQUIRES(mutex_) { return teller_ == std::thread::id() || told_ >= revision; });
  if (told_ >= revision) return;
  teller_ = self;
  std::exception_ptr failed;
  while (told_ < revision_.load(std::memory_order_relaxed)) {
    const uint64_t telling = revision_.load(std::memory_order_relaxed);
    const auto listeners = listeners_;  // never changed, but replaced
    lock.unlock();
    for (const auto& listener : *listeners) {
      try {
        RecursiveLock running(listener->running);
        if (!listener->removed) listener->call();
      } catch (...) {
        failed = std::current_exception();
      }
    }
    lock.lock();
    told_ = telling;
  }
  teller_ = {};
  lock.unlock();
  told_all_.notify_all();
  if (failed) std::rethrow_exception(failed);
}

std::string SharedSettings::set_by_name(const std::string& name, const std::string& text) {
  return set_by_name({{name, text}});
}

std::string SharedSettings::set_by_name(const std::vector<std::pair<std::string, std::string>>& changes) {
  std::string wrong;
  edit([&](Settings& mine) {
    Settings next = mine;
    for (const auto& [name, text] : changes) {
      wrong = beholder::set_by_name(next, name, text);
      if (!wrong.empty()) return;  // all or none
    }
    mine = next;
  });
  return wrong;
}

int SharedSettings::add_listener(std::function<void()> listener) {
  auto added = std::make_shared<Listener>();
  added->call = std::move(listener);
  MutexLock lock(mutex_);
  auto more = std::make_shared<Listeners>(*listeners_);
  more->push_back(added);
  listeners_ = std::move(more);
  return added->id = next_listener_++;
}

void SharedSettings::remove_listener(int id) {
  std::shared_ptr<Listener> gone;
  {
    MutexLock lock(mutex_);
    auto fewer = std::make_shared<Listeners>(*listeners_);
    const auto found = std::find_if(fewer->begin(), fewer->end(), [id](const auto& l) { return l->id == id; });
    if (found == fewer->end()) return;
    gone = *found;
    fewer->erase(found);
    listeners_ = std::move(fewer);
  }
  RecursiveLock running(gone->running);  // another thread may be in it
  gone->removed = true;
}

}  // namespace beholder
