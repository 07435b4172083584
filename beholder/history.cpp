#include "beholder/history.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "beholder/narrowing.h"
#include "beholder/rendering.h"

// Compiled a second time for processors with AVX2, chosen when the program is loaded: twice the width, the same results
// (no fused operation is among them). Not with sanitizers, which are not ready yet when that choice is made.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define BEHOLDER_ALSO_AVX2 __attribute__((target_clones("avx2", "default")))
#else
#define BEHOLDER_ALSO_AVX2
#endif

namespace beholder {
namespace {

/// Values that stay in the first-level cache while all entries of the window pass over them.
constexpr int64_t kBlock = 1024;

/// Raw pointers to the window, oldest first. CPU only.
std::vector<const float*> pointers(const std::deque<at::Tensor>& entries) {
  std::vector<const float*> out;
  for (const auto& entry : entries) out.push_back(static_cast<const float*>(entry.data_ptr()));
  return out;
}

/// Of values that are nearly always finite: a look at a block of them together costs a part of one look at each.
BEHOLDER_ALSO_AVX2
bool all_finite_cpu(const float* values, int64_t count) {
  constexpr uint32_t kExponent = 0x7F800000;
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    found |= (bits & kExponent) == kExponent ? 1 : 0;
  }
  return found == 0;
}

/// Calls visit(i) for each value that is not finite.
template <typename Visit>
void for_each_not_finite(const float* values, int64_t count, const Visit& visit) {
  for (int64_t block = 0; block < count; block += kBlock) {
    const int64_t end = std::min(count, block + kBlock);
    if (all_finite_cpu(values + block, end - block)) continue;
    for (int64_t i = block; i < end; ++i) {
      if (!is_finite_bits(values[i])) visit(i);
    }
  }
}

/// Sum of squared deviations of values [begin, end) in two passes, in float32, oldest first, divided by `divisor`.
/// Where they are no nullptr, `origin` receives the mean and `mean` what rounding has left out of it: the mean of the
/// deviations from origin. A value that is the same in all entries has the sum 0 (NaN where it is not finite), not the
/// rounding error of its mean.
BEHOLDER_ALSO_AVX2
void two_passes_cpu(const std::vector<const float*>& entries, int64_t begin, int64_t end, float* origin, float* mean,
                    float* squares, float divisor) {
  const auto count = static_cast<float>(entries.size());
  float m[kBlock], q[kBlock], rest[kBlock];
  int32_t changed[kBlock];
  for (int64_t block = begin; block < end; block += kBlock) {
    const int64_t n = std::min(end - block, kBlock);
    const float* first = entries[0] + block;
    std::copy_n(first, n, m);
    std::fill_n(changed, n, 0);
    for (size_t t = 1; t < entries.size(); ++t) {
      const float* x = entries[t] + block;
      for (int64_t i = 0; i < n; ++i) m[i] += x[i];
      for (int64_t i = 0; i < n; ++i) changed[i] |= x[i] != first[i] ? 1 : 0;
    }
    for (int64_t i = 0; i < n; ++i) m[i] = changed[i] ? m[i] / count : first[i];
    std::fill_n(q, n, 0.0F);
    if (!origin) {
      for (const float* entry : entries) {
        const float* x = entry + block;
        for (int64_t i = 0; i < n; ++i) q[i] += (x[i] - m[i]) * (x[i] - m[i]);
      }
    } else {
      std::fill_n(rest, n, 0.0F);
      for (const float* entry : entries) {
        const float* x = entry + block;
        for (int64_t i = 0; i < n; ++i) {
          const float d = x[i] - m[i];
          q[i] += d * d;
          rest[i] += d;
        }
      }
      std::copy_n(m, n, origin + block);
      for (int64_t i = 0; i < n; ++i) mean[block + i] = rest[i] / count;
    }
    for (int64_t i = 0; i < n; ++i) squares[block + i] = q[i] / divisor;
  }
}

/// A number on the device. (Some devices multiply by the reciprocal of a number that comes from the host.)
at::Tensor number(double value, const at::Tensor& like) { return at::full({}, value, like.options()); }

/// The same on other devices.
void two_passes_device(const std::deque<at::Tensor>& entries, int64_t begin, int64_t end, const at::Tensor& origin,
                       const at::Tensor& mean, const at::Tensor& squares, double divisor) {
  const auto part = [&](const at::Tensor& t) { return t.narrow(0, begin, end - begin); };
  auto m = origin.defined() ? part(origin) : at::empty({end - begin}, squares.options());
  auto q = part(squares);
  m.copy_(part(entries[0]));
  for (size_t t = 1; t < entries.size(); ++t) m.add_(part(entries[t]));
  m.div_(number(static_cast<double>(entries.size()), m));
  at::Tensor same;
  for (size_t t = 1; t < entries.size(); ++t) {
    auto equal = part(entries[t]).eq(part(entries[0]));
    same = same.defined() ? same.logical_and_(equal) : std::move(equal);
  }
  if (same.defined()) m.copy_(at::where(same, part(entries[0]), m));
  q.zero_();
  for (const auto& entry : entries) q.add_(part(entry).sub(m).square_());
  if (divisor != 1) q.div_(number(divisor, q));
  if (!mean.defined()) return;
  auto rest = part(mean).zero_();
  for (const auto& entry : entries) rest.add_(part(entry).sub(m));
  rest.div_(number(static_cast<double>(entries.size()), rest));
}

float* floats(const at::Tensor& tensor) { return tensor.defined() ? static_cast<float*>(tensor.data_ptr()) : nullptr; }

void two_passes(const std::deque<at::Tensor>& entries, int64_t begin, int64_t end, const at::Tensor& origin,
                const at::Tensor& mean, const at::Tensor& squares, double divisor) {
  if (!squares.is_cpu()) {
    two_passes_device(entries, begin, end, origin, mean, squares, divisor);
    return;
  }
  two_passes_cpu(pointers(entries), begin, end, floats(origin), floats(mean), floats(squares),
                 static_cast<float>(divisor));
}

/// Variance of finite values whose sums or squares leave float32, from float64. It is never smaller than a part of the
/// largest square that does not depend on the values, since the first entry is one of them: one pass is as good as two.
struct Wide {
  double sum = 0, squares = 0;  // of the distances from the first entry
  double variance(double count) const { return squares / count - sum / count * (sum / count); }
};

void mend_overflow_cpu(const std::deque<at::Tensor>& entries, const at::Tensor& shown) {
  const auto from = pointers(entries);
  auto* v = floats(shown);
  for_each_not_finite(v, shown.numel(), [&](int64_t i) {
    Wide wide;
    bool finite = true;
    for (const float* x : from) {
      finite = finite && is_finite_bits(x[i]);
      const double d = static_cast<double>(x[i]) - from[0][i];
      wide.sum += d;
      wide.squares += d * d;
    }
    if (finite) v[i] = narrowed(wide.variance(static_cast<double>(from.size())));
  });
}

void mend_overflow_device(const std::deque<at::Tensor>& entries, const at::Tensor& shown) {
  const auto count = static_cast<int64_t>(entries.size());
  const int64_t n = shown.numel(), part = std::max<int64_t>(1, History::kExactValues / count);
  for (int64_t begin = 0; begin < n; begin += part) {
    const int64_t size = std::min(part, n - begin);
    std::vector<at::Tensor> parts;
    for (const auto& entry : entries) parts.push_back(entry.narrow(0, begin, size));
    const at::Tensor distances = at::stack(parts).to(at::kDouble).sub_(parts[0].to(at::kDouble));
    const at::Tensor mean = distances.sum(0).div_(static_cast<double>(count));
    const at::Tensor wide =
        distances.square_().sum(0).div_(static_cast<double>(count)).sub_(mean.square());  // NaN where not all finite
    const at::Tensor narrow = at::empty({size}, shown.options());
    narrow_into(narrow, wide);
    const at::Tensor target = shown.narrow(0, begin, size);
    target.copy_(at::where(target.isfinite().logical_or_(wide.isfinite().logical_not_()), target, narrow));
  }
}

/// What is not finite in `shown`, the variance of `entries`, though they are.
void mend_overflow(const std::deque<at::Tensor>& entries, const at::Tensor& shown) {
  if (shown.is_cpu()) {
    mend_overflow_cpu(entries, shown);
  } else {
    mend_overflow_device(entries, shown);
  }
}

/// Marks the changes that are beyond float32 in `shown` = `now` - `before`. `beyond`: some of the values may be, too.
void mark_changes(const at::Tensor& shown, const at::Tensor& now, const at::Tensor& before, bool beyond) {
  if (shown.is_cpu()) {
    auto* v = floats(shown);
    const float *x = floats(now), *y = floats(before);
    for_each_not_finite(v, shown.numel(), [&](int64_t i) {
      if (is_absent(v[i])) return;
      const int of_now = beyond_sign(x[i]), of_before = beyond_sign(y[i]);
      if (!(of_now != 0 || is_finite_bits(x[i])) || !(of_before != 0 || is_finite_bits(y[i]))) {
        if (!std::isinf(v[i])) v[i] = std::numeric_limits<float>::quiet_NaN();
      } else {
        v[i] = beholder::beyond(of_now != 0 ? of_now : of_before != 0 ? -of_before : v[i] > 0 ? 1 : -1);
      }
    });
    return;
  }
  if (!beyond) {
    const at::Tensor over = shown.isinf().logical_and_(now.isfinite()).logical_and_(before.isfinite());
    make_beyond(shown, over.logical_and(shown.gt(0)), over.logical_and(shown.lt(0)));
    return;
  }
  const at::Tensor known = beyond_in(now).logical_or_(beyond_in(before)).logical_not_();
  const at::Tensor x = clamped(now), y = clamped(before);
  const at::Tensor finite = x.isfinite().logical_and_(y.isfinite());
  at::Tensor up = above_in(now).logical_or_(below_in(before).logical_and_(below_in(now).logical_not_()));
  up.logical_or_(known.logical_and(shown.gt(0)));
  const at::Tensor over = finite.logical_and_(shown.isfinite().logical_not_());
  shown.masked_fill_(beyond_in(shown), std::numeric_limits<double>::quiet_NaN());  // a NaN of what was no number
  make_beyond(shown, over.logical_and(up), over.logical_and(up.logical_not()));
}

/// 1 + the length of the run of equal newest entries, at most 255; what `unchanged` starts with.
void count_unchanged(const std::deque<at::Tensor>& entries, const at::Tensor& unchanged) {
  unchanged.zero_();
  auto running = at::empty_like(unchanged).fill_(1);
  for (size_t t = entries.size(); t-- > 1;) {
    running.mul_(entries[t].eq(entries[t - 1]));
    unchanged.add_(running);
  }
}

struct Running {
  const float* added;
  const float* removed;  // nullptr while the window fills; may be the memory of `shown`
  float *origin, *mean, *squares, *shown;
  uint8_t* peak;
};

constexpr uint8_t kNoNumber = 255;

/// The exponents of `n` numbers that are not negative: 0 for 0, and kNoNumber for NaN, infinity and what is too small
/// to have all its digits. n <= kBlock.
BEHOLDER_ALSO_AVX2
void exponents(const float* numbers, int64_t n, uint8_t* out) {
  uint32_t bits[kBlock];
  std::memcpy(bits, numbers, static_cast<size_t>(n) * sizeof(float));
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t exponent = bits[i] >> 23 & 0xff;
    out[i] = static_cast<uint8_t>(exponent == 0 && bits[i] != 0 ? kNoNumber : exponent);
  }
}

/// What is left of a sum that has shrunk by more than 2 to this power is mostly its rounding error.
constexpr int kShrunk = 12;

/// Computed anew is what was poisoned by a value that has left the window (NaN, or one that was larger by far), and
/// what does not change any more, whose sum is then exactly 0: each value of [begin, end) alone, or all of them where
/// there are many. (Other devices count pictures without a change; of poison they are rid within one window, by the
/// part that is recomputed at each picture.) end - begin <= kBlock.
BEHOLDER_ALSO_AVX2
void heal_cpu(const std::vector<const float*>& entries, const Running& r, int64_t begin, int64_t end) {
  const auto n = end - begin;
  uint8_t* peak = r.peak + begin;
  uint8_t now[kBlock];
  exponents(r.squares + begin, n, now);
  const auto is_bad = [&](int64_t i) -> uint8_t {
    return (peak[i] - now[i] > kShrunk ? 1 : 0) | (now[i] == kNoNumber ? 1 : 0);
  };
  uint8_t any = 0;
  for (int64_t i = 0; i < n; ++i) {
    peak[i] = std::max(peak[i], now[i]);
    any |= is_bad(i);
  }
  if (any == 0) return;
  const auto compute = [&](int64_t first, int64_t count) {
    two_passes_cpu(entries, begin + first, begin + first + count, r.origin, r.mean, r.squares, 1);
    exponents(r.squares + begin + first, count, peak + first);
    for (int64_t i = begin + first; i < begin + first + count; ++i) {
      r.shown[i] = r.squares[i] / static_cast<float>(entries.size());
    }
  };
  int64_t bad = 0;
  for (int64_t i = 0; i < n; ++i) bad += is_bad(i);
  if (bad > n / 32) {
    compute(0, n);
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    if (is_bad(i) != 0) compute(i, 1);
  }
}

/// The sums of [begin, end) are exact.
void peaks_cpu(const at::Tensor& squares, int64_t begin, int64_t end, const at::Tensor& peak) {
  for (int64_t i = begin; i < end; i += kBlock) {
    exponents(floats(squares) + i, std::min(kBlock, end - i), static_cast<uint8_t*>(peak.data_ptr()) + i);
  }
}

/// One new value for each of n; `entries` are those afterwards.
BEHOLDER_ALSO_AVX2
void run_cpu(const std::vector<const float*>& entries, const Running& r, int64_t n) {
  const auto count = static_cast<int>(entries.size());
  const float share = 1.0F / static_cast<float>(count);
  for (int64_t block = 0; block < n; block += kBlock) {
    const int64_t stop = std::min(n, block + kBlock);
    if (r.removed) {
      for (int64_t i = block; i < stop; ++i) {
        const float d = r.added[i] - r.removed[i];
        const float mean = r.mean[i] + d * share;
        const float squares =
            r.squares[i] + d * (((r.added[i] - r.origin[i]) - mean) + ((r.removed[i] - r.origin[i]) - r.mean[i]));
        r.mean[i] = mean;
        r.squares[i] = squares < 0 ? 0 : squares;
      }
    } else {
      for (int64_t i = block; i < stop; ++i) {
        const float x = r.added[i] - r.origin[i];
        const float d = x - r.mean[i];
        r.mean[i] += d * share;
        r.squares[i] += d * (x - r.mean[i]);
      }
    }
    for (int64_t i = block; i < stop; ++i) r.shown[i] = r.squares[i] * share;
    heal_cpu(entries, r, block, stop);
  }
}

void run_device(const at::Tensor& added, const at::Tensor& newest, const at::Tensor& removed, const at::Tensor& origin,
                at::Tensor& mean, at::Tensor& squares, at::Tensor& unchanged, at::Tensor& shown, int count) {
  const float share = 1.0F / static_cast<float>(count);  // operation by operation as run_cpu()
  if (removed.defined()) {
    const auto d = added.sub(removed);
    const auto old_distance = removed.sub(origin).sub_(mean);
    mean.add_(d.mul(share));
    squares.add_(d.mul(added.sub(origin).sub_(mean).add_(old_distance)));
    squares.copy_(at::where(squares.lt(0), at::zeros_like(squares), squares));
  } else {
    const auto x = added.sub(origin);
    const auto d = x.sub(mean);
    mean.add_(d.mul(share));
    squares.add_(d.mul(x.sub(mean)));
  }
  unchanged.clamp_max_(254).add_(1).mul_(added.eq(newest));
  shown.copy_(squares).mul_(share).masked_fill_(unchanged.ge(count - 1), 0);
}

}  // namespace

void History::clear() {
  for (auto& entry : entries_) retire(std::move(entry));
  entries_.clear();
  retire(std::move(previous_));
  previous_ = latest_ = origin_ = mean_ = squares_ = peak_ = unchanged_ = at::Tensor();
  change_steps_ = 0;
  refresh_ = 0;
}

void History::remap(int64_t count, const std::vector<Moved>& moved) {
  if (!latest_.defined()) {
    clear();
    return;
  }
  const at::NoGradGuard no_grad;
  const auto elsewhere = [&](const at::Tensor& from) {
    at::Tensor to = at::empty({count}, from.options());
    make_absent(to);
    for (const Moved& run : moved) to.narrow(0, run.to, run.count).copy_(from.narrow(0, run.from, run.count));
    return to;
  };
  const bool kept = !entries_.empty();
  const bool same = kept && entries_.back().is_same(latest_);  // not where its copy is clamped
  for (auto& entry : entries_) entry = elsewhere(entry);
  if (previous_.defined()) previous_ = elsewhere(previous_);
  latest_ = same ? entries_.back() : elsewhere(latest_);
  shown_ = origin_ = mean_ = squares_ = peak_ = unchanged_ = at::Tensor();
  spare_.clear();
}

void History::backfill(const at::Tensor& values) {
  if (entries_.empty() || !latest_.defined() || latest_.sizes() != values.sizes()) return;
  const at::NoGradGuard no_grad;
  const auto known_now = absent_in(latest_).logical_and_(absent_in(values).logical_not_());
  const at::Tensor past = entries_.back().is_same(latest_) ? values : clamped(values);
  for (auto& entry : entries_) entry.copy_(at::where(known_now, past, entry));
  if (previous_.defined()) previous_.copy_(at::where(known_now, values, previous_));
  origin_ = at::Tensor();  // the running form begins anew
}

at::Tensor History::buffer(int64_t count, c10::Device device) {
  while (!spare_.empty()) {
    at::Tensor tensor = std::move(spare_.back());
    spare_.pop_back();
    if (tensor.numel() == count && tensor.device() == device) return tensor;
  }
  return at::empty({count}, at::TensorOptions().dtype(at::kFloat).device(device));
}

void History::retire(at::Tensor tensor) {
  if (tensor.defined() && spare_.size() < 3) spare_.push_back(std::move(tensor));
}

at::Tensor History::push(at::Tensor values, int64_t step, Mode mode, int window_size, bool beyond) {
  const at::NoGradGuard no_grad;
  const bool other =
      !entries_.empty() && (entries_.back().sizes() != values.sizes() || entries_.back().device() != values.device());
  if (other) clear();
  switch (mode) {
    case Mode::Variance: {
      latest_ = values;
      const at::Tensor shown = variance(beyond ? clamped(values) : values, window_size);
      if (beyond) {  // of a value that is not known exactly nothing is known
        const at::Tensor above = beyond_in(values).logical_and_(shown.isnan().logical_not_());
        make_beyond(shown, above, above.logical_not().zero_());
      }
      return shown;
    }
    case Mode::Change: latest_ = values; return change(std::move(values), step, beyond);
    case Mode::Current: break;
  }
  if (!entries_.empty()) clear();
  retire(std::move(shown_));
  shown_ = latest_ = values;
  return values;
}

at::Tensor History::change(at::Tensor values, int64_t step, bool beyond) {
  if (!shown_.defined() || shown_.sizes() != values.sizes() || shown_.device() != values.device()) {
    shown_ = at::empty_like(values);
  }
  if (entries_.empty()) {
    shown_.zero_();
    shown_.masked_fill_(values.isfinite().logical_not_(), std::numeric_limits<float>::quiet_NaN());
    if (beyond) make_beyond(shown_, above_in(values), below_in(values));
    change_steps_ = 0;
  } else {
    at::sub_out(shown_, values, entries_.back());
    mark_changes(shown_, values, entries_.back(), beyond);
    change_steps_ = step - previous_step_;
    retire(std::move(previous_));
    previous_ = entries_.back();
    entries_.clear();
  }
  entries_.push_back(std::move(values));
  previous_step_ = step;
  return shown_;
}

at::Tensor History::variance(at::Tensor values, int window_size) {
  const auto window = static_cast<size_t>(std::max(2, window_size));
  const int64_t n = values.numel();
  if (!shown_.defined() || shown_.sizes() != values.sizes() || shown_.device() != values.device()) {
    shown_ = at::empty_like(values);
  }
  at::Tensor removed;
  bool jump = false;  // more than one entry leaves: the running form starts anew
  while (entries_.size() >= window) {
    jump = jump || removed.defined();
    retire(std::move(removed));
    removed = std::move(entries_.front());
    entries_.pop_front();
  }
  entries_.push_back(std::move(values));
  const auto count = static_cast<int>(entries_.size());
  if (count <= kExactEntries || count * n <= kExactValues) {
    origin_ = at::Tensor();
    two_passes(entries_, 0, n, /*origin=*/at::Tensor(), /*mean=*/at::Tensor(), shown_, count);
    mend_overflow(entries_, shown_);
    retire(std::move(removed));
    return shown_;
  }
  if (jump || !origin_.defined()) {
    origin_ = at::empty_like(shown_);
    mean_ = at::empty_like(shown_);
    squares_ = at::empty_like(shown_);
    two_passes(entries_, 0, n, origin_, mean_, squares_, 1);
    const auto bytes = at::empty({n}, shown_.options().dtype(at::kByte));
    shown_.copy_(squares_).mul_(1.0F / static_cast<float>(count));
    mend_overflow(entries_, shown_);
    if (shown_.is_cpu()) {
      peak_ = bytes;
      peaks_cpu(squares_, 0, n, peak_);
    } else {
      unchanged_ = bytes;
      count_unchanged(entries_, unchanged_);
      shown_.masked_fill_(unchanged_.ge(count - 1), 0);
    }
    retire(std::move(removed));
    return shown_;
  }
  const at::Tensor& added = entries_.back();
  // A part of the values anew, so that nothing of what has left the window stays.
  const int64_t parts = count, part = (n + parts - 1) / parts, begin = std::min(n, refresh_ % parts * part);
  const int64_t end = std::min(n, begin + part);
  ++refresh_;
  if (shown_.is_cpu()) {
    if (removed.defined()) {  // its memory is in the cache when it is not needed any more
      retire(std::move(shown_));
      shown_ = removed;
    }
    const Running running{floats(added),
                          floats(removed),
                          floats(origin_),
                          floats(mean_),
                          floats(squares_),
                          floats(shown_),
                          static_cast<uint8_t*>(peak_.data_ptr())};
    const auto entries = pointers(entries_);
    run_cpu(entries, running, n);
    two_passes_cpu(entries, begin, end, running.origin, running.mean, running.squares, 1);
    peaks_cpu(squares_, begin, end, peak_);
    mend_overflow(entries_, shown_);
    removed = at::Tensor();
  } else {
    const at::Tensor& newest = entries_[entries_.size() - 2];
    run_device(added, newest, removed, origin_, mean_, squares_, unchanged_, shown_, count);
    if (mend_) mend_overflow(entries_, shown_);
    // Of the first picture with an overflow it is known only when it is done; a sum of squares is infinite for no other
    // reason.
    const at::Tensor over = shown_.isinf();
    make_beyond(shown_, over, over.logical_not().zero_());
    if (end > begin) two_passes(entries_, begin, end, origin_, mean_, squares_, 1);
  }
  retire(std::move(removed));
  return shown_;
}

}  // namespace beholder
