// The log lines of a test, instead of those on the terminal. One at a time; any thread may log meanwhile.
#pragma once

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#include "beholder/log.h"

class LogLines {
 public:
  LogLines() {
    beholder::set_log_sink([this](beholder::LogLevel, const std::string& text) {
      std::lock_guard<std::mutex> lock(mutex_);
      lines_.push_back(text);
    });
  }
  ~LogLines() { beholder::set_log_sink({}); }
  LogLines(const LogLines&) = delete;
  LogLines& operator=(const LogLines&) = delete;

  std::vector<std::string> all() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return lines_;
  }
  /// Lines that contain `part`.
  int count(const std::string& part) const {
    const auto lines = all();
    return static_cast<int>(std::count_if(
        lines.begin(), lines.end(), [&](const std::string& line) { return line.find(part) != std::string::npos; }));
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;  // guarded by mutex_
};
