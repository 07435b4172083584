// OpenCV's order of channels, without its threads. Internal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <opencv2/core.hpp>

namespace beholder {

/// rgb (height x width x 3, row-major) as OpenCV's encoders take it. Not by cvtColor: that wakes OpenCV's threads,
/// which nobody has asked for and no budget counts (tests/lint.sh). Throws cv::Exception where there is no memory.
inline cv::Mat bgr_of(const uint8_t* rgb, int width, int height) {
  cv::Mat bgr(height, width, CV_8UC3);
  const size_t pixels = static_cast<size_t>(width) * static_cast<size_t>(height);
  uint8_t* to = bgr.data;
  for (size_t i = 0; i < pixels; ++i, rgb += 3, to += 3) {
    to[0] = rgb[2];
    to[1] = rgb[1];
    to[2] = rgb[0];
  }
  return bgr;
}

}  // namespace beholder
