// Where every section stands on the canvas, and how its values lie in its cell. Pure geometry (see section.h): the
// classic column of the original, our own fit layout, and one section alone (solo).
#pragma once

#include <string>
#include <vector>

#include "beholder/section.h"

namespace beholder {

/// How much text the fit layout has room for, in the order of its degradation.
enum class CaptionDetail {
  Full,  ///< name, shape, what is shown, range
  Name,  ///< the name alone
  None,  ///< no captions
};

/// The whole picture's geometry. Immutable once made.
struct Layout {
  int width = 0, height = 0;      ///< pixels
  std::vector<Section> sections;  ///< those on this page, in the order of the tensors
  CaptionDetail captions = CaptionDetail::Full;
  Rect footer;                ///< room for the status line and the colour scale; height 0 in classic
  int page = 0, pages = 1;    ///< this page (0-based) and how many there are
  size_t first_section = 0;   ///< index, among all tensors, of the first section of this page
  size_t total_sections = 0;  ///< on all pages
  bool separators = false;    ///< classic: what no section covers is gray 0 of the colormap, else background
  std::string reduced;        ///< not empty: why less is shown than was asked for ("sampled to keep within 256 MiB")
};

/// Sizes of the fit and solo layouts in pixels.
struct FitMetrics {
  static constexpr int kGap = 8;             ///< between columns, and around the canvas
  static constexpr int kCaptionHeight = 15;  ///< a caption line above a section
  static constexpr int kVectorHeight = 14;   ///< a vector's strip with its name on the same line
  static constexpr int kFooterHeight = 18;
};

/// One column, W = 768, 128 pixels a section, 5 between them: the original pixel for pixel,
/// with these exceptions: kinds are known instead of guessed, vectors stay 128 high with show all).
/// Source: chrisranderson/beholder, commit 91771bf, visualizer.py and image_util.py.
/// max_values > 0 bounds the values gathered: sections are then sampled and Layout::reduced says so.
Layout classic_layout(const std::vector<TensorShape>& tensors, bool show_all, int64_t max_values = 0);

/// A canvas of fixed size with several columns. Never fails: degrades by CaptionDetail, then smallest blocks, then
/// pages. `page` is clamped. Sections of one page that have the same kind and shape show the same part of their tensors
/// in blocks of the same size, whatever room their columns have left.
Layout fit_layout(const std::vector<TensorShape>& tensors, int width, int height, bool show_all, int page = 0,
                  int64_t max_values = 0);

/// One tensor on the whole canvas. zoom 1 shows the whole where blocks of one pixel allow; pan_x, pan_y in 0..1 say
/// where the visible part begins, as a share of what is hidden.
Layout solo_layout(const TensorShape& tensor, int width, int height, bool show_all, double zoom = 1, double pan_x = 0,
                   double pan_y = 0, int64_t max_values = 0);

/// Nearest-neighbour source index of TensorFlow 1's resize (align_corners = false), in float32:
/// min(trunc(floor(f32(i) * (f32(in) / f32(out)))), in - 1) for i = 0..out-1. Not the same as i * in / out.
std::vector<int64_t> resize_indices(int64_t in, int64_t out);

}  // namespace beholder
