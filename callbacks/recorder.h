// Records what is shown as a film: <logdir>/plugins/beholder/video-<time>.mp4, and beside it video-<time>.jsonl with
// step, time and settings of each frame. One frame per shown picture, so a film plays faster than the training ran.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "beholder/callback.h"
#include "beholder/callbacks/video_writer.h"

namespace beholder {

struct RecorderOptions {
  VideoProfile profile = VideoProfile::Playable;
  bool captions = true;           ///< names, shapes and ranges in the fit layout; the classic one stays pixel for pixel
  bool start = true;              ///< recording begins when the Recorder is added; otherwise with the key r
  double frames_per_second = 15;  ///< of the film when it is played, above 0 to 240
  /// All films of this run together, at least 1 MiB. Beyond it the oldest goes; a film is continued in a new file at a
  /// quarter of it.
  int64_t max_recording_bytes = int64_t{10} << 30;
  /// Left on the disk for the user's checkpoints: recording stops when less is free. 0 switches it off.
  int64_t min_free_bytes = int64_t{1} << 30;
  std::string encoder;  ///< see VideoOptions
};

/// What a Recorder has done so far. A value.
struct RecorderState {
  std::string path;           ///< of the current or last film (the folder, where it is PNGs); empty before the first
  bool recording = false;     ///< a film is open
  int64_t frames = 0;         ///< in all films, those removed included
  int64_t left_out = 0;       ///< pictures that say that there is nothing to show, and fit into no film
  int64_t films = 0;          ///< begun
  int64_t films_removed = 0;  ///< by max_recording_bytes
  int64_t bytes = 0;          ///< on the disk now
};

/// Add it with Beholder::add(). A film begins with the first picture that shows something; pictures that say why there
/// is nothing to show ("no gradients yet") come into it where they have its size, and are left out otherwise. Pictures
/// that show something in another size begin a new film.
///
/// Multithreading: open(), show() and close() as Callback says; state() from any thread.
/// Shutdown: close() and the destructor finish the film; after SIGKILL all but the last fragment (15 frames or one
/// second) can be read, and the index has a line for each of its frames. Where the process ended between the index and
/// the film, it has lines of one fragment more, the last of them maybe torn: read_film_index() leaves these out. SIGINT
/// and SIGTERM are like SIGKILL, unless the program handles them and lets its Beholder end. Errors: when the
/// disk is full, the folder is removed or cannot be written, recording stops (Settings::recording becomes false) with
/// one exception out of show(), complete fragments stay, and switching it on tries again. What no encoder takes becomes
/// PNGs in video-frames-<time>/, with one line in the log.
class Recorder : public Callback {
 public:
  /// Throws std::invalid_argument where an option is out of its range.
  explicit Recorder(RecorderOptions options = {});
  ~Recorder() override;

  std::string name() const override { return "recorder"; }
  Needs needs() const override;
  void open(const Run& run) override;
  void show(std::shared_ptr<const Picture> picture) override;
  void close() override;

  RecorderState state() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace beholder
