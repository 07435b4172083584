// The .safetensors reader on good files, bad files, and good files with random damage.
#include "tools/safetensors.h"

#include <ATen/ATen.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>

#include "catch.h"
#include "safetensors_bytes.h"

using beholder::SafetensorsFile;
using beholder::TensorFileError;

namespace {

/// The file in memory of exactly its size, so that the address sanitizer sees a read beyond it.
struct Bytes {
  explicit Bytes(const std::string& text) : size(text.size()), data(new uint8_t[text.size()]) {
    if (size) std::memcpy(data.get(), text.data(), size);
  }
  size_t size;
  std::unique_ptr<uint8_t[]> data;
};

/// Parses and reads every tensor; what was said about the file, or "" where it is good.
std::string error_of(const std::string& text) {
  const Bytes bytes(text);
  try {
    const auto file = SafetensorsFile::view(bytes.data.get(), bytes.size);
    for (const auto& one : file.entries()) file.tensor(one).to(at::kComplexDouble).sum();
  } catch (const TensorFileError& error) {
    return error.what();
  }
  return "";
}

template <typename T>
std::string bytes_of(std::initializer_list<T> values) {
  std::string bytes;
  for (T value : values) bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  return bytes;
}

}  // namespace

TEST_CASE("a good file is read in the order of its data") {
  std::string header = "{" + entry("second", "F32", "[2]", 4, 12) + "," + entry("first", "F32", "[]", 0, 4) + "}   ";
  const Bytes bytes(length_bytes(header.size()) + header + bytes_of<float>({1, 2, 3}));
  const auto file = SafetensorsFile::view(bytes.data.get(), bytes.size);
  REQUIRE(file.entries().size() == 2);
  CHECK(file.entries()[0].name == "first");
  CHECK(file.entries()[1].name == "second");
  CHECK(file.tensor(file.entries()[0]).dim() == 0);
  CHECK(file.tensor(file.entries()[0]).item<float>() == 1);
  CHECK(file.tensor(file.entries()[1]).equal(at::tensor({2.f, 3.f})));
}

TEST_CASE("every dtype keeps its values") {
  struct Row {
    const char* dtype;
    std::string bytes;
    std::vector<double> values;
  };
  const auto row =
      GENERATE(Row{"F64", bytes_of<double>({0.1, -2}), {0.1, -2}}, Row{"F32", bytes_of<float>({0.5, -2}), {0.5, -2}},
               Row{"F16", bytes_of<uint16_t>({0x3c00, 0xc000}), {1, -2}},
               Row{"BF16", bytes_of<uint16_t>({0x3f80, 0xc000}), {1, -2}},
               Row{"I64", bytes_of<int64_t>({-5, int64_t{1} << 40}), {-5, 1099511627776.0}},
               Row{"I32", bytes_of<int32_t>({-5, 7}), {-5, 7}}, Row{"I16", bytes_of<int16_t>({-5, 7}), {-5, 7}},
               Row{"I8", bytes_of<int8_t>({-5, 7}), {-5, 7}}, Row{"U8", bytes_of<uint8_t>({200, 7}), {200, 7}},
               Row{"BOOL", bytes_of<uint8_t>({0, 7}), {0, 1}}, Row{"U16", bytes_of<uint16_t>({65535, 1}), {65535, 1}},
               Row{"U32", bytes_of<uint32_t>({4294967295u, 1}), {4294967295.0, 1}});
  // With and without padding: the data may stand at any address.
  const auto padding = GENERATE(range(0, 8));
  CAPTURE(row.dtype, padding);
  const std::string header =
      "{" + entry("w", row.dtype, "[2]", 0, row.bytes.size()) + "}" + std::string(static_cast<size_t>(padding), ' ');
  const Bytes bytes(length_bytes(header.size()) + header + row.bytes);
  const auto file = SafetensorsFile::view(bytes.data.get(), bytes.size);
  const at::Tensor tensor = file.tensor(file.entries()[0]);
  CHECK(reinterpret_cast<uintptr_t>(tensor.data_ptr()) % tensor.element_size() == 0);  // else reading it is undefined
  const at::Tensor values = tensor.to(at::kDouble);
  CHECK(values[0].item<double>() == row.values[0]);
  CHECK(values[1].item<double>() == row.values[1]);
}

TEST_CASE("empty tensors, an empty file of tensors and metadata are good") {
  CHECK(error_of(file_bytes("{}")).empty());
  CHECK(error_of(file_bytes("{\"__metadata__\":{\"a\":\"b\"}}")).empty());
  CHECK(error_of(file_bytes("{" + entry("e", "F32", "[0,5]", 0, 0) + "," + entry("w", "F32", "[1]", 0, 4) + "}", 4))
            .empty());
}

TEST_CASE("what is odd about one tensor leaves the others") {
  struct Row {
    std::string dtype, shape, more, said;
    uint64_t bytes;
  };
  for (const auto& row : {
           Row{"F32", "[1" + repeated(",1", 64) + "]", "", "more than 64 dimensions", 4},
           Row{"F32", "[0" + repeated(",1", 64) + "]", "", "more than 64 dimensions", 0},
           Row{"F32", "[0,4294967296,4294967296]", "", "has more than 2^63 elements", 0},
           Row{"F1", "[4294967296,4294967296]", "", "dtype 'F1'", 3},
           Row{"F32", "[1]", ",\"stride\":3", "'stride' in its header is not known here", 4},
           Row{"F32", "[1]", R"(,"a":{"shape":[{"b":[1,-2,3.5,null,true,"}"]},{}],"c":{}})", "'a' in its header", 4},
           Row{"F32", "[1]", R"(,"\u001b\n":[],"b":"text")", R"('\x1b\x0a' in its header)", 4},
       }) {
    CAPTURE(row.said);
    std::string odd = entry("odd", row.dtype, row.shape, 4, 4 + row.bytes);
    odd.insert(odd.size() - 1, row.more);
    const Bytes bytes(file_bytes("{" + entry("first", "F32", "[]", 0, 4) + "," + odd + "," +
                                     entry("last", "F32", "[2]", 4 + row.bytes, 12 + row.bytes) + "}",
                                 12 + row.bytes));
    const auto file = SafetensorsFile::view(bytes.data.get(), bytes.size);
    REQUIRE(file.entries().size() == 3);
    for (const auto& one : file.entries()) {
      const std::string refusal = SafetensorsFile::refusal(one);
      CAPTURE(one.name, refusal);
      CHECK(says(refusal, row.said) == (one.name == "odd"));
      if (one.name == "odd") {
        CHECK_THROWS_AS(file.tensor(one), TensorFileError);
      } else {
        CHECK(refusal.empty());
        CHECK(file.tensor(one).equal(one.name == "last" ? at::zeros({2}) : at::zeros({})));
      }
    }
  }
}

TEST_CASE("a bad file is one clear line") {
  for (const auto& bad : bad_files()) {
    CAPTURE(bad.name);
    const std::string error = error_of(bad.bytes);
    CAPTURE(error);
    CHECK(says(error, bad.said));
    CHECK(error.size() < 800);
    for (unsigned char c : error) CHECK((c >= 0x20 && c != 0x7f));
  }
}

TEST_CASE("what is no readable file is one clear line with its path") {
  const std::string folder =
      (std::filesystem::temp_directory_path() / ("beholder_st_" + std::to_string(getpid()))).string();
  std::filesystem::create_directories(folder);
  ::mkfifo((folder + "/fifo").c_str(), 0600);
  write_file(folder + "/empty", "");
  struct Row {
    std::string path, said;
  };
  for (const auto& row : {Row{folder, "is a directory"}, Row{folder + "/missing", "No such file"},
                          Row{folder + "/fifo", "not a regular file"}, Row{"/dev/zero", "not a regular file"},
                          Row{folder + "/empty", "is empty"}}) {
    try {
      SafetensorsFile::open(row.path);
      FAIL(row.path);
    } catch (const TensorFileError& error) {
      CHECK(std::string(error.what()).rfind(row.path + ": ", 0) == 0);
      CHECK(says(error.what(), row.said));
    }
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("tensors outlive the file object") {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("beholder_st_" + std::to_string(getpid()) + ".st")).string();
  write_file(path, good_file({{"w", "[3]", {1, 2, 3}}}));
  at::Tensor tensor;
  {
    const auto file = SafetensorsFile::open(path);
    tensor = file.tensor(file.entries()[0]);
  }
  std::filesystem::remove(path);
  CHECK(tensor.equal(at::tensor({1.f, 2.f, 3.f})));
}

TEST_CASE("random damage never does more than an error") {
  const std::string good = good_file({{"conv.weight", "[2,1,3,3]", std::vector<float>(18, 1)}, {"b", "[2]", {1, 2}}});
  REQUIRE(error_of(good).empty());
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good;
    const int damages = 1 + static_cast<int>(random() % 3);
    for (int k = 0; k < damages; ++k) {
      const size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0: bytes[at] = static_cast<char>(random()); break;
        case 1: bytes.resize(at + 1); break;
        case 2: bytes.insert(at, 1, "0123456789,[]{}\"-e"[random() % 18]); break;
        default: bytes.erase(at, 1 + random() % 3); break;
      }
      if (bytes.empty()) bytes = "x";
    }
    refused += !error_of(bytes).empty();
  }
  CHECK(refused > 10'000);
}
