// The live settings, the table of controls, the options and the colour tables: plain numbers, no torch.
#include "beholder/settings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <limits>
#include <locale>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "beholder/colormaps.h"
#include "beholder/numbers.h"
#include "beholder/options.h"
#include "catch.h"
#include "german.h"

using namespace beholder;

namespace {

struct Row {
  const char *keys, *name, *range, *fresh;
};

// The table as it was designed, and a key for zoom.
const std::vector<Row> kDesign = {
    {"v", "values", "parameters|gradients|activations|buffers|optimizer|arrays|frame", "parameters"},
    {"m", "mode", "current|variance|change", "current"},
    {"[ ]", "window_size", "2..20", "15"},
    {"s", "scaling", "section|all|zero-centred", "section"},
    {"a", "show_all", "off|on", "off"},
    {"l", "layout", "fit|classic", "fit"},
    {"c", "colormap", "magma|inferno|plasma|viridis|gray|diverging", "magma"},
    {"+ -", "fps", "0..60", "10"},
    {"space", "paused", "off|on", "off"},
    {"r", "recording", "off|on", "off"},  // a Recorder turns it on
    {"n p", "next", "", ""},
    {"z", "solo_toggle", "", ""},
    {"< >", "zoom", "1..64", "1"},
    {"arrows", "pan", "", ""},
    {"i", "info", "off|on", "on"},
    {"w", "snapshot", "", ""},
    {"h", "help", "", ""},
    {"Esc", "reset", "", ""},
    {"q", "quit", "", ""},
};

std::string range_of(const Control& control) {
  std::string range;
  switch (control.type) {
    case Control::Type::Choice:
    case Control::Type::Switch:
      for (const auto& one : control.choices) range += (range.empty() ? "" : "|") + one;
      return range;
    case Control::Type::Number:
      return std::to_string(static_cast<int>(control.minimum)) + ".." +
             std::to_string(static_cast<int>(control.maximum));
    case Control::Type::Text:
    case Control::Type::Action: break;
  }
  return range;
}

double seconds_of(const std::function<void()>& work) {
  const auto started = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
}

std::string error_of(const Options& options) {
  try {
    check(options);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("the table of controls is the one of the design") {
  std::vector<const Control*> with_keys;
  for (const auto& control : controls()) {
    if (!control.keys.empty()) with_keys.push_back(&control);
  }
  REQUIRE(with_keys.size() == kDesign.size());
  for (size_t i = 0; i < kDesign.size(); ++i) {
    INFO(kDesign[i].name);
    CHECK(with_keys[i]->keys == kDesign[i].keys);
    CHECK(with_keys[i]->name == kDesign[i].name);
    CHECK(range_of(*with_keys[i]) == kDesign[i].range);
    CHECK(with_keys[i]->get(Settings{}) == kDesign[i].fresh);
    CHECK_FALSE(with_keys[i]->help.empty());
    CHECK_FALSE(with_keys[i]->label.empty());
  }
  for (const char* beside : {"filter", "solo", "page", "pan_x", "pan_y"}) CHECK(find_control(beside));
}

TEST_CASE("no two controls share a name or a key") {
  std::set<std::string> names, keys;
  for (const auto& control : controls()) {
    CHECK(names.insert(control.name).second);
    std::istringstream each(control.keys);
    for (std::string key; each >> key;) CHECK(keys.insert(key).second);
  }
  std::set<std::string> bound;
  for (const auto& control : controls()) {
    CHECK(control.bindings.empty() == control.keys.empty());
    for (const auto& binding : control.bindings) CHECK(bound.insert(binding.key).second);
  }
}

TEST_CASE("keys go in the direction that their signs show") {
  const auto pressed = [](const std::string& key) {
    Settings s;
    for (const auto& control : controls()) {
      for (const auto& binding : control.bindings) {
        if (binding.key == key) control.step(s, binding.direction);
      }
    }
    return s;
  };
  CHECK(pressed("[").window_size == 14);
  CHECK(pressed("]").window_size == 16);
  CHECK(pressed("+").fps == 11);
  CHECK(pressed("=").fps == 11);
  CHECK(pressed("-").fps == 9);
  CHECK(pressed(">").zoom > 1);
  CHECK(pressed("<").zoom == 1);
  CHECK(pressed("m").mode == Mode::Variance);
  CHECK(pressed("space").paused);
}

TEST_CASE("every value that a control shows can be set again") {
  for (const auto& control : controls()) {
    if (control.type == Control::Type::Action) continue;
    INFO(control.name);
    Settings s;
    for (const auto& one : control.choices) {
      CHECK(control.set(s, one).empty());
      CHECK(control.get(s) == one);
    }
    if (control.type == Control::Type::Number) {
      for (double value : {control.minimum, control.maximum}) {
        CHECK(control.set(s, std::to_string(value)).empty());
        CHECK(std::stod(control.get(s)) == value);
      }
    }
    if (control.type == Control::Type::Text) {
      CHECK(control.set(s, "encoder.*").empty());
      CHECK(control.get(s) == "encoder.*");
    }
  }
}

TEST_CASE("a number is shown as it was set, to its last digit") {
  const Control& fps = *find_control("fps");
  for (const char* text : {"12.345678901234", "0.1", "1e-09", "59.99999999999999"}) {
    Settings s;
    CHECK(fps.set(s, text).empty());
    CHECK(fps.get(s) == text);
  }
  Settings s;
  CHECK(find_control("page")->set(s, "100000").empty());
  CHECK(find_control("page")->get(s) == "100000");
}

TEST_CASE("numbers as text are as printf writes them in C") {
  for (const double value : {0.0, -0.0, 1.0, 0.1, -2.5, 1e-9, 123456.789, 1e22, -1e300, 5e-324, 0.05, 99.5}) {
    char text[400];
    CAPTURE(value);
    std::snprintf(text, sizeof text, "%.1f", value);
    CHECK(fixed_text(value, 1) == text);
    std::snprintf(text, sizeof text, "%.4g", value);
    CHECK(general_text(value, 4) == text);
    std::snprintf(text, sizeof text, "%.1e", value);
    CHECK(scientific_text(value, 1) == text);
    CHECK(number_of(number_text(value)) == value);
  }
  for (const char* text : {"", "1,5", "1.5 ", " 1", "0x10", "one"}) CHECK(std::isnan(number_of(text)));
}

TEST_CASE("a number reads the same in every language of the program") {
  Settings s;
  std::string problem, shown;
  std::vector<std::string> errors;
  {
    const German german;
    problem = set_by_name(s, "fps", "2.5");
    shown = find_control("fps")->get(s);
    for (const auto& change : std::vector<void (*)(Options&)>{[](Options& o) { o.max_overhead = 1.5; },
                                                              [](Options& o) { o.canvas_width = 100000; },
                                                              [](Options& o) { o.max_device_bytes = 1000; }}) {
      Options o;
      change(o);
      try {
        check(o);
      } catch (const std::invalid_argument& e) {
        errors.push_back(e.what());
      }
    }
  }
  REQUIRE(errors.size() == 3);
  CHECK(errors[0].find("is 1.5;") != std::string::npos);
  CHECK(errors[1].find("is 100000;") != std::string::npos);
  CHECK(errors[2].find("is 1000;") != std::string::npos);
  CHECK(problem.empty());
  CHECK(s.fps == 2.5);
  CHECK(shown == "2.5");
}

TEST_CASE("what is wrong is said in one line, whatever was found") {
  Settings s;
  for (const auto& wrong :
       {set_by_name(s, "fps", "a\nb"), set_by_name(s, "a\r\nb", "1"), set_by_name(s, "mode", "\x7f\t")})
    CHECK(std::count_if(wrong.begin(), wrong.end(), [](char c) { return (c >= 0 && c < 0x20) || c == 0x7f; }) == 0);
}

TEST_CASE("stepping a choice goes round in both directions, and visits every choice") {
  for (const auto& control : controls()) {
    if (control.type != Control::Type::Choice && control.type != Control::Type::Switch) continue;
    INFO(control.name);
    for (int direction : {1, -1}) {
      Settings s;
      std::set<std::string> seen;
      for (size_t i = 0; i < control.choices.size(); ++i) {
        seen.insert(control.get(s));
        control.step(s, direction);
      }
      CHECK(seen.size() == control.choices.size());
      CHECK(s == Settings{});
    }
  }
}

TEST_CASE("stepping a number stays within its range") {
  for (const auto& control : controls()) {
    if (control.type != Control::Type::Number || control.name == "page") continue;
    INFO(control.name);
    for (int direction : {1, -1}) {
      Settings s;
      for (int i = 0; i < 200; ++i) control.step(s, direction);
      CHECK(std::stod(control.get(s)) == (direction > 0 ? control.maximum : control.minimum));
    }
  }
}

TEST_CASE("FPS goes by halves below 1, by ones above") {
  const Control& fps = *find_control("fps");
  Settings s;
  s.fps = 2;
  std::vector<double> down;
  for (int i = 0; i < 4; ++i) {
    fps.step(s, -1);
    down.push_back(s.fps);
  }
  CHECK(down == std::vector<double>{1, 0.5, 0, 0});
  for (double expected : {0.5, 1.0, 2.0, 3.0}) {
    fps.step(s, 1);
    CHECK(s.fps == expected);
  }
}

TEST_CASE("a wrong value says what is allowed and changes nothing") {
  const std::vector<std::pair<std::string, std::string>> wrong = {{"values", "weights"},
                                                                  {"values", ""},
                                                                  {"values", "Parameters"},
                                                                  {"mode", "1"},
                                                                  {"window_size", "1"},
                                                                  {"window_size", "21"},
                                                                  {"window_size", "2.5"},
                                                                  {"window_size", "five"},
                                                                  {"window_size", ""},
                                                                  {"window_size", "5x"},
                                                                  {"fps", "-1"},
                                                                  {"fps", "60.5"},
                                                                  {"fps", "nan"},
                                                                  {"fps", "inf"},
                                                                  {"fps", "1e999"},
                                                                  {"show_all", "yes"},
                                                                  {"zoom", "0"},
                                                                  {"zoom", "65"},
                                                                  {"pan_x", "1.1"},
                                                                  {"page", "-1"},
                                                                  {"page", "1e300"},
                                                                  {"filter", "a\nb"},
                                                                  {"solo", std::string(1001, 'x')},
                                                                  {"fps", std::string(100000, '9')},
                                                                  {"reset", "on"},
                                                                  {"nonsense", "1"},
                                                                  {"", ""}};
  for (const auto& [name, text] : wrong) {
    INFO(name << " = " << text.substr(0, 50));
    Settings s;
    s.fps = 7;
    const Settings before = s;
    const std::string error = set_by_name(s, name, text);
    CHECK_FALSE(error.empty());
    CHECK(error.size() < 400);
    CHECK(error.find('\n') == std::string::npos);
    CHECK(s == before);
  }
  Settings s;
  CHECK(contains(set_by_name(s, "mode", "x"), "current, variance, change"));
  CHECK(contains(set_by_name(s, "mode", "x"), "'x'"));
  CHECK(contains(set_by_name(s, "window_size", "99"), "2 to 20"));
  CHECK(contains(set_by_name(s, "show_all", "maybe"), "on or off"));
  CHECK(contains(set_by_name(s, "nonsense", "1"), "window_size"));
}

TEST_CASE("several changes are all made or none, with one revision") {
  SharedSettings shared;
  int calls = 0;
  shared.add_listener([&] { ++calls; });
  const auto before = shared.revision();
  CHECK(contains(shared.set_by_name({{"mode", "change"}, {"fps", "100"}, {"layout", "classic"}}), "fps"));
  CHECK(shared.get() == Settings{});
  CHECK(shared.revision() == before);
  CHECK(calls == 0);
  CHECK(shared.set_by_name({{"mode", "change"}, {"fps", "20"}, {"layout", "classic"}}).empty());
  CHECK(shared.get().mode == Mode::Change);
  CHECK(shared.get().layout == LayoutKind::Classic);
  CHECK(shared.revision() == before + 1);
  CHECK(calls == 1);
  CHECK(shared.set_by_name("mode", "change").empty());  // nothing new
  CHECK(shared.revision() == before + 1);
  CHECK(calls == 1);
  CHECK(shared.snapshot() == std::make_pair(shared.get(), before + 1));
}

TEST_CASE("numbers that a program sets outside their ranges are moved to the nearest end") {
  SharedSettings shared;
  shared.edit([](Settings& s) {
    s.window_size = 1000000;
    s.fps = -3;
    s.page = -7;
    s.zoom = std::numeric_limits<double>::quiet_NaN();
    s.pan_x = 5;
    s.pan_y = -std::numeric_limits<double>::infinity();
  });
  const Settings s = shared.get();
  CHECK(s.window_size == 20);
  CHECK(s.fps == 0);
  CHECK(s.page == 0);
  CHECK(s.zoom == 1);
  CHECK(s.pan_x == 1);
  CHECK(s.pan_y == 0);
}

TEST_CASE("an edit that throws changes nothing and leaves the settings usable") {
  SharedSettings shared;
  CHECK_THROWS(shared.edit([](Settings& s) {
    s.fps = 1;
    throw std::runtime_error("no");
  }));
  CHECK(shared.get() == Settings{});
  CHECK(shared.set_by_name("fps", "2").empty());
}

TEST_CASE("listeners may read and change the settings, and remove themselves") {
  SharedSettings shared;
  int first = 0, second = 0, id = 0;
  id = shared.add_listener([&] {
    ++first;
    shared.remove_listener(id);
    shared.edit([](Settings& s) { s.info = false; });
  });
  shared.add_listener([&] { second += shared.get().show_all ? 1 : 0; });
  shared.set_by_name("show_all", "on");
  CHECK(first == 1);
  CHECK(second == 2);
  CHECK_FALSE(shared.get().info);
  shared.remove_listener(id);
  shared.remove_listener(12345);
}

TEST_CASE("a listener that was removed does not run any more, on no thread") {
  for (int round = 0; round < 50; ++round) {
    SharedSettings shared;
    std::atomic<bool> stop{false}, started{false};
    auto alive = std::make_unique<std::atomic<int>>(1);
    std::atomic<int> bad{0};
    std::atomic<bool> gone{false};
    const int id = shared.add_listener([&] {
      started = true;
      std::this_thread::yield();
      if (gone) ++bad;
    });
    std::thread changer([&] {
      for (int i = 0; !stop; ++i) shared.edit([i](Settings& s) { s.page = i % 2; });
    });
    while (!started) std::this_thread::yield();
    shared.remove_listener(id);
    gone = true;
    std::this_thread::yield();
    stop = true;
    changer.join();
    CHECK(bad == 0);
  }
}

TEST_CASE("many threads change the settings: no change is lost") {
  SharedSettings shared;
  shared.edit([](Settings& s) { s.page = 0; });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) shared.edit([](Settings& s) { ++s.page; });
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(shared.get().page == 2000);
  CHECK(shared.revision() == 2001);
}

namespace {

/// False where this has not come true within 20 seconds.
bool soon(const std::function<bool()>& condition) {
  for (int i = 0; i < 20000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return condition();
}

}  // namespace

TEST_CASE("while a change is being made nobody waits for it but other changes, which keep their order") {
  SharedSettings shared;
  std::atomic<bool> begun{false}, go_on{false}, read{false}, other{false};
  std::thread slow([&] {
    shared.edit([&](Settings& s) {
      begun = true;
      soon([&] { return go_on.load(); });
      s.filter += "a";
    });
  });
  CHECK(soon([&] { return begun.load(); }));
  std::thread reader([&] {
    const bool as_before =
        shared.get().filter.empty() && shared.snapshot().second == 1 && shared.defaults() == Settings{};
    shared.set_defaults(Settings{});
    shared.remove_listener(shared.add_listener([] {}));
    read = as_before;
  });
  CHECK(soon([&] { return read.load(); }));
  std::thread second([&] {
    shared.edit([](Settings& s) { s.filter += "b"; });
    other = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_FALSE(other);
  go_on = true;
  slow.join();
  reader.join();
  second.join();
  CHECK(shared.get().filter == "ab");
}

TEST_CASE("what a change changes through the shared settings is a part of it") {
  SharedSettings shared;
  int calls = 0;
  std::atomic<bool> done{false};
  std::thread thread([&] {
    shared.add_listener([&] { ++calls; });
    shared.edit([&](Settings& s) {
      s.page = 3;
      CHECK(shared.set_by_name("mode", "change").empty());
      CHECK_FALSE(shared.set_by_name("mode", "nonsense").empty());
      shared.edit([](Settings& same) { ++same.page; });
      CHECK(s.page == 4);
      CHECK(s.mode == Mode::Change);
      CHECK(shared.get().page == 0);
    });
    done = true;
  });
  const bool ended = soon([&] { return done.load(); });
  if (!ended) thread.detach();  // it waits for itself
  REQUIRE(ended);
  thread.join();
  CHECK(shared.get().page == 4);
  CHECK(shared.get().mode == Mode::Change);
  CHECK(shared.revision() == 2);
  CHECK(calls == 1);
}

TEST_CASE("listeners that change the settings do not wait for each other, on however many threads") {
  struct World {
    SharedSettings shared;
    std::atomic<int> first{0}, second{0}, ended{0};
  };
  const auto world = std::make_shared<World>();
  const auto change = [](World& w, bool Settings::*what) { w.shared.edit([what](Settings& s) { s.*what = true; }); };
  world->shared.add_listener([w = world.get(), change] {
    ++w->first;
    if (w->shared.get().zoom == 2) change(*w, &Settings::show_all);
  });
  world->shared.add_listener([w = world.get(), change] {
    if (w->second++ > 0) return;
    // Until another thread changes something too, and has had time to be in the first listener.
    soon([&] { return w->shared.get().zoom == 2; });
    for (int i = 0; i < 200 && w->first < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    change(*w, &Settings::paused);
  });
  std::thread one([world] {
    world->shared.set_by_name("page", "1");
    ++world->ended;
  });
  CHECK(soon([&] { return world->second > 0; }));
  std::thread other([world] {
    world->shared.set_by_name("zoom", "2");
    ++world->ended;
  });
  const bool ended = soon([&] { return world->ended == 2; });
  if (!ended) {  // each waits for the other
    one.detach();
    other.detach();
  }
  REQUIRE(ended);
  one.join();
  other.join();
  const Settings now = world->shared.get();
  CHECK((now.page == 1 && now.zoom == 2 && now.show_all && now.paused));
}

TEST_CASE("when a change returns every listener knows of it, whoever changes meanwhile") {
  SharedSettings shared;
  std::atomic<uint64_t> known{0};
  std::atomic<int> late{0};
  shared.add_listener([&] { known = shared.revision(); });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        const uint64_t mine = shared.edit([](Settings& s) { ++s.page; });
        if (known < mine) ++late;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(late == 0);
  CHECK(known == 801);
}

TEST_CASE("a listener that throws keeps none of the others from knowing") {
  SharedSettings shared;
  int calls = 0, others = 0;
  shared.add_listener([&] {
    if (++calls == 1) throw std::runtime_error("no");
  });
  shared.add_listener([&] { ++others; });
  CHECK_THROWS_AS(shared.set_by_name("page", "1"), std::runtime_error);
  CHECK(shared.get().page == 1);
  CHECK(others == 1);
  CHECK(shared.set_by_name("page", "2").empty());
  CHECK(calls == 2);
  CHECK(others == 2);
}

TEST_CASE("the film's settings leave out what belongs to the live view alone") {
  Settings s;
  s.values = Values::Gradients;
  s.mode = Mode::Change;
  s.filter = "conv*";
  s.colormap = Colormap::Gray;
  const Settings seen = s;
  s.paused = true;
  s.solo = "conv1.weight";
  s.page = 3;
  s.zoom = 4;
  s.pan_x = s.pan_y = 0.5;
  CHECK(s.film() == seen);
  CHECK(s.film() != s);
}

TEST_CASE("what needs other values, and what clears the history") {
  struct Case {
    const char *name, *value;
    bool capture, clears;
  };
  const std::vector<Case> cases = {
      {"values", "gradients", true, true}, {"mode", "variance", true, true}, {"window_size", "5", false, false},
      {"scaling", "all", false, false},    {"show_all", "on", true, true},   {"layout", "classic", true, true},
      {"colormap", "gray", false, false},  {"fps", "3", false, false},       {"paused", "on", false, false},
      {"recording", "on", false, false},   {"info", "off", false, false},    {"filter", "a", true, true},
      {"solo", "a", true, false},          {"page", "1", true, false},       {"zoom", "2", true, false},
      {"pan_x", "0.5", true, false},       {"pan_y", "0.5", true, false}};
  size_t settings = 0;
  for (const auto& control : controls()) settings += control.type != Control::Type::Action;
  CHECK(cases.size() == settings);  // a new setting needs a decision here
  for (const auto& one : cases) {
    INFO(one.name);
    Settings s;
    REQUIRE(set_by_name(s, one.name, one.value).empty());
    CHECK(s != Settings{});
    CHECK(needs_capture(Settings{}, s) == one.capture);
    CHECK(clears_history(Settings{}, s) == one.clears);
    CHECK(needs_capture(s, Settings{}) == one.capture);
    CHECK(clears_history(s, Settings{}) == one.clears);
  }
}

TEST_CASE("filters: globs cross dots, commas separate, ! excludes") {
  struct Case {
    const char *filter, *name;
    bool passes;
  };
  const std::vector<Case> cases = {
      {"", "conv1.weight", true},
      {"   ", "conv1.weight", true},
      {",,", "conv1.weight", true},
      {"*", "conv1.weight", true},
      {"conv1.weight", "conv1.weight", true},
      {"conv1", "conv1.weight", false},
      {"conv*", "conv1.weight", true},
      {"*weight", "layer1.0.conv1.weight", true},
      {"*weight", "layer1.0.conv1.weights", false},
      {"*.0.*", "layer1.0.conv1.weight", true},
      {"layer?.*", "layer1.0.conv1.weight", true},
      {"layer?.*", "layer10.0.conv1.weight", false},
      {"a, conv*", "conv1.weight", true},
      {"a ,b", "b", true},
      {"!*bias", "fc.bias", false},
      {"!*bias", "fc.weight", true},
      {"fc*, !*bias", "fc.bias", false},
      {"!*bias, fc*", "fc.weight", true},
      {"!*bias, fc*", "conv.weight", false},
      {"! *bias", "fc.bias", false},
      {"!", "fc", true},
      {"**", "", true},
      {"?", "", false},
      {"[ab]", "a", false},   // no character classes
      {"a.b", "axb", false},  // a dot is a dot
      {"*a*b*c", "xxaxxbxxc", true},
      {"*a*b*c", "xxaxxcxxb", false},
      {"a*a", "a", false},
      {"*é*", "café.weight", true},
  };
  for (const auto& one : cases) {
    INFO("filter '" << one.filter << "' name '" << one.name << "'");
    CHECK(matches_filter(one.filter, one.name) == one.passes);
  }
}

TEST_CASE("an evil filter takes no exponential time") {
  std::string stars, many;
  for (int i = 0; i < 499; ++i) stars += "*a";
  for (int i = 0; i < 240; ++i) many += "*?*,";
  const std::string name(10000, 'a');
  const double seconds = seconds_of([&] {
    CHECK_FALSE(matches_filter(stars + "b", name));
    CHECK(matches_filter(stars, name));
    CHECK_FALSE(matches_filter("!" + stars, name));
    CHECK(matches_filter(many, name));
  });
  CHECK(seconds < 2);
}

TEST_CASE("bad options throw with what was expected, what was found and the name") {
  const auto wrong = [](auto change, const char* name, const char* expected) {
    Options options;
    change(options);
    const std::string text = error_of(options);
    INFO(name << ": " << text);
    CHECK(contains(text, name));
    CHECK(contains(text, expected));
    CHECK(contains(text, "expected"));
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  wrong([](Options& o) { o.canvas_width = 0; }, "canvas_width", "64 to 8192");
  wrong([](Options& o) { o.canvas_width = 100000; }, "canvas_width", "100000");
  wrong([](Options& o) { o.canvas_height = -5; }, "canvas_height", "-5");
  wrong([](Options& o) { o.max_overhead = 0; }, "max_overhead", "above 0");
  wrong([](Options& o) { o.max_overhead = 2; }, "max_overhead", "2");
  wrong([nan](Options& o) { o.max_overhead = nan; }, "max_overhead", "nan");
  wrong([](Options& o) { o.max_background = -1; }, "max_background", "-1");
  wrong([](Options& o) { o.max_background = 65; }, "max_background", "64");
  wrong([](Options& o) { o.max_device_bytes = 1000; }, "max_device_bytes", "1 MiB");
  wrong([](Options& o) { o.max_host_bytes = -1; }, "max_host_bytes", "1 MiB");
  wrong([](Options& o) { o.settings.window_size = 1; }, "window_size", "2 to 20");
  wrong([](Options& o) { o.settings.fps = 61; }, "fps", "0 to 60");
  wrong([nan](Options& o) { o.settings.fps = nan; }, "fps", "nan");
  wrong([](Options& o) { o.settings.zoom = 0; }, "zoom", "1 to 64");
  wrong([nan](Options& o) { o.settings.pan_x = nan; }, "pan_x", "0 to 1");
  wrong([](Options& o) { o.settings.pan_y = 2; }, "pan_y", "0 to 1");
  wrong([](Options& o) { o.settings.page = -1; }, "page", "0 or more");
  CHECK(error_of(Options{}).empty());
  Options edges;
  edges.canvas_width = 64;
  edges.canvas_height = 8192;
  edges.max_overhead = 1;
  edges.max_background = 64;
  edges.max_device_bytes = edges.max_host_bytes = 1 << 20;
  edges.settings.fps = 0;
  CHECK(error_of(edges).empty());
}

TEST_CASE("a canvas that does not fit into max_host_bytes is refused, with advice that is right") {
  const auto error_of_bytes = [](const Options& o) -> std::string {
    try {
      check_host_bytes(o);
      return "";
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
  };
  const auto number_after = [](const std::string& text, const std::string& words) {
    const auto at = text.find(words);
    REQUIRE(at != std::string::npos);
    return std::stoll(text.substr(at + words.size()));
  };
  CHECK(error_of_bytes(Options{}).empty());
  for (const auto& [width, height, bytes] : std::vector<std::tuple<int, int, int64_t>>{{8192, 8192, int64_t{1} << 30},
                                                                                       {8192, 64, 1 << 20},
                                                                                       {1280, 720, 1 << 20},
                                                                                       {1279, 719, 50 << 20},
                                                                                       {64, 64, 200000}}) {
    Options o;
    o.canvas_width = width;
    o.canvas_height = height;
    o.max_host_bytes = bytes;
    const std::string error = error_of_bytes(o);
    CAPTURE(width, height, bytes, error);
    CHECK(error.find(std::to_string(width) + " x " + std::to_string(height)) != std::string::npos);
    CHECK(error.find("expected at most") != std::string::npos);
    CHECK(error.find("which is " + std::to_string(bytes)) != std::string::npos);
    const auto enough = number_after(error, "Set max_host_bytes to at least ");
    const auto side = static_cast<int>(number_after(error, "or choose a canvas of at most "));
    o.max_host_bytes = enough;
    CHECK(error_of_bytes(o).empty());
    o.max_host_bytes = enough - 16;
    CHECK_FALSE(error_of_bytes(o).empty());
    o.max_host_bytes = bytes;
    o.canvas_width = o.canvas_height = side;
    CHECK(error_of_bytes(o).empty());
    o.canvas_width = o.canvas_height = side + 1;
    CHECK_FALSE(error_of_bytes(o).empty());
  }
  for (const int64_t bytes : {int64_t{1} << 20, int64_t{1} << 24, int64_t{1} << 30, int64_t{1} << 40}) {
    Options o;
    o.max_host_bytes = bytes;
    const HostShares shares = host_shares(o);
    CHECK(shares.values > 0);
    CHECK(shares.queues > 0);
    if (error_of_bytes(o).empty()) CHECK(shares.canvas + shares.values + shares.queues <= bytes);
  }
}

namespace {

/// The table of `name` in tests/data/golden/colormaps.json, 256 x 3 numbers.
std::vector<int> golden_table(const std::string& name) {
  std::ifstream file(std::string(BEHOLDER_TEST_DATA) + "/golden/colormaps.json");
  std::stringstream all;
  all << file.rdbuf();
  const std::string text = all.str();
  const auto begin = text.find("\"" + name + "\":[[");
  REQUIRE(begin != std::string::npos);
  std::vector<int> numbers;
  for (size_t i = begin + name.size() + 3; numbers.size() < 768 && i < text.size();) {
    if (std::isdigit(static_cast<unsigned char>(text[i]))) {
      size_t used = 0;
      numbers.push_back(std::stoi(text.substr(i, 4), &used));
      i += used;
    } else {
      ++i;
    }
  }
  return numbers;
}

const std::vector<Colormap> kAll = {Colormap::Magma,   Colormap::Inferno, Colormap::Plasma,
                                    Colormap::Viridis, Colormap::Gray,    Colormap::Diverging};

int distance(const Rgb& a, const Rgb& b) { return std::abs(a.r - b.r) + std::abs(a.g - b.g) + std::abs(a.b - b.b); }

}  // namespace

TEST_CASE("the colour tables of the original are its truncated ones") {
  for (Colormap colormap : {Colormap::Magma, Colormap::Inferno, Colormap::Plasma, Colormap::Viridis}) {
    INFO(to_string(colormap));
    const auto golden = golden_table(to_string(colormap));
    REQUIRE(golden.size() == 768);
    const ColourTable table = colour_table(colormap, true);
    for (int i = 0; i < kGrayLevels; ++i) {
      const Rgb expected{static_cast<uint8_t>(golden[3 * i]), static_cast<uint8_t>(golden[3 * i + 1]),
                         static_cast<uint8_t>(golden[3 * i + 2])};
      CHECK(table[i] == expected);
    }
  }
  const ColourTable gray = colour_table(Colormap::Gray, true);
  for (int i = 0; i < kGrayLevels; ++i) {
    const auto level = static_cast<uint8_t>(i);
    CHECK(gray[i] == Rgb{level, level, level});
  }
}

TEST_CASE("no colormap contains a reserved colour, nor one close to it") {
  const std::vector<Rgb> reserved = {kNanColour, kPositiveInfColour, kNegativeInfColour};
  for (Colormap colormap : kAll) {
    for (bool separators : {false, true}) {
      INFO(to_string(colormap));
      const ColourTable table = colour_table(colormap, separators);
      for (const Rgb& special : reserved) {
        int nearest = 1000;
        for (int i = 0; i < kGrayLevels; ++i) nearest = std::min(nearest, distance(table[i], special));
        CHECK(nearest > 60);
        CHECK(distance(table[kBackgroundIndex], special) > 60);
      }
      CHECK(table[kNanIndex] == kNanColour);
      CHECK(table[kPositiveInfIndex] == kPositiveInfColour);
      CHECK(table[kNegativeInfIndex] == kNegativeInfColour);
      CHECK(table[kBackgroundIndex] == (separators ? table[0] : kBackgroundColour));
    }
  }
}

TEST_CASE("the diverging colormap is symmetric around its middle, which is the lightest colour") {
  const ColourTable table = colour_table(Colormap::Diverging, false);
  const auto light = [](const Rgb& c) { return 0.3 * c.r + 0.59 * c.g + 0.11 * c.b; };
  CHECK(table[0] == table[1]);
  for (int i = 1; i < 128; ++i) {
    CHECK(light(table[128 - i]) <= light(table[128 - i + 1]) + 1);
    CHECK(light(table[128 + i]) <= light(table[128 + i - 1]) + 1);
    // One side is blue, the other red: that of the low values must differ from its mirror image.
    if (i > 20) CHECK(distance(table[128 - i], table[128 + i]) > 30);
  }
  CHECK(std::max({table[128].r, table[128].g, table[128].b}) - std::min({table[128].r, table[128].g, table[128].b}) <
        10);
}
