// In which form pictures come over a link: raw where it is fast enough, else png, else jpeg. Chosen by what transfers
// took, not by the address: an ssh tunnel looks like loopback. Pure; owned by the thread that fetches.
#pragma once

#include <cstddef>

namespace beholder::viewer {

enum class PictureFormat { Raw, Png, Jpeg };
const char* to_string(PictureFormat format);

class FormatChoice {
 public:
  /// A body of `bytes` took `seconds` from its headers to its end.
  void transferred(PictureFormat format, size_t bytes, double seconds);
  /// For the next picture, whose pixels are about raw_bytes. The first one is png, which is exact and never huge.
  PictureFormat next(size_t raw_bytes);
  /// 0 where nothing was measured yet.
  double bytes_per_second() const { return seconds_per_byte_ > 0 ? 1 / seconds_per_byte_ : 0; }

 private:
  double seconds_per_byte_ = 0;  // moving average
  double png_share_ = 1.0 / 4;   // of the raw bytes, of the last png
  size_t raw_bytes_ = 0;
  PictureFormat last_ = PictureFormat::Png;
};

}  // namespace beholder::viewer
