// The forms in which the live server hands out a picture: each made once for all viewers who ask, by the first of them.
// Internal; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "beholder/picture.h"

namespace beholder {

enum class PictureFormat {
  Raw,  ///< height x width x 3, row-major, R G B
  Png,
  Jpeg,
};
std::optional<PictureFormat> picture_format(const std::string& name);  ///< "raw", "png", "jpeg"
const char* content_type(PictureFormat format);

/// Bytes that something else keeps alive.
struct SharedBytes {
  std::shared_ptr<const void> owner;
  const char* data = nullptr;
  size_t size = 0;
};

/// `picture` in this format, with text on request (small labels in the classic layout, which has no room for it).
/// jpeg_quality: 1..100. The first caller for a picture and a form makes it, others wait for it. Throws
/// std::runtime_error where it cannot be encoded.
SharedBytes encoded(const std::shared_ptr<const Picture>& picture, PictureFormat format, bool captions,
                    int jpeg_quality);

/// How many times this process has made a PNG, a JPEG or a captioned copy for encoded(). For tests of what is not made.
int64_t encodings_made();

}  // namespace beholder
