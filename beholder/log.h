// The lines that a user reads. The one place that knows spdlog (log.cpp): fmt's headers of the torch wheel and
// Debian's spdlog do not go together.
#pragma once

#include <functional>
#include <string>

namespace beholder {

enum class LogLevel { Info, Warning, Error };

/// One line to the logger "beholder" (stderr by default). Never throws. Any thread.
void log(LogLevel level, const std::string& text) noexcept;
inline void log_info(const std::string& text) noexcept { log(LogLevel::Info, text); }
inline void log_warning(const std::string& text) noexcept { log(LogLevel::Warning, text); }
inline void log_error(const std::string& text) noexcept { log(LogLevel::Error, text); }

/// Sends lines to `sink` instead of the terminal; an empty function restores the terminal. Any thread; the sink is
/// called under a lock and must not log itself.
void set_log_sink(std::function<void(LogLevel, const std::string&)> sink);

}  // namespace beholder
