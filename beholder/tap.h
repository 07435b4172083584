// Shows a tensor as an activation. Needs no Beholder at hand: for the inside of modules.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>

namespace beholder {

namespace internal {
bool tapping_here() noexcept;
void tap_here(const char* name, const at::Tensor& x) noexcept;
}  // namespace internal

/// Returns x, and shows it as an activation of this name in every Beholder that watches this thread: those whose
/// update() the thread calls, and those that it has an OnThisThread of. For what owns no parameter (ReLU, pooling,
/// attention maps). Any shape, dtype and device. Costs a call and the test of a flag unless activations are being
/// captured; never throws.
inline at::Tensor tap(const char* name, at::Tensor x) noexcept {
  if (internal::tapping_here()) internal::tap_here(name, x);
  return x;
}
inline at::Tensor tap(const std::string& name, at::Tensor x) noexcept { return tap(name.c_str(), std::move(x)); }

}  // namespace beholder
