// A process in which numbers are written 1.234,5: as a user or a toolkit sets it.
#pragma once

#include <stdlib.h>

#include <clocale>
#include <cstdio>
#include <filesystem>
#include <locale>
#include <string>

/// While it lives, C++'s global locale writes 1.234,5, and so does the C library where it has or can make the locale.
/// One at a time; no other thread of the test may use a locale meanwhile.
class German {
 public:
  German() : before_(std::locale::global(std::locale(std::locale::classic(), new Comma))) {
    if (!std::setlocale(LC_ALL, "de_DE.UTF-8")) make();
    char text[16];
    std::snprintf(text, sizeof text, "%.1f", 1.5);
    c_too_ = std::string(text) == "1,5";
  }
  ~German() {
    std::locale::global(before_);
    std::setlocale(LC_ALL, "C");
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }
  German(const German&) = delete;
  German& operator=(const German&) = delete;

  /// The C library writes so too.
  bool c_too() const { return c_too_; }

 private:
  struct Comma : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };

  void make() {
    folder_ = (std::filesystem::temp_directory_path() / "beholder-locale-XXXXXX").string();
    if (!::mkdtemp(folder_.data())) return folder_.clear();
    const std::string command = "localedef -i de_DE -f UTF-8 '" + folder_ + "/de_DE.UTF-8' >/dev/null 2>&1";
    if (std::system(command.c_str()) != 0) return;
    ::setenv("LOCPATH", folder_.c_str(), 1);
    std::setlocale(LC_ALL, "de_DE.UTF-8");
    ::unsetenv("LOCPATH");
  }

  std::locale before_;
  std::string folder_;
  bool c_too_ = false;
};
