#include "beholder/callbacks/film_index.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <system_error>
#include <utility>

#include "beholder/paths.h"

namespace beholder {

std::vector<std::string> read_film_index(const std::string& path, int64_t frames) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::system_error(errno != 0 ? errno : EIO, std::generic_category(), "cannot read " + path);
  std::vector<std::string> lines;
  std::string line;
  // Where the file ends without a newline, getline() has met the end.
  while (static_cast<int64_t>(lines.size()) < frames && std::getline(file, line) && !file.eof()) lines.push_back(line);
  return lines;
}

int64_t whole_lines(int descriptor, int64_t bytes) {
  std::array<char, 4096> part;
  while (bytes > 0) {
    const auto length = static_cast<ssize_t>(std::min<int64_t>(bytes, static_cast<int64_t>(part.size())));
    const ssize_t read = ::pread(descriptor, part.data(), static_cast<size_t>(length), bytes - length);
    if (read < 0 && errno == EINTR) continue;
    if (read != length) return 0;  // cut by somebody else meanwhile
    for (ssize_t at = length; at > 0; --at) {
      if (part[static_cast<size_t>(at - 1)] == '\n') return bytes - length + at;
    }
    bytes -= length;
  }
  return 0;
}

FilmIndex::FilmIndex(const std::string& path) : path_(absolute_path(path)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "cannot create " + path_);
}

FilmIndex::~FilmIndex() { ::close(fd_); }

void FilmIndex::write(int64_t frames) {
  std::string text;
  const auto count = std::min(static_cast<size_t>(std::max<int64_t>(0, frames - written_)), waiting_.size());
  for (size_t i = 0; i < count; ++i) {
    text += waiting_[i];
    ends_.push_back(bytes_ + static_cast<int64_t>(text.size()));  // where this fails, cut() has no use for them
  }
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw std::system_error(n < 0 ? errno : ENOSPC, std::generic_category(), "cannot write " + path_);
    done += static_cast<size_t>(n);
  }
  bytes_ += static_cast<int64_t>(text.size());
  written_ += static_cast<int64_t>(count);
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(count));
}

void FilmIndex::safe(int64_t frames) {
  while (first_ < frames && !ends_.empty()) {
    safe_end_ = ends_.front();
    ends_.pop_front();
    ++first_;
  }
}

void FilmIndex::cut(int64_t frames) noexcept {
  waiting_.clear();
  safe(frames);
  if (::ftruncate(fd_, safe_end_) == 0) bytes_ = safe_end_;
}

}  // namespace beholder
