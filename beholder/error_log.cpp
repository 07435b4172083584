#include "beholder/error_log.h"

#include <utility>

#include "beholder/log.h"

namespace beholder {
namespace {

// Bounded: an error's text may have a name in it that is another one each time.
constexpr size_t kMostKinds = 20;

}  // namespace

std::string without_numbers(std::string_view text) {
  std::string kind;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit) kind += c;
    if (digit && (kind.empty() || kind.back() != '#')) kind += '#';
  }
  return kind;
}

ErrorLog::ErrorLog(const std::string& who, std::string then)
    : begin_(who.empty() ? "" : who + ": "), then_(std::move(then)), no_memory_line_(begin_ + "no memory; " + then_) {}

void ErrorLog::report(const char* what, std::string_view error, const char* then) noexcept {
  try {
    std::string line;
    {
      MutexLock lock(mutex_);
      ++count_;
      last_ = error.substr(0, error.find('\n'));
      line = begin_ + what + " failed: " + last_ + "; " + (then ? then : then_);
      std::string kind = without_numbers(line);
      if (known_.count(kind) > 0 || said_no_more_) return;
      if (known_.size() < kMostKinds) {
        known_.insert(std::move(kind));
      } else {
        said_no_more_ = true;
        line = begin_ + "there are more errors, which are not told here any more: see state()";
      }
    }
    log_error(line);
  } catch (...) {  // no memory, not even for the text
    if (!no_memory_told_.exchange(true)) log_error(no_memory_line_);
  }
}

int64_t ErrorLog::count() const {
  MutexLock lock(mutex_);
  return count_;
}

std::string ErrorLog::last() const {
  MutexLock lock(mutex_);
  return last_;
}

}  // namespace beholder
