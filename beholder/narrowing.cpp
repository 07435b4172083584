#include "beholder/narrowing.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/hypot.h>
#include <ATen/ops/imag.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/real.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/version.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <exception>
#include <limits>

#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3)
#define BEHOLDER_WIDE_UNSIGNED
#endif

namespace beholder {
namespace {

constexpr float kLeast = std::numeric_limits<float>::denorm_min();

void narrow_double(const at::Tensor& to, const at::Tensor& from) {
  if (from.is_cpu() && to.is_cpu()) {
    const auto* source = static_cast<const double*>(from.data_ptr());
    auto* target = static_cast<float*>(to.data_ptr());
    for (int64_t i = 0; i < from.numel(); ++i) target[i] = narrowed(source[i]);
    return;
  }
  to.copy_(from, /*non_blocking=*/true);
  const at::Tensor over = to.isinf().logical_and_(from.isfinite());
  make_beyond(to, over.logical_and(from.gt(0)), over.logical_and(from.lt(0)));
  to.masked_fill_(to.eq(0).logical_and_(from.gt(0)), kLeast).masked_fill_(to.eq(0).logical_and_(from.lt(0)), -kLeast);
}

/// abs() of LibTorch squares: it is right but where a square leaves the dtype's range.
void narrow_complex(const at::Tensor& to, at::Tensor from) {
  if (from.scalar_type() == c10::ScalarType::ComplexHalf) from = from.to(c10::ScalarType::ComplexFloat);  // no abs()
  const at::Tensor re = at::real(from), im = at::imag(from);
  at::Tensor size = from.abs();
  const at::Tensor good = size.isfinite().logical_and_(size.ne(0));
  const at::Tensor wide = at::where(good, size.to(at::kDouble), at::hypot(re.to(at::kDouble), im.to(at::kDouble)));
  narrow_double(to, wide.contiguous());
  // Finite numbers whose magnitude is beyond float64.
  const at::Tensor over = to.isinf().logical_and_(re.isfinite()).logical_and_(im.isfinite());
  to.view(at::kInt).masked_fill_(over, static_cast<int32_t>(kAboveBits));
}

/// The shortest decimal that is read back as the same number.
template <typename Number>
std::string shortest(Number value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Inf" : "-Inf";
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return {text, end};
}

template <typename Number>
std::string complex_text(const Number* parts) {
  const std::string imaginary = shortest(parts[1]);
  return shortest(parts[0]) + (imaginary[0] == '-' ? "" : "+") + imaginary + "i";
}

enum class Known : uint8_t { Untried, Narrows, Fails };

std::atomic<Known>& known_of(c10::ScalarType dtype, c10::DeviceType device) {
  constexpr auto kDtypes = static_cast<size_t>(c10::ScalarType::NumOptions) + 1;
  constexpr auto kDevices = static_cast<size_t>(c10::DeviceType::COMPILE_TIME_MAX_DEVICE_TYPES);
  static std::atomic<Known> known[kDtypes][kDevices];
  return known[std::min(static_cast<size_t>(dtype), kDtypes - 1)][std::min(static_cast<size_t>(device), kDevices - 1)];
}

/// All that is done with values of this dtype between a tensor and its picture.
void try_narrowing(c10::ScalarType dtype, c10::Device device) {
  constexpr int64_t kBytes = 1024;
  const auto on_device = at::TensorOptions().device(device);
  const at::Tensor from = at::zeros({kBytes}, on_device.dtype(at::kByte)).view(dtype);
  narrow_into(at::empty(from.sizes(), on_device.dtype(at::kFloat)), from);
  if (rounds(dtype)) from.clone();
  if (device.is_cpu()) return;  // there values are copied as bytes
  at::empty({4, 4}, on_device.dtype(dtype)).copy_(from.as_strided({4, 4}, {16, 2}), /*non_blocking=*/true);
  at::index_select(selectable(from), 0, at::zeros({4}, on_device.dtype(at::kLong)));
}

bool narrows_now(c10::ScalarType dtype, c10::Device device) {
  try {
    try_narrowing(dtype, device);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

at::Tensor bits_are(const at::Tensor& values, uint32_t bits) {
  return values.view(at::kInt).eq(static_cast<int32_t>(bits));
}

}  // namespace

float beyond(int sign) {
  const uint32_t bits = sign > 0 ? kAboveBits : kBelowBits;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float narrowed(double value) {
  const auto out = static_cast<float>(value);
  if (out != 0 && is_finite_bits(out)) return out;
  if (std::isnan(value)) return std::numeric_limits<float>::quiet_NaN();
  if (std::isinf(value) || value == 0) return out;
  if (out == 0) return std::copysign(kLeast, out);
  return beyond(value > 0 ? 1 : -1);
}

at::Tensor above_in(const at::Tensor& values) { return bits_are(values, kAboveBits); }
at::Tensor below_in(const at::Tensor& values) { return bits_are(values, kBelowBits); }
at::Tensor beyond_in(const at::Tensor& values) { return above_in(values).logical_or_(below_in(values)); }

void make_beyond(const at::Tensor& values, const at::Tensor& above, const at::Tensor& below) {
  values.view(at::kInt)
      .masked_fill_(above, static_cast<int32_t>(kAboveBits))
      .masked_fill_(below, static_cast<int32_t>(kBelowBits));
}

at::Tensor clamped(const at::Tensor& values) {
  constexpr double most = std::numeric_limits<float>::max();
  return values.masked_fill(above_in(values), most).masked_fill_(below_in(values), -most);
}

bool may_be_beyond(c10::ScalarType dtype) {
  return dtype == at::kDouble || dtype == at::kComplexFloat || dtype == at::kComplexDouble;
}

bool rounds(c10::ScalarType dtype) {
#ifdef BEHOLDER_WIDE_UNSIGNED
  if (dtype == c10::ScalarType::UInt32 || dtype == c10::ScalarType::UInt64) return true;
#endif
  return dtype == at::kDouble || dtype == at::kInt || dtype == at::kLong || c10::isComplexType(dtype);
}

std::string exact_text(float value) { return beyond_sign(value) != 0 ? "beyond float32" : shortest(value); }

std::string exact_text(const at::Tensor& values) {
  const void* data = values.data_ptr();
  switch (values.scalar_type()) {
    case at::kDouble: return shortest(*static_cast<const double*>(data));
    case at::kInt: return std::to_string(*static_cast<const int32_t*>(data));
    case at::kLong: return std::to_string(*static_cast<const int64_t*>(data));
#ifdef BEHOLDER_WIDE_UNSIGNED
    case c10::ScalarType::UInt32: return std::to_string(*static_cast<const uint32_t*>(data));
    case c10::ScalarType::UInt64: return std::to_string(*static_cast<const uint64_t*>(data));
#endif
    case at::kComplexDouble: return complex_text(static_cast<const double*>(data));
    case at::kComplexFloat: return complex_text(static_cast<const float*>(data));
    case at::ScalarType::ComplexHalf: {
      const auto* parts = static_cast<const c10::Half*>(data);
      const float wide[2] = {parts[0], parts[1]};
      return complex_text(wide);
    }
    default: return "";  // see rounds()
  }
}

std::optional<double> exact_value(const at::Tensor& values) {
  const void* data = values.data_ptr();
  switch (values.scalar_type()) {
    case at::kDouble: return *static_cast<const double*>(data);
    case at::kInt: return *static_cast<const int32_t*>(data);
    case at::kLong: return static_cast<double>(*static_cast<const int64_t*>(data));
#ifdef BEHOLDER_WIDE_UNSIGNED
    case c10::ScalarType::UInt32: return *static_cast<const uint32_t*>(data);
    case c10::ScalarType::UInt64: return static_cast<double>(*static_cast<const uint64_t*>(data));
#endif
    default: return std::nullopt;
  }
}

bool can_narrow(c10::ScalarType dtype, c10::Device device) {
  std::atomic<Known>& known = known_of(dtype, device.type());
  if (known == Known::Untried) {
    const at::NoGradGuard no_grad;
    bool good = narrows_now(dtype, device);
    if (!good) {
      try_narrowing(at::kFloat, device);  // throws where this dtype is not to blame
      good = narrows_now(dtype, device);
    }
    known = good ? Known::Narrows : Known::Fails;
  }
  return known == Known::Narrows;
}

bool may_narrow(c10::ScalarType dtype, c10::DeviceType device) { return known_of(dtype, device) != Known::Fails; }

at::Tensor selectable(const at::Tensor& values) {
  switch (values.scalar_type()) {
    case at::kFloat:
    case at::kDouble:
    case at::kHalf:
    case at::kBFloat16:
    case at::kByte:
    case at::kChar:
    case at::kShort:
    case at::kInt:
    case at::kLong:
    case at::kBool:
    case at::kComplexFloat:
    case at::kComplexDouble: return values;
    default: break;
  }
  switch (values.element_size()) {
    case 1: return values.view(at::kByte);
    case 2: return values.view(at::kShort);
    case 4: return values.view(at::kInt);
    case 8: return values.view(at::kLong);
    default: return values;
  }
}

void narrow_into(const at::Tensor& to, const at::Tensor& from) {
  if (from.device() != to.device() && !may_narrow(from.scalar_type(), to.device().type())) {
    const at::Tensor narrow = at::empty(from.sizes(), at::TensorOptions().dtype(at::kFloat).device(from.device()));
    narrow_into(narrow, from);
    to.copy_(narrow);
    return;
  }
  if (c10::isComplexType(from.scalar_type())) {
    narrow_complex(to, from.to(to.device(), from.scalar_type(), /*non_blocking=*/true));
  } else if (from.scalar_type() == at::kDouble) {
    narrow_double(to, from.to(to.device(), at::kDouble, /*non_blocking=*/true));
  } else {
    to.copy_(from, /*non_blocking=*/true);
  }
}

}  // namespace beholder
