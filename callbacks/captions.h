// The text of a picture, drawn on a copy of it: names, shapes and ranges of the sections, and the status line with the
// colour scale. For films, PNGs and streams; a viewer that scales draws its own text (text.h) at its own scale.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "beholder/picture.h"

namespace beholder {

/// A picture with its text. Immutable.
struct CaptionedPicture {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  ///< height x width x 3, row-major, R G B
};

inline int64_t held_bytes(const CaptionedPicture& picture) { return static_cast<int64_t>(picture.rgb.capacity()); }

/// What is written into the classic layout, which has no room for text.
enum class ClassicText {
  None,    ///< it stays pixel for pixel
  Labels,  ///< a small shaded label in each section's top left corner, which says what a caption says but for the range
};

/// The captioned copy of `picture`, made once for all who ask. Same size as the picture. Any thread.
std::shared_ptr<const CaptionedPicture> captioned(const Picture& picture, ClassicText classic = ClassicText::None);

/// A number with about two significant digits in few letters: "-0.4", "0.36", "128", "1.2e-5", "3.4e8".
std::string short_number(double value);

/// The longest form of a dotted name that `fits`: first all of it, then without leading components ("…bn1.weight"),
/// never below its last two, which are returned also where they do not fit. keep_index: a number as the last but one
/// says nothing without the word before it ("…downsample.1.weight"), so this stays too.
std::string shortened_name(const std::string& name, bool keep_index,
                           const std::function<bool(const std::string&)>& fits);

}  // namespace beholder
