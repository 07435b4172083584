// What gpu_check prints: one line for each check, and the rows of a table.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

/// printf() into a string.
[[gnu::format(printf, 1, 2)]] inline std::string text(const char* format, ...) {
  char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

class Report {
 public:
  /// One check; `found` is printed where it fails.
  void check(bool passed, const std::string& what, const std::string& found = "") {
    std::printf("%s  %s%s\n", passed ? "ok    " : "FAILED", what.c_str(),
                passed || found.empty() ? "" : (": " + found).c_str());
    std::fflush(stdout);
    ++(passed ? passed_ : failed_);
  }
  /// What cannot be checked on this device: neither passed nor failed.
  void left_out(const std::string& what, const std::string& why) {
    std::printf("--      %s: not checked, %s\n", what.c_str(), why.c_str());
  }
  void row(const std::string& what, const std::string& measured) { rows_.emplace_back(what, measured); }

  void print_table() const {
    std::printf("\n| what | measured |\n|---|---|\n");
    for (const auto& [what, measured] : rows_) std::printf("| %s | %s |\n", what.c_str(), measured.c_str());
  }

  int passed() const { return passed_; }
  int failed() const { return failed_; }

 private:
  std::vector<std::pair<std::string, std::string>> rows_;
  int passed_ = 0, failed_ = 0;
};
