// The index beside a film: one JSON object a line for each frame (step, time, settings). It is written so that whenever
// the process or the disk ends, it has a line for every frame that the film holds.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace beholder {

/// The whole lines of an index, without their newlines; line n is of frame n. A last line without a newline was torn
/// off and is none. `frames`: how many the film holds; lines beyond them are of frames that a killed process did not
/// write any more, and are left out. Throws std::system_error where the file cannot be read. Any thread.
std::vector<std::string> read_film_index(const std::string& path, int64_t frames = INT64_MAX);

/// How much of the first `bytes` of an index is whole lines. descriptor: of a file that can be read. Any thread.
int64_t whole_lines(int descriptor, int64_t bytes);

/// Writes an index. The order that makes it true: add() notes the line of a frame, write() puts it into the file before
/// any byte of this frame goes into the film, cut() removes the lines of frames that the film has lost. One thread at a
/// time. Errors: std::system_error with the errno of the disk.
class FilmIndex {
 public:
  /// Creates the file, and claims the film's name by it: std::system_error EEXIST where it is taken.
  explicit FilmIndex(const std::string& path);
  ~FilmIndex();
  FilmIndex(const FilmIndex&) = delete;
  FilmIndex& operator=(const FilmIndex&) = delete;

  /// The line of the next frame, with its newline. It waits in memory.
  void add(std::string line) { waiting_.push_back(std::move(line)); }
  /// The film is about to take frames up to (not including) number `frames`: their lines go to the system, at once.
  /// REQUIRES that they were added.
  void write(int64_t frames);
  /// The film now holds `frames` for good: the ends of lines before are not needed any more.
  void safe(int64_t frames);
  /// The film has ended with `frames`: one line for each of them is left, as far as the disk lets us.
  void cut(int64_t frames) noexcept;

  int64_t bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int fd_ = -1;
  int64_t bytes_ = 0;                // in the file
  int64_t written_ = 0;              // lines in the file
  std::deque<std::string> waiting_;  // lines from number written_ on
  int64_t first_ = 0;                // line of ends_.front()
  int64_t safe_end_ = 0;             // end of line first_ - 1
  std::deque<int64_t> ends_;         // of the lines from first_ to written_ - 1
};

}  // namespace beholder
