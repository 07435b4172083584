// Tensors of every dtype in every layout that this LibTorch can make, each a few values.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "beholder/named_tensor.h"

/// What is shown of a tensor: float32, dense, a complex number's magnitude. Throws where LibTorch cannot make it so.
inline at::Tensor plain(const at::Tensor& tensor) {
  at::Tensor t = tensor.detach();
  if (t.is_quantized()) t = t.dequantize();
  if (t.layout() != c10::kStrided) t = t.to_dense();
  t = t.resolve_conj().resolve_neg();
  if (t.scalar_type() == at::kComplexHalf) t = t.to(at::kComplexFloat);
  if (t.is_complex()) t = t.abs();
  return t.to(at::kFloat).contiguous();
}

struct OddTensor {
  std::string name;
  at::Tensor tensor;
  at::Tensor shown;  ///< as plain() has it; undefined where it has no values to show, or LibTorch cannot read it
};

inline std::vector<OddTensor> odd_tensors() {
  using Make = std::function<at::Tensor(const at::Tensor&)>;
  const std::vector<std::pair<std::string, Make>> layouts = {
      {"dense", [](const at::Tensor& t) { return t; }},
      {"transposed", [](const at::Tensor& t) { return t.t(); }},
      {"every other", [](const at::Tensor& t) { return t.slice(1, 0, 6, 2); }},
      {"of no dimension", [](const at::Tensor& t) { return t[1][2]; }},
      {"of one value", [](const at::Tensor& t) { return t.slice(0, 0, 1).slice(1, 1, 2); }},
      {"empty", [](const at::Tensor& t) { return t.slice(0, 0, 0); }},
      {"conjugate", [](const at::Tensor& t) { return t.conj(); }},
      {"COO", [](const at::Tensor& t) { return t.to_sparse(); }},
      {"COO of rows", [](const at::Tensor& t) { return t.to_sparse(1); }},
      {"CSR", [](const at::Tensor& t) { return t.to_sparse_csr(); }},
      {"CSC", [](const at::Tensor& t) { return t.to_sparse_csc(); }},
      {"BSR",
       [](const at::Tensor& t) {
         return t.to_sparse_bsr({2, 2});
       }},
      {"BSC",
       [](const at::Tensor& t) {
         return t.to_sparse_bsc({2, 2});
       }},
      {"mkldnn", [](const at::Tensor& t) { return t.to_mkldnn(); }},
      {"nested",
       [](const at::Tensor& t) {
         return at::_nested_tensor_from_tensor_list({t, t.slice(0, 0, 2)});
       }},
      {"meta", [](const at::Tensor& t) { return at::empty(t.sizes(), t.options().device(at::kMeta)); }},
  };
  const std::set<std::string> without_values = {"nested", "meta"};
  std::vector<OddTensor> all;
  const auto add = [&](const std::string& dtype, const std::string& layout, const std::function<at::Tensor()>& make) {
    OddTensor odd{dtype + " " + layout, {}, {}};
    try {
      odd.tensor = make();
    } catch (const std::exception&) {
      return;  // this LibTorch has no such tensor
    }
    try {
      if (without_values.count(layout) == 0 && odd.tensor.numel() > 0) odd.shown = plain(odd.tensor);
    } catch (const std::exception&) {
    }
    all.push_back(odd);
  };
  const at::Tensor values = (torch::arange(24) % 7).view({4, 6}).to(at::kFloat);
  for (int i = 0; i < static_cast<int>(c10::ScalarType::NumOptions); ++i) {
    const auto dtype = static_cast<c10::ScalarType>(i);
    if (dtype == c10::ScalarType::Undefined || c10::isQIntType(dtype)) continue;
    const std::string name = c10::toString(dtype);
    for (const auto& [layout, make] : layouts) {
      add(name, layout, [&values, &make = make, dtype] {
        try {
          return make(values.to(dtype));
        } catch (const std::exception&) {  // what LibTorch stores, and does not convert
          return make(at::empty({4, 6}, at::TensorOptions().dtype(dtype)));
        }
      });
    }
  }
  for (const auto dtype : {at::kQInt8, at::kQUInt8, at::kQInt32, at::kQUInt4x2, at::kQUInt2x4}) {
    const std::string name = c10::toString(dtype);
    const at::Tensor scales = torch::full({4}, 0.5), zeros = torch::zeros({4}, at::kLong);
    add(name, "per tensor", [&] { return torch::quantize_per_tensor(values, 0.5, 0, dtype); });
    add(name, "per tensor, transposed", [&] { return torch::quantize_per_tensor(values, 0.5, 0, dtype).t(); });
    add(name, "per channel", [&] { return torch::quantize_per_channel(values, scales, zeros, 0, dtype); });
    if (dtype == at::kQInt8 || dtype == at::kQInt32) continue;  // LibTorch ends the process
    add(name, "per channel, of floats",
        [&] { return torch::quantize_per_channel(values, scales, zeros.to(at::kFloat), 0, dtype); });
  }
  return all;
}
