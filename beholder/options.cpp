#include "beholder/options.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "beholder/numbers.h"

namespace beholder {
namespace {

std::string text_of(double value) { return number_text(value); }
std::string text_of(int value) { return std::to_string(value); }
std::string text_of(int64_t value) { return std::to_string(value); }

template <typename T>
void require(bool good, const char* name, const char* expected, const T& found) {
  if (good) return;
  throw std::invalid_argument(std::string("beholder::Options::") + name + " is " + text_of(found) + "; expected " +
                              expected);
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

HostShares host_shares(const Options& o) {
  HostShares shares;
  shares.canvas = int64_t{HostBytesPerPixel::kAll} * o.canvas_width * o.canvas_height;
  const int64_t rest = std::max(o.max_host_bytes / 8, o.max_host_bytes - shares.canvas);
  shares.values = std::min(o.max_host_bytes / 2, rest / 4 * 3);
  shares.queues = std::min(o.max_host_bytes / 4, rest - shares.values);
  return shares;
}

void check_host_bytes(const Options& o) {
  using Bytes = HostBytesPerPixel;
  const int64_t canvas = host_shares(o).canvas, most = o.max_host_bytes / 8 * 7;
  if (canvas <= most) return;
  const auto mib = [](int64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20); };
  const auto side = static_cast<int64_t>(std::sqrt(static_cast<double>(most / Bytes::kAll)));
  throw std::invalid_argument(
      "beholder::Options: a canvas of " + std::to_string(o.canvas_width) + " x " + std::to_string(o.canvas_height) +
      " takes " + mib(canvas) + " MiB of host memory (" + std::to_string(Bytes::kAll) + " bytes a pixel: pictures " +
      std::to_string(Bytes::kPictures) + ", copies of them " + std::to_string(Bytes::kCopies) + ", encoder of a film " +
      std::to_string(Bytes::kEncoder) + ", viewers " + std::to_string(Bytes::kViewers) + "); expected at most " +
      mib(most) + " MiB, seven eighths of max_host_bytes, which is " + std::to_string(o.max_host_bytes) +
      ". Set max_host_bytes to at least " + std::to_string((canvas + 6) / 7 * 8) + ", or choose a canvas of at most " +
      std::to_string(side) + " x " + std::to_string(side));
}

}  // namespace beholder
