// The colour tables. Plain numbers, no torch.
#pragma once

#include <array>
#include <cstdint>

#include "beholder/settings.h"

namespace beholder {

struct Rgb {
  uint8_t r = 0, g = 0, b = 0;
  friend bool operator==(const Rgb& x, const Rgb& y) { return x.r == y.r && x.g == y.g && x.b == y.b; }
};

/// Colours that no colormap contains, for values that have no place on the scale.
constexpr Rgb kNanColour{0, 255, 0}, kPositiveInfColour{0, 255, 255}, kNegativeInfColour{255, 0, 255};
/// What no section covers in the fit and solo layouts.
constexpr Rgb kBackgroundColour{18, 18, 22};

/// Gray levels 0..255, then the reserved colours: what a value's colour index points into.
constexpr int kGrayLevels = 256;
constexpr int kNanIndex = 256, kPositiveInfIndex = 257, kNegativeInfIndex = 258, kBackgroundIndex = 259;
constexpr int kColours = 260;
using ColourTable = std::array<Rgb, kColours>;

/// The table of a colormap. `separators`: the background is gray 0, as in the classic layout, instead of
/// kBackgroundColour.
/// magma, inferno, plasma, viridis: matplotlib's float64 tables times 255, truncated (not rounded). diverging:
/// symmetric around index 128, through ColorBrewer's RdBu colours; index 0 repeats index 1.
ColourTable colour_table(Colormap colormap, bool separators);

}  // namespace beholder
