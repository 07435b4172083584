// Which steps are asked for by update(Now). Internal; used by the training thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace beholder {

/// Whether a forward must be watched has to be known before it runs, and update(Now) comes after it: what is asked for
/// next is guessed from what was asked for. Updates are counted from 0.
class AskedSteps {
 public:
  /// Update n is an update(Now).
  void asked(int64_t n) {
    interval_ = n - last_;
    last_ = n;
    any_ = true;
  }
  /// Update n comes as many updates after the last update(Now) as that came after the one before (the first: after the
  /// beginning).
  bool expected(int64_t n) const { return any_ && n - last_ == interval_; }
  /// It would be no surprise: somebody has asked lately.
  bool likely(int64_t n) const { return any_ && n - last_ <= std::max(kLately, 10 * interval_); }

 private:
  static constexpr int64_t kLately = 1000;

  int64_t last_ = -1, interval_ = 0;
  bool any_ = false;
};

}  // namespace beholder
