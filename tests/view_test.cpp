// The viewer without its window: key codes, where the picture stands, how it travels, and what it reads from a server.
#include <httplib.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <mutex>
#include <opencv2/imgcodecs.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "tools/live_client.h"
#include "tools/live_state.h"
#include "tools/picture_format.h"
#include "tools/view_geometry.h"
#include "tools/view_keys.h"

using namespace beholder;
using namespace beholder::viewer;
using Catch::Approx;

namespace {

constexpr int kNumLock = 0x100000, kShift = 0x10000, kCapsLock = 0x20000, kCtrl = 0x40000, kAlt = 0x80000;

int code_of(const std::string& key) {
  if (key == "space") return ' ';
  if (key == "Esc") return 27;
  if (key == "left") return 0xff51;
  if (key == "up") return 0xff52;
  if (key == "right") return 0xff53;
  if (key == "down") return 0xff54;
  return key[0];
}

Layout fit() {
  Layout layout;
  layout.width = 1280;
  layout.height = 720;
  layout.footer = {0, 702, 1280, 18};
  Section a, b;
  a.area = {8, 8, 600, 300};
  b.area = {616, 8, 600, 300};
  layout.sections = {a, b};
  return layout;
}

}  // namespace

TEST_CASE("every key of the table has a code, with and without num lock, caps lock and shift") {
  int keys = 0;
  for (const auto& control : controls()) {
    for (const auto& binding : control.bindings) {
      for (int modifiers : {0, kNumLock, kCapsLock, kShift, kNumLock | kShift}) {
        INFO(control.name << " " << binding.key << " with modifiers " << modifiers);
        CHECK(key_name(code_of(binding.key) | modifiers) == binding.key);
      }
      const KeyAction action = action_of_key(binding.key);
      REQUIRE(action.control);
      CHECK(action.control->name == control.name);
      CHECK(action.direction == binding.direction);
      ++keys;
    }
  }
  CHECK(keys > 20);
}

TEST_CASE("upper case is like lower case") {
  for (char c = 'a'; c <= 'z'; ++c) CHECK(key_name(c - 'a' + 'A') == std::string(1, c));
}

TEST_CASE("the keypad has the same keys, in GTK's and X11's codes") {
  CHECK(key_name(0xff96) == "left");
  CHECK(key_name(0xff97) == "up");
  CHECK(key_name(0xff98 | kNumLock) == "right");
  CHECK(key_name(0xff99) == "down");
  CHECK(key_name(0xffab | kNumLock) == "+");
  CHECK(key_name(0xffad) == "-");
  CHECK(key_name(0xff80) == "space");
  CHECK(key_name(0xff1b) == "Esc");
}

TEST_CASE("no key, an unknown key, and Ctrl or Alt do nothing") {
  CHECK(key_name(-1).empty());
  CHECK(key_name(0xffe1).empty());  // shift alone
  CHECK(key_name('q' | kCtrl).empty());
  CHECK(key_name('q' | kAlt).empty());
  CHECK_FALSE(action_of_key("").control);
  CHECK_FALSE(action_of_key("x").control);
}

TEST_CASE("the picture keeps its shape and stands above the status line, whatever the window's size") {
  const Layout layout = fit();
  for (int width : {1, 90, 300, 640, 1280, 1281, 1920, 2560, 5120}) {
    for (int height : {1, 20, 60, 200, 724, 726, 1080, 1440, 2880}) {
      const WindowLayout w = window_layout(width, height, &layout);
      INFO(width << " x " << height);
      CHECK(w.source_height == 702);  // the footer is empty
      CHECK(w.status.y + w.status.height == height);
      if (w.picture.width == 0) {
        CHECK(height <= w.status.height);
        continue;
      }
      CHECK(w.picture.x >= 0);
      CHECK(w.picture.y >= 0);
      CHECK(w.picture.x + w.picture.width <= width);
      CHECK(w.picture.y + w.picture.height <= w.status.y);
      CHECK(std::abs(w.picture.width - 1280 * w.scale) <= 1);
      CHECK(std::abs(w.picture.height - 702 * w.scale) <= 1);
      CHECK(w.text_scale >= 1);
    }
  }
}

TEST_CASE("a fresh window shows the picture pixel for pixel") {
  const Layout layout = fit();
  const auto [width, height] = preferred_window(layout);
  const WindowLayout w = window_layout(width, height, &layout);
  CHECK(w.scale == 1);
  CHECK(w.picture.x == 0);
  CHECK(w.picture.y == 0);
  CHECK(w.picture.width == 1280);
  Layout huge = layout;
  huge.width = 8192;
  huge.height = 8192;
  huge.footer = {};
  CHECK(preferred_window(huge).first <= 1600);
  CHECK(preferred_window(huge).second <= 900);
}

TEST_CASE("a point of the window is the pixel that is drawn there") {
  const Layout layout = fit();
  const WindowLayout w = window_layout(2600, 1500, &layout);
  REQUIRE(w.scale == 2);
  CHECK_FALSE(pixel_at(w, w.picture.x - 1, w.picture.y));
  CHECK_FALSE(pixel_at(w, 100, w.status.y));
  CHECK(*pixel_at(w, w.picture.x, w.picture.y) == Pixel{0, 0});
  CHECK(*pixel_at(w, w.picture.x + 3, w.picture.y + 2) == Pixel{1, 1});
  CHECK(*pixel_at(w, w.picture.x + w.picture.width - 1, w.picture.y + w.picture.height - 1) == Pixel{1279, 701});
  CHECK(*section_at(layout, {700, 100}) == 1);
  CHECK_FALSE(section_at(layout, {610, 100}));
}

TEST_CASE("a fast link gets raw pictures, a slow one png, a very slow one jpeg") {
  constexpr size_t kRaw = 1280 * 720 * 3;
  const auto settle = [](double bytes_per_second, double png_share) {
    FormatChoice choice;
    PictureFormat format = PictureFormat::Png;
    for (int i = 0; i < 20; ++i) {
      format = choice.next(kRaw);
      const auto bytes = static_cast<size_t>(format == PictureFormat::Raw   ? kRaw
                                             : format == PictureFormat::Png ? kRaw * png_share
                                                                            : kRaw * 0.05);
      choice.transferred(format, bytes, static_cast<double>(bytes) / bytes_per_second);
    }
    return format;
  };
  CHECK(settle(1e9, 0.2) == PictureFormat::Raw);   // loopback
  CHECK(settle(2e7, 0.2) == PictureFormat::Png);   // a tunnel in the house
  CHECK(settle(1e6, 0.2) == PictureFormat::Jpeg);  // a tunnel over the country
}

TEST_CASE("the first picture is png, and what says nothing about the link is not measured") {
  FormatChoice choice;
  CHECK(choice.next(1 << 20) == PictureFormat::Png);
  choice.transferred(PictureFormat::Png, 900, 1e-6);
  CHECK(choice.bytes_per_second() == 0);
  CHECK(choice.next(1 << 20) == PictureFormat::Png);
}

TEST_CASE("a link between two forms does not flicker") {
  constexpr size_t kRaw = 1280 * 720 * 3;
  FormatChoice choice;
  PictureFormat last = choice.next(kRaw);
  int changes = 0;
  for (int i = 0; i < 60; ++i) {
    const double seconds_for_raw = i % 2 ? 0.033 : 0.027;  // around the limit
    choice.transferred(PictureFormat::Raw, kRaw, seconds_for_raw);
    const PictureFormat now = choice.next(kRaw);
    changes += now != last;
    last = now;
  }
  CHECK(changes <= 1);
}

TEST_CASE("targets: a folder, or the URL that a training prints") {
  CHECK(parse_live_target("runs/mnist").folder == "runs/mnist");
  const LiveTarget url = parse_live_target("http://127.0.0.1:6007/?token=abc_DEF-1");
  CHECK(url.folder.empty());
  CHECK(url.host == "127.0.0.1");
  CHECK(url.port == 6007);
  CHECK(url.token == "abc_DEF-1");
  CHECK(url.path.empty());
  const LiveTarget page = parse_live_target("http://localhost:6007/page?mytoken=x&x=1&token=t&y=2#token=z");
  CHECK(page.token == "t");
  CHECK(page.path.empty());
  CHECK(parse_live_target("http://localhost:6007?token=t").path.empty());
  const LiveTarget below = parse_live_target("http://hub.example/user/me/proxy/6007/?token=t");
  CHECK(below.host == "hub.example");
  CHECK(below.port == 80);
  CHECK(below.path == "/user/me/proxy/6007");
  CHECK(parse_live_target("http://[::1]:1/a/token=no/b?token=t#/c/d").path == "/a/token=no");
  CHECK(parse_live_target("http://[::1]:1/a/token=no/b?token=t").token == "t");
  CHECK(parse_live_target("http://[::1]:6007/?token=t").host == "::1");
  for (const char* wrong :
       {"", "https://localhost:6007/?token=t", "http://localhost:6007/", "http://:6007/?token=t",
        "http://localhost:99999/?token=t", "http://localhost:x/?token=t",
        "http://localhost:6007/?token=", "http://localhost:6007/?token=a\r\nHost: b",
        "http://localhost:6007/a b/?token=t", "http://localhost:6007/token=t/", "http://localhost:6007/?mytoken=t"}) {
    INFO(wrong);
    CHECK_THROWS_AS(parse_live_target(wrong), std::invalid_argument);
  }
}

TEST_CASE("a URL below the path of a proxy is asked below that path for everything") {
  const std::string prefix = "/user/me/proxy/6007";
  std::mutex mutex;
  std::set<std::string> asked;
  httplib::Server proxy;
  const auto answered = [&](const httplib::Request& request) {
    const std::lock_guard<std::mutex> lock(mutex);
    asked.insert(request.path);
  };
  proxy.set_pre_routing_handler([&](const httplib::Request& request, httplib::Response&) {
    answered(request);
    return httplib::Server::HandlerResponse::Unhandled;
  });
  proxy.Get(prefix + "/state", [](const httplib::Request&, httplib::Response& response) {
    response.set_content(R"({"run": {"nonce": "0a"}, "settings": {}, "picture": null})", "application/json");
  });
  proxy.Get(prefix + "/frame", [](const httplib::Request& request, httplib::Response& response) {
    if (request.get_param_value("after") != "0") {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      response.status = 204;
      return;
    }
    response.set_header("X-Beholder-Sequence", "1");
    std::vector<uint8_t> png;
    cv::imencode(".png", cv::Mat(1, 2, CV_8UC3, cv::Scalar(3, 2, 1)), png);
    response.set_content(reinterpret_cast<const char*>(png.data()), png.size(), "image/png");
  });
  proxy.Get(prefix + "/value", [](const httplib::Request&, httplib::Response& response) {
    response.set_content(R"({"section": 3, "index": [1, 2], "value": 0.5})", "application/json");
  });
  proxy.Post(prefix + "/action", [](const httplib::Request&, httplib::Response& response) {
    response.set_content(R"({"path": "a.png"})", "application/json");
  });
  const int port = proxy.bind_to_any_port("127.0.0.1");
  REQUIRE(port > 0);
  std::thread thread([&] { proxy.listen_after_bind(); });
  {
    LiveClient client(parse_live_target("http://127.0.0.1:" + std::to_string(port) + prefix + "/?token=t"));
    const auto wait_for = [](const std::function<bool()>& condition) {
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      while (!condition() && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      return condition();
    };
    if (wait_for([&] { return client.view()->pixels != nullptr; })) {
      CHECK(client.view()->pixels->rgb == std::vector<uint8_t>{1, 2, 3, 1, 2, 3});
      CHECK(client.view()->where == "127.0.0.1:" + std::to_string(port) + prefix);
      client.point_at(1, 0, 0);
      CHECK(wait_for([&] { return client.pointed() && client.pointed()->value; }));
      client.act("snapshot", 0);
      CHECK(wait_for([&] { return client.answer() && client.answer()->text == "saved a.png"; }));
    } else {
      FAIL_CHECK("no picture came");
    }
  }
  proxy.stop();
  thread.join();
  CHECK(asked == std::set<std::string>{prefix + "/action", prefix + "/frame", prefix + "/state", prefix + "/value"});
}

TEST_CASE("a state is read into the core's own types") {
  const LiveState state = parse_live_state(R"({
    "run": {"logdir": "runs/a", "nonce": "0a"}, "revision": 7, "waiting": true, "ended": false,
    "settings": {"values": "gradients", "window_size": 4, "fps": 0.5, "paused": true, "colormap": "viridis",
                 "unknown": 1},
    "names": ["conv.weight", "conv.bias"],
    "counters": {"fps_wished": 0.5, "fps_real": 0.4, "step": 12, "updates": 13, "dropped": 3},
    "picture": {"sequence": 42, "step": 11, "time": 1700000000.25, "width": 640, "height": 360, "layout_id": 5,
      "layout": "fit", "page": 1, "pages": 2, "first_section": 1, "total_sections": 2, "message": "", "notice": "n",
      "history_size": 0, "change_steps": 0, "settings": {"values": "gradients", "info": false},
      "footer": [0, 342, 640, 18], "captions": "name", "colours": "AAECAwQF",
      "sections": [{"name": "conv.weight", "kind": "convolution weight", "shape": [8, 1, 3, 3], "dtype": "float32",
        "device": "cpu", "shown_as": "magnitude of complex", "area": [8, 8, 600, 300],
        "caption": [8, 8, 600, 15], "caption_inline": false,
        "picture": [8, 23, 600, 285], "reading": "rows: in", "grid": [3, 24], "min": -1, "max": 2.5, "mean": null,
        "std": 1, "count": 72, "zeros": 1, "nans": 2, "infs": 3, "beyond_float32": 4,
        "scale_low": -1, "scale_high": 2.5,
        "values_total": 72, "complete": true, "sampled": false, "relative_change": null, "dead_share": 0.5}]}})");
  CHECK(state.logdir == "runs/a");
  CHECK(state.revision == 7);
  CHECK(state.waiting);
  CHECK(state.settings.values == Values::Gradients);
  CHECK(state.settings.window_size == 4);
  CHECK(state.settings.fps == 0.5);
  CHECK(state.settings.paused);
  CHECK(state.settings.colormap == Colormap::Viridis);
  CHECK(state.names.size() == 2);
  CHECK(state.dropped == 3);
  CHECK(state.picture_layout == 5);
  REQUIRE(state.picture);
  const Picture& picture = *state.picture;
  CHECK(picture.sequence == 42);
  CHECK(std::chrono::duration<double>(picture.time.time_since_epoch()).count() == Approx(1700000000.25));
  CHECK_FALSE(picture.settings.info);
  CHECK(picture.colour_scale == std::vector<uint8_t>{0, 1, 2, 3, 4, 5});
  REQUIRE(picture.layout);
  CHECK(picture.layout->captions == CaptionDetail::Name);
  CHECK(picture.layout->footer == Rect{0, 342, 640, 18});
  REQUIRE(picture.layout->sections.size() == 1);
  CHECK(picture.layout->sections[0].picture == Rect{8, 23, 600, 285});
  CHECK(picture.layout->sections[0].grid.columns() == 24);
  const SectionInfo& info = picture.sections.at(0);
  CHECK(info.kind == Kind::ConvWeight);
  CHECK(info.shape == std::vector<int64_t>{8, 1, 3, 3});
  CHECK(std::isnan(info.statistics.mean));
  CHECK(info.statistics.max == 2.5);
  CHECK(info.statistics.infs == 3);
  CHECK(info.statistics.beyond == 4);
  CHECK(info.shown_as == "magnitude of complex");
  CHECK_FALSE(info.relative_change);
  CHECK(*info.dead_share == 0.5);
}

TEST_CASE("what is no state is an error, not a picture") {
  for (const char* wrong : {"", "[]", "{", "null", "{}", R"({"run": 1, "settings": {}})",
                            R"({"run": {}, "settings": {}, "picture": {"footer": [0, 0, -5, 2]}})",
                            R"({"run": {}, "settings": {}, "picture": {"footer": [0, 0, 1e99, 2]}})",
                            R"({"run": {}, "settings": {}, "picture": {"sections": [3]}})"}) {
    INFO(wrong);
    CHECK_THROWS_AS(parse_live_state(wrong), LiveStateError);
  }
  CHECK_FALSE(parse_live_state(R"({"run": {}, "settings": {}, "picture": null})").picture);
}
