// Letters on RGB pictures: an ordinary sans font where there is one, Hershey's line letters where not. Every letter is
// drawn once per size and kept, so that a thousand short texts cost a millisecond. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "beholder/section.h"

namespace beholder {

struct TextColor {
  uint8_t r = 235, g = 235, b = 240;
};

/// Pixels to draw on: height x width x 3, row-major, R G B. Does not own them.
struct TextCanvas {
  uint8_t* rgb = nullptr;
  int width = 0, height = 0;
};

/// Width in pixels of a line of UTF-8 text in letters of this size (of the em, in pixels, 5..200).
int text_width(const std::string& text, int size);
/// Height in pixels of a capital letter.
int cap_height(int size);
/// Draws one line; what lies outside `clip` or the canvas is left out. `x` is the left end, `baseline` the row on
/// which letters stand. What the font cannot show becomes the nearest ASCII or '?'. Returns the x after the text.
int draw_text(const TextCanvas& canvas, int x, int baseline, const std::string& text, TextColor color, int size,
              const Rect& clip);
int draw_text(const TextCanvas& canvas, int x, int baseline, const std::string& text, TextColor color, int size);
/// The font file in use; empty = Hershey. Set BEHOLDER_FONT to a font file to choose, or to "none" for Hershey.
std::string text_font();

}  // namespace beholder
