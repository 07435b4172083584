// How the text of a picture is drawn, at any scale: on its own pixels for films, PNGs and streams (captions.h), or on a
// window that shows the picture larger or smaller (`beholder view`). Functions without state; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "beholder/callbacks/captions.h"
#include "beholder/callbacks/text.h"
#include "beholder/picture.h"
#include "beholder/section.h"

namespace beholder {

struct TextColors {
  static constexpr TextColor kBright{235, 235, 240}, kVectorName{200, 200, 206}, kQuiet{150, 150, 158},
      kFaint{104, 104, 112}, kAmber{240, 180, 80}, kRed{255, 92, 92};
};

/// Where a picture stands on a canvas.
struct Placement {
  double scale = 1;       ///< pixels of the canvas for one of the picture
  int x = 0, y = 0;       ///< of the picture's top left corner on the canvas
  double text_scale = 1;  ///< of the text that has no room of its own in the layout: the classic layout's labels

  Rect on_canvas(const Rect& r) const;
};

/// Names, shapes and ranges of all sections, in their captions; or Picture::message where there is nothing else.
void draw_section_texts(const TextCanvas& canvas, const Picture& picture, const Placement& placement,
                        ClassicText classic);
/// The colours from low to high and what their ends stand for, at the right end of `room`: with its labels, without
/// them, or not at all, as there is space. Returns the left end of what was drawn.
int draw_colour_scale(const TextCanvas& canvas, const Picture& picture, const Rect& room, double scale);
/// A few lines in the middle of `room`, in letters of this size.
void draw_centred(const TextCanvas& canvas, const std::string& text, const Rect& room, int size, TextColor color);

/// "change over 3 steps", "scaled by section", "page 2 of 5 (film stays on page 1)": empty where there is one page.
std::string mode_text(const Picture& picture);
std::string scaling_text(Scaling scaling);
std::string page_text(const Picture& picture);
/// "16×1×7×7"; "scalar".
std::string times(const std::vector<int64_t>& shape);
/// "1,234,567".
std::string grouped(int64_t n);
/// "3 NaN 1 Inf 2 beyond float32"; empty where all is finite and within float32.
std::string not_finite(const Statistics& s);
/// "absent since step 812", or nothing.
std::string absence(const SectionInfo& info);
/// The row on which letters of this size stand in the middle of `r`.
int baseline_in(const Rect& r, int size);

}  // namespace beholder
