#include "tools/picture_format.h"

#include <algorithm>

namespace beholder::viewer {
namespace {

// What is smaller often comes together with its headers, and says nothing about the link.
constexpr size_t kSmallestMeasured = 32 << 10;
// How long a picture may travel. What was chosen is kept until it takes twice as long, so that it does not flicker.
constexpr double kRawSeconds = 0.03, kPngSeconds = 0.1, kPatience = 2;

}  // namespace

const char* to_string(PictureFormat format) {
  switch (format) {
    case PictureFormat::Raw: return "raw";
    case PictureFormat::Png: return "png";
    case PictureFormat::Jpeg: return "jpeg";
  }
  return "png";
}

void FormatChoice::transferred(PictureFormat format, size_t bytes, double seconds) {
  if (format == PictureFormat::Png && raw_bytes_ > 0) {
    png_share_ = static_cast<double>(bytes) / static_cast<double>(raw_bytes_);
  }
  if (bytes < kSmallestMeasured) return;
  const double measured = std::max(seconds, 1e-6) / static_cast<double>(bytes);
  seconds_per_byte_ = seconds_per_byte_ > 0 ? 0.7 * seconds_per_byte_ + 0.3 * measured : measured;
}

PictureFormat FormatChoice::next(size_t raw_bytes) {
  raw_bytes_ = raw_bytes;
  if (seconds_per_byte_ <= 0) return last_ = PictureFormat::Png;
  const double raw = static_cast<double>(raw_bytes) * seconds_per_byte_, png = raw * png_share_;
  const auto allowed = [this](PictureFormat format, double seconds) {
    return last_ == format ? seconds * kPatience : seconds;
  };
  if (raw <= allowed(PictureFormat::Raw, kRawSeconds)) return last_ = PictureFormat::Raw;
  // From jpeg back to exact pictures only where they fit well: their size is a guess then.
  if (png <= (last_ == PictureFormat::Jpeg ? kPngSeconds / kPatience : kPngSeconds)) return last_ = PictureFormat::Png;
  return last_ = PictureFormat::Jpeg;
}

}  // namespace beholder::viewer
