#include "tools/safetensors.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>
#include <utility>

namespace beholder {
namespace {

/// The format's own limit.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
/// What LibTorch's element-wise operators can handle.
constexpr size_t kMaxRank = 64;

struct Dtype {
  const char* name;
  uint64_t bytes;
  at::ScalarType type;  // how it is shown; Undefined: a size is known, but LibTorch has no such type
};

constexpr Dtype kDtypes[] = {
    {"F64", 8, at::kDouble},
    {"F32", 4, at::kFloat},
    {"F16", 2, at::kHalf},
    {"BF16", 2, at::kBFloat16},
    {"I64", 8, at::kLong},
    {"I32", 4, at::kInt},
    {"I16", 2, at::kShort},
    {"I8", 1, at::kChar},
    {"U8", 1, at::kByte},
    {"BOOL", 1, at::kBool},
    {"C64", 8, at::kComplexFloat},
    {"U16", 2, at::kInt},
    {"U32", 4, at::kLong},
    {"U64", 8, at::ScalarType::Undefined},
    {"F8_E4M3", 1, at::ScalarType::Undefined},
    {"F8_E5M2", 1, at::ScalarType::Undefined},
};

const Dtype* find_dtype(const std::string& name) {
  for (const auto& dtype : kDtypes) {
    if (name == dtype.name) return &dtype;
  }
  return nullptr;
}

std::string in_quotes(const std::string& text) { return "'" + printable(text) + "'"; }

[[noreturn]] void fail(const std::string& text) { throw TensorFileError(text); }

[[noreturn]] void fail_tensor(const std::string& name, const std::string& text) {
  fail("tensor " + in_quotes(name) + ": " + text);
}

std::string text_of(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size() && i < 8; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() > 8 ? ", ...]" : "]");
}

/// Receives the header from nlohmann's parser as events, so that nothing is built for what the format does not have:
/// nesting is refused at the first bracket too many, the values of unknown keys are skipped, duplicate keys are seen,
/// and no number is converted unchecked.
class HeaderReader {
 public:
  std::vector<TensorEntry> entries;

  bool start_object(size_t) {
    if (skipping_) return skip_bracket();
    if (level_ == Level::Outside) {
      level_ = Level::File;
    } else if (level_ == Level::File) {
      level_ = in_metadata_ ? Level::Metadata : Level::Tensor;
    } else {
      fail(where() + "expected " + expected() + "; found an object");
    }
    return true;
  }

  bool key(std::string& text) {
    if (skipping_) return true;
    if (level_ == Level::File) {
      if (!names_.insert(text).second) fail("tensor " + in_quotes(text) + " is in the header twice");
      in_metadata_ = text == "__metadata__";
      if (!in_metadata_) {
        entries.emplace_back();
        entries.back().name = text;
        has_dtype_ = has_shape_ = has_offsets_ = false;
        offsets_.clear();
      }
    } else if (level_ == Level::Tensor) {
      bool* has = text == "dtype"          ? &has_dtype_
                  : text == "shape"        ? &has_shape_
                  : text == "data_offsets" ? &has_offsets_
                                           : nullptr;
      if (!has) {  // it may change what the values mean: this tensor is not shown
        call_odd(in_quotes(text) + " in its header is not known here");
        return skipping_ = true;
      }
      if (*has) fail(where() + in_quotes(text) + " is given twice");
      *has = true;
    }
    field_ = text.substr(0, 16);
    return true;
  }

  bool end_object() {
    if (skipping_) return skip_end();
    if (level_ == Level::Tensor) {
      if (!has_dtype_ || !has_shape_ || !has_offsets_) {
        fail(where() + "expected dtype, shape and data_offsets; " +
             (!has_dtype_   ? "dtype"
              : !has_shape_ ? "shape"
                            : "data_offsets") +
             " is missing");
      }
      if (offsets_.size() != 2) {
        fail(where() + "data_offsets: expected two numbers; found " + std::to_string(offsets_.size()));
      }
      entries.back().begin = offsets_[0];
      entries.back().end = offsets_[1];
      level_ = Level::File;
    } else if (level_ == Level::Metadata) {
      level_ = Level::File;
    } else {
      level_ = Level::Outside;
    }
    return true;
  }

  bool start_array(size_t) {
    if (skipping_) return skip_bracket();
    if (level_ != Level::Tensor || field_ == "dtype") fail(where() + "expected " + expected() + "; found a list");
    level_ = field_ == "shape" ? Level::Shape : Level::Offsets;
    return true;
  }

  bool end_array() {
    if (skipping_) return skip_end();
    level_ = Level::Tensor;
    return true;
  }

  bool number_unsigned(uint64_t value) {
    if (skipping_) return skip_value();
    if (level_ == Level::Shape) {
      if (value > static_cast<uint64_t>(INT64_MAX)) fail(where() + "a dimension of " + std::to_string(value));
      auto& shape = entries.back().shape;
      shape.push_back(static_cast<int64_t>(value));
      if (shape.size() > kMaxRank) call_odd("more than " + std::to_string(kMaxRank) + " dimensions");
    } else if (level_ == Level::Offsets) {
      if (offsets_.size() == 2) fail(where() + "data_offsets: expected two numbers; found more");
      offsets_.push_back(value);
    } else {
      unexpected(std::to_string(value));
    }
    return true;
  }

  bool number_integer(int64_t value) { return skipping_ ? skip_value() : unexpected(std::to_string(value)); }
  bool number_float(double, const std::string& text) {
    return skipping_ ? skip_value() : unexpected(printable(text, 40));
  }
  bool boolean(bool value) { return skipping_ ? skip_value() : unexpected(value ? "true" : "false"); }
  bool null() { return skipping_ ? skip_value() : unexpected("null"); }
  bool binary(nlohmann::json::binary_t&) { return skipping_ ? skip_value() : unexpected("bytes"); }

  bool string(std::string& text) {
    if (skipping_) return skip_value();
    if (level_ == Level::Metadata) return true;
    if (level_ != Level::Tensor || field_ != "dtype") unexpected(in_quotes(text));
    entries.back().dtype = text;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ...": only the last part helps.
    const std::string text = error.what();
    const auto colon = text.find(": ");
    fail("the header is not JSON (byte " + std::to_string(position) + " of the header" +
         (colon == std::string::npos ? "" : ": " + printable(text.substr(colon + 2))) + ")");
  }

 private:
  enum class Level { Outside, File, Metadata, Tensor, Shape, Offsets };

  std::string where() const {
    if (level_ == Level::Outside || (level_ == Level::File && (in_metadata_ || entries.empty()))) return "header: ";
    if (level_ == Level::Metadata) return "header, __metadata__: ";
    return "tensor " + in_quotes(entries.back().name) + ": ";
  }

  std::string expected() const {
    switch (level_) {
      case Level::Outside: return "an object";
      case Level::File: return "an object with dtype, shape and data_offsets";
      case Level::Metadata: return "text";
      case Level::Tensor:
        return field_ == "dtype" ? "dtype as text" : field_ == "shape" ? "shape as a list" : "data_offsets as a list";
      case Level::Shape: return "whole numbers of 0 or more as shape";
      case Level::Offsets: return "whole numbers of 0 or more as data_offsets";
    }
    return "";
  }

  [[noreturn]] bool unexpected(const std::string& found) const {
    fail(where() + "expected " + expected() + "; found " + found);
  }

  void call_odd(std::string text) {
    if (entries.back().odd.empty()) entries.back().odd = std::move(text);
  }

  bool skip_bracket() {
    ++skipped_brackets_;
    return true;
  }
  bool skip_end() {
    --skipped_brackets_;
    return skip_value();
  }
  bool skip_value() {
    skipping_ = skipped_brackets_ > 0;
    return true;
  }

  Level level_ = Level::Outside;
  bool in_metadata_ = false;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  bool skipping_ = false;        // inside the value of an unknown key
  size_t skipped_brackets_ = 0;  // of it, that are open
  std::string field_;            // the key whose value comes next, inside a tensor
  std::vector<uint64_t> offsets_;
  std::unordered_set<std::string> names_;
};

/// Elements of `shape`, zeros left out: LibTorch computes strides from it. Nothing where 64 bits do not hold it.
std::optional<int64_t> stride_of_all(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (int64_t size : shape) {
    if (size > 0 && __builtin_mul_overflow(product, size, &product)) return std::nullopt;
  }
  return product;
}

/// Elements of an entry that was checked.
int64_t elements(const TensorEntry& entry) {
  const bool empty = std::count(entry.shape.begin(), entry.shape.end(), 0) > 0;
  return empty ? 0 : stride_of_all(entry.shape).value_or(0);
}

/// Offsets in the file, in order, without overlap or hole, and of the size that dtype and shape ask for.
void check_entries(std::vector<TensorEntry>& entries, uint64_t data_bytes) {
  uint64_t position = 0;
  const TensorEntry* before = nullptr;
  for (auto& entry : entries) {
    const std::string range = "data_offsets [" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) + "]";
    if (entry.begin > entry.end) fail_tensor(entry.name, range + " end before they begin");
    if (entry.end > data_bytes) {
      fail_tensor(entry.name, range + " lie outside of the file, which has " + std::to_string(data_bytes) +
                                  " bytes of data: it is truncated or its header is wrong");
    }
    const Dtype* dtype = find_dtype(entry.dtype);
    const int64_t count = elements(entry);
    if (!stride_of_all(entry.shape)) {
      entry.odd = "shape " + text_of(entry.shape) + " has more than 2^63 elements";
      if (dtype && std::count(entry.shape.begin(), entry.shape.end(), 0) == 0) fail_tensor(entry.name, entry.odd);
    }
    if (dtype) {
      uint64_t bytes = 0;
      if (__builtin_mul_overflow(static_cast<uint64_t>(count), dtype->bytes, &bytes) ||
          bytes != entry.end - entry.begin) {
        fail_tensor(entry.name, "shape " + text_of(entry.shape) + " of " + entry.dtype + " needs " +
                                    std::to_string(count) + " x " + std::to_string(dtype->bytes) + " bytes; " + range +
                                    " have " + std::to_string(entry.end - entry.begin));
      }
    }
    if (entry.begin < position) {
      fail_tensor(entry.name, range + " overlap those of " + in_quotes(before->name) + ", which end at " +
                                  std::to_string(position));
    }
    if (entry.begin > position) {
      fail_tensor(entry.name, range + " leave a hole of " + std::to_string(entry.begin - position) +
                                  " bytes before them, which the format forbids");
    }
    position = entry.end;
    before = &entry;
  }
  if (position != data_bytes) {
    fail("the data has " + std::to_string(data_bytes - position) + " bytes after the last tensor that belong to none");
  }
}

}  // namespace

std::string printable(const std::string& text, size_t limit) {
  static const char* const kHex = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    // Length of the UTF-8 sequence here; 0 where it is none. C1 control characters (U+0080..U+009F) steer terminals.
    size_t length = c < 0x20 || c == 0x7f ? 0
                    : c < 0x80            ? 1
                    : c < 0xc2            ? 0
                    : c < 0xe0            ? 2
                    : c < 0xf0            ? 3
                    : c < 0xf5            ? 4
                                          : 0;
    for (size_t k = 1; k < length; ++k) {
      if (i + k >= text.size() || (static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) length = 0;
    }
    if (length == 2 && c == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0) length = 0;
    if (out.size() + std::max<size_t>(length, 4) > limit) return out + "...";
    if (length == 0) {
      out += {'\\', 'x', kHex[c >> 4], kHex[c & 15]};
      ++i;
    } else {
      out.append(text, i, length);
      i += length;
    }
  }
  return out;
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  const auto fail_here = [&path](const std::string& text) { fail(printable(path, 400) + ": " + text); };
  // O_NONBLOCK: a FIFO without a writer must be refused, not waited for.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) fail_here(std::string("cannot be opened: ") + std::strerror(errno));
  struct stat status = {};
  const int failed = ::fstat(descriptor, &status);
  void* mapping = MAP_FAILED;
  size_t size = 0;
  int map_error = 0;
  if (!failed && S_ISREG(status.st_mode) && status.st_size > 0) {
    size = static_cast<size_t>(status.st_size);
    mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    map_error = errno;
  }
  ::close(descriptor);
  if (failed) fail_here("cannot be read");
  if (S_ISDIR(status.st_mode)) fail_here("is a directory; expected a .safetensors file");
  if (!S_ISREG(status.st_mode)) fail_here("is not a regular file; expected a .safetensors file");
  if (status.st_size == 0) fail_here("is empty; expected a .safetensors file");
  if (mapping == MAP_FAILED) fail_here(std::string("cannot be mapped into memory: ") + std::strerror(map_error));

  SafetensorsFile file;
  file.path_ = path;
  file.memory_ =
      std::shared_ptr<const void>(mapping, [size](const void* address) { ::munmap(const_cast<void*>(address), size); });
  try {
    file.parse(static_cast<const uint8_t*>(mapping), size);
  } catch (const TensorFileError& error) {
    fail_here(error.what());
  }
  return file;
}

SafetensorsFile SafetensorsFile::view(const void* bytes, size_t size) {
  SafetensorsFile file;
  file.parse(static_cast<const uint8_t*>(bytes), size);
  return file;
}

void SafetensorsFile::parse(const uint8_t* bytes, size_t size) {
  if (size >= 4 && std::memcmp(bytes, "PK\3\4", 4) == 0) {
    fail("is a zip archive (PyTorch's .pt?), not a .safetensors file; convert it with safetensors.torch.save_file");
  }
  if (size < 8)
    fail("is truncated: expected a header's length in the first 8 bytes; the file has " + std::to_string(size));
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | bytes[i];
  if (header_bytes > kMaxHeaderBytes) {
    fail("is not a .safetensors file: its first 8 bytes would mean a header of " + std::to_string(header_bytes) +
         " bytes; expected at most " + std::to_string(kMaxHeaderBytes));
  }
  if (header_bytes > size - 8) {
    fail("is truncated, or not a .safetensors file: its header should have " + std::to_string(header_bytes) +
         " bytes; the file has " + std::to_string(size - 8) + " after the length");
  }
  const char* header = reinterpret_cast<const char*>(bytes + 8);
  if (header_bytes == 0 || header[0] != '{') fail("is not a .safetensors file: its header does not begin with '{'");
  // nlohmann takes a NUL for the end of its input and would not look at what follows.
  if (std::memchr(header, 0, header_bytes)) fail("the header is not JSON: it holds a byte 0");
  HeaderReader reader;
  nlohmann::json::sax_parse(header, header + header_bytes, &reader);
  entries_ = std::move(reader.entries);
  data_ = bytes + 8 + header_bytes;
  // Stable: empty tensors keep the header's order.
  std::stable_sort(entries_.begin(), entries_.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::make_pair(a.begin, a.end) < std::make_pair(b.begin, b.end);
  });
  check_entries(entries_, size - 8 - header_bytes);
}

std::string SafetensorsFile::refusal(const TensorEntry& entry) {
  const Dtype* dtype = find_dtype(entry.dtype);
  if (dtype && dtype->type != at::ScalarType::Undefined) return entry.odd;
  std::string known;
  for (const auto& one : kDtypes) {
    if (one.type != at::ScalarType::Undefined) known += (known.empty() ? "" : ", ") + std::string(one.name);
  }
  return "dtype " + in_quotes(entry.dtype) + " cannot be shown; expected one of " + known;
}

at::Tensor SafetensorsFile::tensor(const TensorEntry& entry) const {
  const std::string refused = refusal(entry);
  if (!refused.empty()) {
    fail((path_.empty() ? "" : printable(path_, 400) + ": ") + "tensor " + in_quotes(entry.name) + ": " + refused);
  }
  const Dtype* dtype = find_dtype(entry.dtype);
  const int64_t count = elements(entry);
  if (count == 0) return at::empty(entry.shape, at::TensorOptions().dtype(dtype->type));
  const uint8_t* bytes = data_ + entry.begin;

  if (entry.dtype == "U16" || entry.dtype == "U32") {
    at::Tensor wide = at::empty(entry.shape, at::TensorOptions().dtype(dtype->type));
    for (int64_t i = 0; i < count; ++i) {
      if (dtype->bytes == 2) {
        uint16_t value = 0;
        std::memcpy(&value, bytes + 2 * i, 2);
        wide.data_ptr<int32_t>()[i] = value;
      } else {
        uint32_t value = 0;
        std::memcpy(&value, bytes + 4 * i, 4);
        wide.data_ptr<int64_t>()[i] = value;
      }
    }
    return wide;
  }
  // A bool that is neither 0 nor 1 is undefined behaviour for whoever reads it: look at bytes.
  const auto options = at::TensorOptions().dtype(dtype->type == at::kBool ? at::kByte : dtype->type);
  at::Tensor tensor;
  if (reinterpret_cast<uintptr_t>(bytes) % dtype->bytes == 0) {
    tensor = at::from_blob(
        const_cast<uint8_t*>(bytes), entry.shape, [memory = memory_](void*) {}, options);
  } else {
    tensor = at::empty(entry.shape, options);
    std::memcpy(tensor.data_ptr(), bytes, entry.end - entry.begin);
  }
  return dtype->type == at::kBool ? tensor.ne(0) : tensor;
}

}  // namespace beholder
