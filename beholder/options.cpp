#include "beholder/options.h"

#include <sstream>
#include <stdexcept>

namespace beholder {
namespace {

template <typename T>
void require(bool good, const char* name, const char* expected, const T& found) {
  if (good) return;
  std::ostringstream text;
  text << "beholder::Options::" << name << " is " << found << "; expected " << expected;
  throw std::invalid_argument(text.str());
}

}  // namespace

void check(const Options& o) {
  require(o.canvas_width >= 64 && o.canvas_width <= 8192, "canvas_width", "64 to 8192 pixels", o.canvas_width);
  require(o.canvas_height >= 64 && o.canvas_height <= 8192, "canvas_height", "64 to 8192 pixels", o.canvas_height);
  require(o.max_overhead > 0 && o.max_overhead <= 1, "max_overhead", "a share above 0, at most 1 (0.02 is 2 %)",
          o.max_overhead);
  require(o.max_background > 0 && o.max_background <= 64, "max_background",
          "a share of one core above 0, at most 64 (0.15 is 15 %)", o.max_background);
  require(o.max_device_bytes >= (1 << 20), "max_device_bytes", "at least 1 MiB (1048576)", o.max_device_bytes);
  require(o.max_host_bytes >= (1 << 20), "max_host_bytes", "at least 1 MiB (1048576)", o.max_host_bytes);
  const Settings& s = o.settings;
  require(s.window_size >= 2 && s.window_size <= 20, "settings.window_size", "2 to 20", s.window_size);
  require(s.fps >= 0 && s.fps <= 60, "settings.fps", "0 to 60 (0 shows nothing new)", s.fps);
  require(s.zoom >= 1 && s.zoom <= 64, "settings.zoom", "1 to 64", s.zoom);
  require(s.pan_x >= 0 && s.pan_x <= 1, "settings.pan_x", "0 to 1", s.pan_x);
  require(s.pan_y >= 0 && s.pan_y <= 1, "settings.pan_y", "0 to 1", s.pan_y);
  require(s.page >= 0, "settings.page", "0 or more", s.page);
}

}  // namespace beholder
