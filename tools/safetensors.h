// Reads .safetensors files: 8 bytes with the header's length (little-endian), a JSON header
// {name: {dtype, shape, data_offsets}}, then the data. Nothing in a file is trusted: every number is checked against
// the size of the file before it is used, and memory is only allocated for what the file really contains.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace beholder {

/// A file that cannot be used: what was expected, what was found, what to do. One line.
class TensorFileError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What the header says about one tensor. Checked: offsets lie in the file, do not overlap, leave no hole, and fit the
/// shape where the dtype is known.
struct TensorEntry {
  std::string name;
  std::string dtype;            ///< as in the file: "F32"
  std::vector<int64_t> shape;   ///< every dimension >= 0
  uint64_t begin = 0, end = 0;  ///< bytes, from the start of the data
  std::string odd;              ///< not empty: what there is about it that is not known here, in words
};

/// An open file. Tensors share its memory and keep it alive; they must not be written to.
class SafetensorsFile {
 public:
  /// Maps the file. Throws TensorFileError, its text beginning with the path. While tensors are used the file must not
  /// be shortened by others: that is SIGBUS, as for every mapped file.
  static SafetensorsFile open(const std::string& path);
  /// A file in memory, which must outlive this object and its tensors. `bytes` may have any alignment.
  static SafetensorsFile view(const void* bytes, size_t size);

  /// In the order of the data in the file.
  const std::vector<TensorEntry>& entries() const { return entries_; }
  /// Why a tensor of a good file cannot be read, in words: a dtype or a key of the header that is not known here, more
  /// dimensions or elements than LibTorch has. Empty where it can.
  static std::string refusal(const TensorEntry& entry);
  /// Throws TensorFileError where there is a refusal. U16 and U32 become int32 and int64, which hold their values.
  at::Tensor tensor(const TensorEntry& entry) const;

 private:
  SafetensorsFile() = default;
  void parse(const uint8_t* bytes, size_t size);

  std::string path_;                    // empty for a view
  std::shared_ptr<const void> memory_;  // the mapping, null for a view
  const uint8_t* data_ = nullptr;
  std::vector<TensorEntry> entries_;
};

/// Text from a file, fit for one line of output: control characters and what is not UTF-8 as \xNN, at most `limit`
/// bytes.
std::string printable(const std::string& text, size_t limit = 120);

}  // namespace beholder
