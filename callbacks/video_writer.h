// One film: RGB pictures in, an mp4 out that can be read at any moment, also after SIGKILL. The one place that knows
// libav (video_writer.cpp). Owned by whoever records; one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

namespace beholder {

enum class VideoProfile {
  Playable,  ///< H.264 yuv420p: plays in every browser and player; colours of single pixels are smeared
  Exact,     ///< lossless RGB, bit for bit: for analysis; few players show it
};

struct VideoOptions {
  VideoProfile profile = VideoProfile::Playable;
  double frames_per_second = 15;
  /// A libav encoder by name ("mpeg4", "ffv1"), any that this FFmpeg has; empty = the best. Exact needs one that is
  /// lossless and takes RGB.
  std::string encoder;
};

/// The encoder cannot do this: no such encoder, a size that it refuses, or it failed. (What the disk refuses is a
/// std::system_error.)
class EncoderError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Writes one film. Fragments of at most 15 frames, or of one second of wall clock, each begin with a key frame and
/// are handed to the system when complete; the first frame is a fragment of its own.
///
/// Errors: std::system_error with the errno of the disk (ENOSPC, ...), or EncoderError. After an error out of write()
/// or close() the film is closed, and holds all complete fragments; without a single one it is removed.
class VideoWriter {
 public:
  /// Creates `<stem>.mp4`, or `.mkv` where mp4 does not take what the encoder makes; std::system_error EEXIST where it
  /// exists.
  /// REQUIRES: width, height > 0. Sizes are padded by repeating the last row or column, where the encoder
  /// needs even ones.
  VideoWriter(const std::string& stem, int width, int height, const VideoOptions& options);
  /// Closes. An error is lost here: call close() to learn of it.
  ~VideoWriter();
  VideoWriter(const VideoWriter&) = delete;
  VideoWriter& operator=(const VideoWriter&) = delete;

  /// `told` is called before bytes go to the file, whenever they may be of a frame that it was not told of: with the
  /// number of frames that the file may have from then on. What it throws comes out of write() or close(), and ends the
  /// film as an error of the disk does.
  void before_writing(std::function<void(int64_t frames)> told);
  /// Appends one frame. rgb: height x width x 3, row-major.
  void write(const uint8_t* rgb);
  /// Completes the last fragment and the file. Nothing happens on a second call.
  void close();

  const std::string& path() const;
  const std::string& encoder() const;
  /// About what an encoder takes in host memory for each pixel of a picture, copies of the picture that it makes
  /// included. Measured for those that are chosen by themselves and for ffv1, a guess for others.
  static int host_bytes_per_pixel(const VideoOptions& options);
  int64_t bytes() const;        ///< in the file so far
  int64_t frames() const;       ///< written
  int64_t frames_safe() const;  ///< of these, in complete fragments: what a SIGKILL now would leave

  /// File descriptor of the film, -1 once closed: for fstat().
  int descriptor() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace beholder
