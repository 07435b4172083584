// PNG files: one picture, or the numbered frames of a film that no encoder takes.
#pragma once

#include <cstdint>
#include <string>

namespace beholder {

/// Writes rgb (height x width x 3, row-major) to `path`: aside first, then renamed into place, so that a reader never
/// sees half a file. Returns the size in bytes. Throws std::system_error with the errno of the disk, or
/// std::runtime_error where the picture cannot be encoded. Any thread.
int64_t write_png(const std::string& path, const uint8_t* rgb, int width, int height);

/// A folder of 00000.png, 00001.png, ... One thread at a time.
class PngFolder {
 public:
  /// Creates the folder; std::system_error EEXIST where it exists.
  explicit PngFolder(const std::string& path);

  /// Appends one frame; errors as write_png(), and the frames before stay.
  void write(const uint8_t* rgb, int width, int height);

  const std::string& path() const { return path_; }
  int64_t frames() const { return frames_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::string path_;
  int64_t frames_ = 0, bytes_ = 0;
};

}  // namespace beholder
