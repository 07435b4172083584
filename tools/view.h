// `beholder view`: a window that shows a run while it trains, and changes what is shown. A client of the run's live
// server: on this machine it is found by its logdir, elsewhere by its URL (through an ssh tunnel).
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace beholder::viewer {

/// What the command line asks for.
struct ViewRequest {
  std::string target;     ///< a logdir, a folder of logdirs, or a URL; empty = ./runs
  int64_t pid = 0;        ///< not 0: only the run of this process
  std::string latencies;  ///< not empty: a file for measurements, see ViewWindow
};

/// Shows until the user closes the window. Throws std::invalid_argument where the target cannot be one, and
/// std::runtime_error where there is no display.
void view(const ViewRequest& request);

}  // namespace beholder::viewer
