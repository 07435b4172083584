// What the fuzzers share: how an input is read as numbers, how a find is reported, and how much memory an input makes
// the program use. Each fuzz_NAME.cpp defines LLVMFuzzerTestOneInput, which libFuzzer calls with inputs of its own
// making, and corpus_main.cpp with the files of corpus/NAME.
#pragma once

#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

/// Must survive any input. Returns 0.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace fuzz {

/// Ends the program: libFuzzer keeps the input.
[[noreturn]] inline void found(const std::string& what) {
  std::fprintf(stderr, "FOUND: %s\n", what.c_str());
  std::abort();
}

inline void expect(bool holds, const char* what) {
  if (!holds) found(what);
}

/// An input as numbers; zeros when it has ended.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  size_t left() const { return size_ - at_; }
  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  /// Of so many bytes, at most 8.
  uint64_t number(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | byte();
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

/// Bytes that the whole process, all threads, has allocated and not freed since start_counting(), at their highest.
/// Only the address sanitizer counts: 0 without it. (allocations.cpp)
void start_counting();
int64_t most_bytes();

/// Fails where more than `allowed` bytes were needed at once.
inline void expect_at_most(int64_t allowed) {
  const int64_t most = most_bytes();
  if (most > allowed)
    found(std::to_string(most) + " bytes allocated at once; expected at most " + std::to_string(allowed));
}

/// CPU time of this thread, in seconds: independent of what else the machine does.
inline double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// One line that can be shown to a person: short, without control characters.
inline bool is_one_line(const std::string& text, size_t limit = 1500) {
  if (text.empty() || text.size() > limit) return false;
  for (const unsigned char c : text) {
    if (c < 0x20 || c == 0x7f) return false;
  }
  return true;
}

}  // namespace fuzz
