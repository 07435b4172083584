// `beholder render`: draws the tensors of .safetensors files without a training.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "beholder/options.h"
#include "beholder/section.h"

namespace beholder {

/// What the command line asks for.
struct RenderRequest {
  std::vector<std::string> files;  ///< successive steps
  std::string output;              ///< a .png
  Options options;                 ///< canvas and settings
  bool captions = true;
  /// (globs, kind): what the tensors are whose names match. Of several that match, the last counts.
  std::vector<std::pair<std::string, Kind>> kinds;
};

/// The names by which --kind knows kinds, and the kinds.
const std::vector<std::pair<std::string, Kind>>& kind_names();

/// Renders the steps in order and writes the last picture. Throws TensorFileError where the input cannot be used, other
/// exceptions where the output cannot be written. Says on stderr what is not shown.
void render(const RenderRequest& request);

}  // namespace beholder
