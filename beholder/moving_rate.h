// How much of something there is per second, over the recent past. A value; used by one thread.
#pragma once

namespace beholder {

/// The ratio of two moving averages. (The average of the ratios would count short intervals for too much.)
class MovingRate {
 public:
  /// `weight`, 0 to 1: how much the newest interval counts.
  explicit MovingRate(double weight) : weight_(weight) {}

  /// `amount` within the last `seconds`. Returns the new rate.
  double add(double amount, double seconds) {
    amount_ += weight_ * (amount - amount_);
    seconds_ += weight_ * (seconds - seconds_);
    return seconds_ > 0 ? amount_ / seconds_ : 0;
  }

 private:
  double weight_, amount_ = 0, seconds_ = 0;
};

}  // namespace beholder
