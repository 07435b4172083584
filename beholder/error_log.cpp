#include "beholder/error_log.h"

#include <utility>

#include "beholder/log.h"

namespace beholder {
namespace {

// Bounded: an error's text may have a number in it that is another one each time.
constexpr size_t kMostTexts = 100;

}  // namespace

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
      if (known_.size() >= kMostTexts || !known_.insert(line).second) return;
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
