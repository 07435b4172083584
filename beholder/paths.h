// Paths that users give.
#pragma once

#include <filesystem>
#include <string>
#include <system_error>

namespace beholder {

/// `path` whatever the working directory will be, when a file is written; as it is where there is no such directory
/// now.
inline std::string absolute_path(const std::string& path) {
  std::error_code error;
  const auto found = std::filesystem::absolute(path.empty() ? "." : path, error);
  return error ? path : found.lexically_normal().string();
}

}  // namespace beholder
