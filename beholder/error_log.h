// What fails on Beholder's own threads: counted, and said once for each kind. Internal.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <set>
#include <string>
#include <string_view>

#include "beholder/thread_safety.h"

namespace beholder {

/// "found [12, 3]" as "found [#, #]": texts that differ in numbers alone are of one kind.
std::string without_numbers(std::string_view text);

/// Multithreading: any thread. Nothing here throws, also where there is no memory.
class ErrorLog {
 public:
  /// A line is "<who>: <what> failed: <the error's first line>; <then>"; without `who` it begins with what.
  ErrorLog(const std::string& who, std::string then);

  /// One line for each kind, for twenty of them at most, and one that says that there are more.
  /// `then`: instead of the constructor's, where another thing follows.
  void report(const char* what, std::string_view error, const char* then = nullptr) noexcept;
  /// Calls, and reports what was thrown. False where something was.
  template <typename Call>
  bool guarded(const char* what, const Call& call) noexcept {
    try {
      call();
      return true;
    } catch (const std::exception& error) {
      report(what, error.what());
    } catch (...) {
      report(what, "an exception that is no std::exception");
    }
    return false;
  }

  int64_t count() const;
  /// The last error's first line, empty where there was none.
  std::string last() const;

 private:
  const std::string begin_, then_, no_memory_line_;  // made while there is memory
  std::atomic<bool> no_memory_told_{false};
  mutable Mutex mutex_;
  int64_t count_ BEHOLDER_GUARDED_BY(mutex_) = 0;
  std::string last_ BEHOLDER_GUARDED_BY(mutex_);
  std::set<std::string> known_ BEHOLDER_GUARDED_BY(mutex_);  // kinds of lines
  bool said_no_more_ BEHOLDER_GUARDED_BY(mutex_) = false;
};

}  // namespace beholder
