// Feeds files to a fuzzer's function where there is no libFuzzer: the corpus as an ordinary test.
//   fuzz_corpus_NAME FILE-OR-FOLDER...
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "fuzz.h"

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::directory_iterator(argv[i])) files.push_back(entry.path());
    } else {
      files.push_back(argv[i]);
    }
  }
  std::sort(files.begin(), files.end());
  for (const auto& path : files) {
    std::ifstream file(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    if (!file) {
      std::fprintf(stderr, "%s cannot be read\n", path.c_str());
      return 1;
    }
    std::printf("%s\n", path.filename().c_str());
    std::fflush(stdout);  // the last name is that of the input that ended the program
    // Of exactly its size, so that the address sanitizer sees a read beyond it.
    const std::unique_ptr<uint8_t[]> bytes(new uint8_t[text.size()]);
    std::copy(text.begin(), text.end(), bytes.get());
    LLVMFuzzerTestOneInput(bytes.get(), text.size());
  }
  std::printf("%zu inputs\n", files.size());
  return files.empty();  // a test that has seen nothing proves nothing
}
