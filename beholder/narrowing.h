// Numbers of any dtype as float32, in which they are painted and counted, and what float32 cannot hold. Internal.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

namespace beholder {

/// What stands for a finite number whose magnitude is beyond float32's: NaNs of its own, one a sign. They are counted
/// by themselves, painted as the ends of the scale, and take no part in any other number.
constexpr uint32_t kAboveBits = 0x7fc0be70, kBelowBits = 0xffc0be70;

inline bool is_finite_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits & 0x7f800000U) != 0x7f800000U;
}
/// 1 above float32's range, -1 below it, else 0.
inline int beyond_sign(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits == kAboveBits ? 1 : bits == kBelowBits ? -1 : 0;
}
float beyond(int sign);

/// bool, of the shape of float32 `values`: finite numbers beyond float32; those above alone, those below alone.
at::Tensor beyond_in(const at::Tensor& values);
at::Tensor above_in(const at::Tensor& values);
at::Tensor below_in(const at::Tensor& values);
/// Makes those of float32 `values` beyond float32 where `above` or `below` (bool, of its shape) is true.
void make_beyond(const at::Tensor& values, const at::Tensor& above, const at::Tensor& below);

/// float32 `values` with what is beyond float32 replaced by float32's largest number of that sign, in memory of its
/// own.
at::Tensor clamped(const at::Tensor& values);
/// float32 of float64 `value`, with what is beyond float32 marked; 0 only where it is 0.
float narrowed(double value);

/// True for dtypes that have finite numbers, or complex numbers of a magnitude, beyond float32.
bool may_be_beyond(c10::ScalarType dtype);

/// True for dtypes that have numbers that float32 rounds, complex ones among them.
bool rounds(c10::ScalarType dtype);
/// The first of `values` (on the CPU, no bytes else), exactly: see ShownValue::text.
std::string exact_text(const at::Tensor& values);
/// The first of `values` (on the CPU, no bytes else) as a float64: exact but of integers above 2^53, which are rounded.
/// Nothing where it is complex, or no more exact than its float32. See ShownValue::value.
std::optional<double> exact_value(const at::Tensor& values);
/// The same as exact_text() of a number; "beyond float32" where it is marked so.
std::string exact_text(float value);

/// True where LibTorch converts this dtype to float32, copies it and selects from it, on such a device. Tried on a few
/// zeros, once for each dtype and kind of device, which allocates on the device: for the render thread, on a stream of
/// its own. Throws where float32 itself fails (no memory).
bool can_narrow(c10::ScalarType dtype, c10::Device device);
/// False where can_narrow() was. Asks nothing of a device: any thread.
bool may_narrow(c10::ScalarType dtype, c10::DeviceType device);

/// The same values as index_select() takes them on every device: those of dtypes that it may not know (float8, unsigned
/// 16 to 64 bits) as integers of the same width. A view.
at::Tensor selectable(const at::Tensor& values);

/// Writes `from` (n), of any dtype and device, as float32 to `to` (n): the magnitude of complex numbers; a finite
/// number that is beyond float32 is marked as such, and none but 0 becomes 0. Waits for no device.
void narrow_into(const at::Tensor& to, const at::Tensor& from);

}  // namespace beholder
