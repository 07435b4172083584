#include "tools/view_geometry.h"

#include <algorithm>
#include <cmath>

namespace beholder::viewer {
namespace {

constexpr int kStatusHeight = 24;  // at text scale 1
constexpr int kUsualWidth = 1280, kUsualHeight = 720;
constexpr int kLargestWidth = 1600, kLargestHeight = 900;  // of a window that nobody resized yet

/// The picture's footer is empty (text is not part of a picture): the status line takes its place.
int height_without_footer(const Layout& layout) {
  const Rect& footer = layout.footer;
  return footer.height > 0 && footer.y > 0 && footer.y + footer.height >= layout.height ? footer.y : layout.height;
}

}  // namespace

WindowLayout window_layout(int width, int height, const Layout* shown) {
  WindowLayout w;
  w.width = std::max(1, width);
  w.height = std::max(1, height);
  w.text_scale = std::clamp(
      std::min(w.width / static_cast<double>(kUsualWidth), w.height / static_cast<double>(kUsualHeight)), 1.0, 4.0);
  const int status = std::min(w.height, static_cast<int>(std::lround(kStatusHeight * w.text_scale)));
  w.status = {0, w.height - status, w.width, status};
  if (!shown || shown->width <= 0 || shown->height <= 0) return w;
  w.source_width = shown->width;
  w.source_height = height_without_footer(*shown);
  const int room = w.height - status;
  if (room <= 0) return w;
  w.scale = std::min(w.width / static_cast<double>(w.source_width), room / static_cast<double>(w.source_height));
  // A little more than a whole number would make some blocks one pixel wider than others.
  const double whole = std::floor(w.scale);
  if (whole >= 1 && w.scale < whole * 1.04) w.scale = whole;
  const int shown_width = std::max(1, static_cast<int>(std::lround(w.source_width * w.scale)));
  const int shown_height = std::max(1, static_cast<int>(std::lround(w.source_height * w.scale)));
  w.picture = {(w.width - shown_width) / 2, (room - shown_height) / 2, shown_width, shown_height};
  return w;
}

std::pair<int, int> preferred_window(const Layout& shown) {
  const int width = std::max(1, shown.width), height = std::max(1, height_without_footer(shown));
  const double scale = std::min({1.0, kLargestWidth / static_cast<double>(width),
                                 (kLargestHeight - kStatusHeight) / static_cast<double>(height)});
  if (width < 480 || height * scale < 270 || width * scale < 480) {  // too small for the text, or a tall column
    return {kUsualWidth, kUsualHeight + kStatusHeight};
  }
  return {static_cast<int>(std::lround(width * scale)), static_cast<int>(std::lround(height * scale)) + kStatusHeight};
}

std::optional<Pixel> pixel_at(const WindowLayout& window, int x, int y) {
  const Rect& r = window.picture;
  if (x < r.x || y < r.y || x >= r.x + r.width || y >= r.y + r.height) return std::nullopt;
  const auto source = [](int at, int from, int to) {
    return std::min(from - 1, static_cast<int>(static_cast<int64_t>(at) * from / to));
  };
  return Pixel{source(x - r.x, window.source_width, r.width), source(y - r.y, window.source_height, r.height)};
}

std::optional<size_t> section_at(const Layout& layout, Pixel pixel) {
  for (size_t i = 0; i < layout.sections.size(); ++i) {
    const Rect& r = layout.sections[i].area;
    if (pixel.x >= r.x && pixel.y >= r.y && pixel.x < r.x + r.width && pixel.y < r.y + r.height) return i;
  }
  return std::nullopt;
}

}  // namespace beholder::viewer
