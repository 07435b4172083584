// Makes .safetensors files for tests, good and bad ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

/// The 8 bytes of a header's length.
inline std::string length_bytes(uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  return bytes;
}

/// A file with this header and `data_bytes` bytes of zeros.
inline std::string file_bytes(const std::string& header, size_t data_bytes = 0) {
  return length_bytes(header.size()) + header + std::string(data_bytes, '\0');
}

/// One header entry: "name":{"dtype":...}.
inline std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, uint64_t begin,
                         uint64_t end) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

inline std::string repeated(const std::string& text, size_t times) {
  std::string all;
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

/// A float32 tensor to write: name, shape as JSON ("[2,3]"), values.
struct WrittenTensor {
  std::string name, shape;
  std::vector<float> values;
};

/// A good file; the header is padded to 8 bytes as the format asks.
inline std::string good_file(const std::vector<WrittenTensor>& tensors) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}", data;
  for (const auto& tensor : tensors) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float));
    header += "," + entry(tensor.name, "F32", tensor.shape, begin, data.size());
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  return length_bytes(header.size()) + header + data;
}

/// Bad files: what is wrong with each, its bytes, and a part of the line that must be said about it.
struct BadFile {
  std::string name, bytes, said;
};

inline std::vector<BadFile> bad_files() {
  const std::string max64 = "18446744073709551615";
  const auto one = [](const std::string& shape, const std::string& offsets, const std::string& dtype = "F32") {
    return "{\"w\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  };
  return {
      {"empty", "", "is empty|is truncated"},
      {"seven bytes", "1234567", "is truncated"},
      {"header length beyond the file", length_bytes(1000) + "{}", "should have 1000 bytes"},
      {"header length of 2^64-1", length_bytes(~uint64_t{0}) + "{}", "header of 18446744073709551615 bytes"},
      {"header length above the limit", length_bytes(100'000'001) + "{}", "at most 100000000"},
      {"header length 0", length_bytes(0) + "{}", "does not begin with '{'"},
      {"header cuts the JSON", length_bytes(5) + one("[1]", "[0,4]") + "1234", "not JSON"},
      {"not JSON", file_bytes("{hello}"), "not JSON"},
      {"not UTF-8", file_bytes("{\"\xff\xfe\":1}"), "not JSON"},
      {"a NUL ends the JSON early", file_bytes(std::string("{}\0 rubbish", 11)), "not JSON"},
      {"rubbish after the JSON", file_bytes("{} {}"), "not JSON"},
      {"a list", file_bytes("[1]"), "does not begin with '{'"},
      {"deep nesting", file_bytes("{\"w\":" + std::string(200'000, '[')), "expected an object with dtype"},
      {"deep nesting in a shape", file_bytes("{\"w\":{\"shape\":" + std::string(200'000, '[')), "found a list"},
      {"deep nesting of objects",
       [] {
         std::string text = "{";
         for (int i = 0; i < 100'000; ++i) text += "\"w\":{";
         return file_bytes(text);
       }(),
       "not JSON"},
      {"a zip archive", "PK\3\4" + std::string(100, 'x'), "zip archive"},
      {"text", "This is a text file and nothing else.\n", "not a .safetensors file"},
      {"tensor is a number", file_bytes("{\"w\":3}"), "found 3"},
      {"tensor is null", file_bytes("{\"w\":null}"), "found null"},
      {"metadata is not text", file_bytes("{\"__metadata__\":{\"a\":1}}"), "__metadata__"},
      {"no dtype", file_bytes("{\"w\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4), "dtype is missing"},
      {"no shape", file_bytes("{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4), "shape is missing"},
      {"no offsets", file_bytes("{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4), "data_offsets is missing"},
      {"unknown key", file_bytes("{\"w\":{\"dtype\":\"F32\",\"stride\":[1]}}", 4), "shape is missing"},
      {"deep nesting below an unknown key", file_bytes("{\"w\":{\"stride\":" + std::string(200'000, '[')), "not JSON"},
      {"shape twice", file_bytes("{\"w\":{\"shape\":[1],\"shape\":[1]}}", 4), "'shape' is given twice"},
      {"unknown dtype", file_bytes(one("[1]", "[0,4]", "F99"), 4), "dtype 'F99' cannot be shown"},
      {"dtype that LibTorch lacks", file_bytes(one("[1]", "[0,8]", "U64"), 8), "dtype 'U64' cannot be shown"},
      {"dtype is a number", file_bytes("{\"w\":{\"dtype\":32}}"), "expected dtype as text"},
      {"wrong dtype for the size", file_bytes(one("[4]", "[0,16]", "F64"), 16), "needs 4 x 8 bytes"},
      {"negative dimension", file_bytes(one("[-1]", "[0,4]"), 4), "found -1"},
      {"fraction in the shape", file_bytes(one("[1.5]", "[0,4]"), 4), "found 1.5"},
      {"dimension as text", file_bytes(one("[\"1\"]", "[0,4]"), 4), "found '1'"},
      {"dimension above 2^63", file_bytes(one("[" + max64 + "]", "[0,4]"), 4), "a dimension of " + max64},
      {"dimension above 2^64", file_bytes(one("[99999999999999999999999]", "[0,4]"), 4), "found 9999"},
      {"shape product overflows", file_bytes(one("[4294967296,4294967296]", "[0,4]"), 4), "more than 2^63"},
      {"shape product overflows to 0", file_bytes(one("[4611686018427387904,4]", "[0,0]")), "more than 2^63"},
      {"overflow hidden by a 0", file_bytes(one("[0,4294967296,4294967296]", "[0,0]")), "more than 2^63"},
      {"bytes overflow", file_bytes(one("[4611686018427387904]", "[0,0]")), "needs 4611686018427387904 x 4"},
      {"huge shape", file_bytes(one("[1000000,1000000]", "[0,4]"), 4), "needs 1000000000000 x 4 bytes"},
      {"huge shape with huge offsets", file_bytes(one("[1000000,1000000]", "[0,4000000000000]"), 4), "outside"},
      {"100 dimensions", file_bytes(one("[1" + repeated(",1", 99) + "]", "[0,4]"), 4), "more than 64 dimensions"},
      {"negative offset", file_bytes(one("[1]", "[-4,0]"), 4), "found -4"},
      {"offsets outside", file_bytes(one("[1]", "[4,8]"), 4), "outside of the file"},
      {"offsets of 2^64", file_bytes(one("[1]", "[" + max64 + "," + max64 + "]"), 4), "outside of the file"},
      {"offsets backwards", file_bytes(one("[1]", "[4,0]"), 4), "end before they begin"},
      {"one offset", file_bytes(one("[1]", "[0]"), 4), "found 1"},
      {"three offsets", file_bytes(one("[1]", "[0,4,8]"), 4), "found more"},
      {"offsets too short for the shape", file_bytes(one("[2]", "[0,4]"), 4), "needs 2 x 4 bytes"},
      {"overlap", file_bytes("{" + entry("a", "F32", "[2]", 0, 8) + "," + entry("b", "F32", "[2]", 4, 12) + "}", 12),
       "overlap those of 'a'"},
      {"the same bytes twice",
       file_bytes("{" + entry("a", "F32", "[2]", 0, 8) + "," + entry("b", "F32", "[2]", 0, 8) + "}", 8),
       "overlap those of 'a'"},
      {"hole", file_bytes("{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("b", "F32", "[1]", 8, 12) + "}", 12),
       "hole of 4 bytes"},
      {"hole at the beginning", file_bytes(one("[1]", "[4,8]"), 8), "hole of 4 bytes"},
      {"bytes after the last tensor", file_bytes(one("[1]", "[0,4]"), 5), "1 bytes after the last tensor"},
      {"truncated data", file_bytes(one("[4]", "[0,16]"), 15), "truncated"},
      {"the same name twice",
       file_bytes("{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("a", "F32", "[1]", 4, 8) + "}", 8),
       "'a' is in the header twice"},
      {"terminal codes in a name", file_bytes("{\"\\u001b[31m\\n\":3}"), "\\x1b[31m\\x0a|found 3"},
  };
}

/// True where one of the alternatives in `said` ("a|b") is part of `text`.
inline bool says(const std::string& text, const std::string& said) {
  for (size_t begin = 0; begin <= said.size();) {
    const size_t end = std::min(said.find('|', begin), said.size());
    if (text.find(said.substr(begin, end - begin)) != std::string::npos) return true;
    begin = end + 1;
  }
  return false;
}

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
