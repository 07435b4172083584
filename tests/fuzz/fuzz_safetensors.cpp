// Fuzzes the reader of .safetensors files. What is refused is refused in one line; what is accepted lies in the file,
// without overlap or hole, and can be read; memory is used in proportion to the file.
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "fuzz.h"
#include "tools/safetensors.h"

using beholder::SafetensorsFile;
using beholder::TensorEntry;
using beholder::TensorFileError;

namespace {

/// Looks at each byte of a tensor, so that the address sanitizer does.
unsigned read_all(const at::Tensor& tensor) {
  unsigned sum = 0;
  const auto* bytes = static_cast<const uint8_t*>(tensor.data_ptr());
  for (int64_t i = 0; i < static_cast<int64_t>(tensor.nbytes()); ++i) sum += bytes[i];
  return sum;
}

void check(const SafetensorsFile& file, const std::vector<TensorEntry>& entries) {
  uint64_t position = 0;
  for (const auto& entry : entries) {
    fuzz::expect(entry.begin == position && entry.end >= entry.begin, "entries overlap or leave a hole");
    position = entry.end;
    try {
      const at::Tensor tensor = file.tensor(entry);
      fuzz::expect(tensor.sizes() == at::IntArrayRef(entry.shape), "a tensor of another shape");
      fuzz::expect(tensor.numel() == 0 || tensor.is_contiguous(), "a tensor with gaps");
      static volatile unsigned sink;
      sink = read_all(tensor);
      (void)sink;
    } catch (const TensorFileError& error) {  // a dtype that cannot be shown
      fuzz::expect(fuzz::is_one_line(error.what()), "an error of more than a line");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::start_counting();
  try {
    const auto file = SafetensorsFile::view(data, size);
    check(file, file.entries());
  } catch (const TensorFileError& error) {
    fuzz::expect(fuzz::is_one_line(error.what()), "an error of more than a line");
  }
  fuzz::expect_at_most((1 << 18) + 64 * static_cast<int64_t>(size));
  return 0;
}
