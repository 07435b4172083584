// One operator on its way to a stream: it takes its place there, and every tensor that it reads or writes is checked
// against what others do to the same bytes. Lives on the stack of the operator's kernel.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "driver.h"

namespace fake_device {

class Operation {
 public:
  /// On this thread's current stream of `device`.
  Operation(std::string name, c10::Device device);

  void reads(const at::Tensor& tensor) { touch(tensor, false); }
  void writes(const at::Tensor& tensor) { touch(tensor, true); }

  /// The host waits until the operator is complete; counted as `kind`.
  void synchronize(int64_t Counts::*kind) const;

  const Enqueued& place() const { return place_; }

 private:
  void touch(const at::Tensor& tensor, bool writes);

  std::string name_;
  Enqueued place_;
};

}  // namespace fake_device
