// The tensors of ResNet-18 by their shapes: 62 tensors, 11.7 million parameters. Values do not matter for a benchmark.
#pragma once

#include <ATen/ops/randn.h>

#include <string>
#include <utility>
#include <vector>

#include "beholder/named_tensor.h"

namespace beholder {

class ResNet18 {
 public:
  static Arrays parameters() {
    ResNet18 net;
    net.conv("conv1", 64, 3, 7);
    net.norm("bn1", 64);
    int64_t in = 64;
    const int64_t widths[] = {64, 128, 256, 512};
    for (int layer = 0; layer < 4; ++layer) {
      const int64_t out = widths[layer];
      for (int block = 0; block < 2; ++block) {
        const std::string prefix = "layer" + std::to_string(layer + 1) + "." + std::to_string(block) + ".";
        net.conv(prefix + "conv1", out, block == 0 ? in : out, 3);
        net.norm(prefix + "bn1", out);
        net.conv(prefix + "conv2", out, out, 3);
        net.norm(prefix + "bn2", out);
        if (block == 0 && in != out) {
          net.conv(prefix + "downsample.0", out, in, 1);
          net.norm(prefix + "downsample.1", out);
        }
      }
      in = out;
    }
    net.add("fc", "weight", {1000, 512}, Kind::LinearWeight);
    net.add("fc", "bias", {1000}, Kind::Vector);
    return std::move(net.tensors_);
  }

 private:
  void add(const std::string& module, const char* name, std::vector<int64_t> shape, Kind kind) {
    tensors_.push_back({module + "." + name, at::randn(shape), kind, module});
  }
  void conv(const std::string& module, int64_t out, int64_t in, int64_t k) {
    add(module, "weight", {out, in, k, k}, Kind::ConvWeight);
  }
  void norm(const std::string& module, int64_t width) {
    add(module, "weight", {width}, Kind::Vector);
    add(module, "bias", {width}, Kind::Vector);
  }

  Arrays tensors_;
};

}  // namespace beholder
