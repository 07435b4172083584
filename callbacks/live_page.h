// The page's files (callbacks/page/), which CMake puts into the library (cmake/EmbedFiles.cmake). Internal.
#pragma once

#include <string_view>

namespace beholder {

/// The bytes of "index.html", "page.css" or "page.js"; nothing for any other name. Any thread.
std::string_view page_file(std::string_view name);

}  // namespace beholder
