// Where things stand in the viewer's window: the picture with its shape kept, and the status line below it. Pure
// geometry; no window.
#pragma once

#include <optional>
#include <utility>

#include "beholder/layout.h"
#include "beholder/section.h"

namespace beholder::viewer {

/// In pixels of the window.
struct WindowLayout {
  int width = 0, height = 0;
  double text_scale = 1;                    ///< of text that does not belong to a section: 1 in a window of 1280 x 720
  Rect status;                              ///< the status line, at the bottom
  Rect picture;                             ///< where the picture stands; empty where there is none
  double scale = 1;                         ///< pixels of the window for one of the picture
  int source_width = 0, source_height = 0;  ///< the part of the picture that is shown: without its empty footer
};

/// `shown` = nullptr: there is no picture yet.
WindowLayout window_layout(int width, int height, const Layout* shown);
/// The window that shows the picture pixel for pixel, or smaller where that would be too large for a screen.
std::pair<int, int> preferred_window(const Layout& shown);

struct Pixel {
  int x = 0, y = 0;
  friend bool operator==(const Pixel& a, const Pixel& b) { return a.x == b.x && a.y == b.y; }
};
/// The picture's pixel that the window shows there.
std::optional<Pixel> pixel_at(const WindowLayout& window, int x, int y);
/// Index of the section whose area has this pixel.
std::optional<size_t> section_at(const Layout& layout, Pixel pixel);

}  // namespace beholder::viewer
