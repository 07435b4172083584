// Past values of one view: what variance and change are computed from. Owned by the render thread's view.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <vector>

#include "beholder/settings.h"

namespace beholder {

/// The window of past pictures' values.
///
/// Variance is the population variance over the window. Up to five entries, and as long as the whole window holds no
/// more than kExactValues values, it is computed as the original does (two passes in float32, oldest first), so that
/// its pixels are equal. Longer windows of many values use a running mean and sum of squared deviations (Welford 1962,
/// with replacement of the oldest entry), whose cost does not depend on the window; each picture recomputes a part of
/// the values in two passes, so that no rounding error outlives the window. A value that did not change within the
/// window has variance exactly 0; one that was not finite within the window has variance NaN. Finite values have a
/// finite variance and a finite change, whatever their squares are in float32; where the result, or the value itself,
/// is beyond float32, it is marked so (narrowing.h).
class History {
 public:
  /// 16 MiB of float32: two passes over them take a millisecond or two.
  static constexpr int64_t kExactValues = int64_t{1} << 22;
  static constexpr int kExactEntries = 5;

  void clear();

  /// A run of values that stand somewhere else from now on.
  struct Moved {
    int64_t from = 0, to = 0, count = 0;
  };
  /// The next values are `count`, of which `moved` are known from before; the others are absent (rendering.h).
  void remap(int64_t count, const std::vector<Moved>& moved);

  /// Of the last push(), undefined after clear() and before the first.
  const at::Tensor& latest() const { return latest_; }
  /// `values` are about to be pushed: those that were absent in latest() and are there now count as if they had always
  /// been so.
  void backfill(const at::Tensor& values);

  /// Uninitialised float32 (count) on `device` for the next values; reuses what has left the window.
  at::Tensor buffer(int64_t count, c10::Device device);

  /// Takes `values`, float32 (n), and returns what is shown, float32 (n): in mode current the values themselves.
  /// `beyond`: some of the values may be marked as beyond float32.
  at::Tensor push(at::Tensor values, int64_t step, Mode mode, int window_size, bool beyond = false);

  /// Tells what push() returned last: whether any of it was not finite, or beyond float32. Other devices, where to look
  /// would be to wait, then compute such values of the next variance anew.
  void note(bool not_finite) { mend_ = not_finite; }

  /// Entries in the window (variance), 1 or 2 pictures (change), else 0.
  int size() const { return static_cast<int>(entries_.size()); }
  /// Mode change: steps between the two pictures; 0 before the second.
  int64_t change_steps() const { return change_steps_; }
  /// Mode change: the values before the change, undefined before the second picture.
  const at::Tensor& previous() const { return previous_; }

 private:
  at::Tensor change(at::Tensor values, int64_t step, bool beyond);
  at::Tensor variance(at::Tensor values, int window_size);
  void retire(at::Tensor tensor);

  std::deque<at::Tensor> entries_;  // oldest first; each float32 (n)
  std::deque<at::Tensor> spare_;    // buffers to reuse
  at::Tensor previous_, shown_;
  at::Tensor latest_;  // the last values taken
  int64_t previous_step_ = 0, change_steps_ = 0;
  // The running form; origin_ is undefined while the exact one is used.
  at::Tensor origin_, mean_;  // float32 (n): the mean when it was last exact, and the mean's distance from it
  at::Tensor squares_;        // float32 (n): sum of squared deviations
  at::Tensor unchanged_;      // uint8 (n): pictures since the value changed (other devices)
  at::Tensor peak_;           // uint8 (n): exponent of the largest sum of squares since it was last exact (CPU)
  bool mend_ = false;         // see note()
  int64_t refresh_ = 0;       // which part is recomputed next
};

}  // namespace beholder
