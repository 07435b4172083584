// Pictures of tensors without a training: the same plan, gather, history and renderer as the live pipeline, run on
// the calling thread. For `beholder render`, tests and benchmarks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "beholder/named_tensor.h"
#include "beholder/options.h"
#include "beholder/picture.h"

namespace beholder {

/// Renders successive steps. Not thread-safe; blocks until a picture is done.
class StillRenderer {
 public:
  /// options.settings says what is shown; Settings::values decides only whether all tensors are shown, or for
  /// Values::Frame those of kind Frame alone.
  explicit StillRenderer(Options options);
  ~StillRenderer();

  /// The picture after this step; the steps before it make up the history (variance, change). Tensors that cannot be
  /// shown are left out and named in not_shown().
  std::shared_ptr<const Picture> render(const std::vector<NamedTensor>& tensors, int64_t step = 0);
  /// Settings for the next step.
  void set_settings(const Settings& settings);
  /// (name, reason) of the last render().
  const std::vector<std::pair<std::string, std::string>>& not_shown() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace beholder
