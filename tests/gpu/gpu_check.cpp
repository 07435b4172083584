// Checks and measures Beholder's core on a device: tools/gpu_check.sh builds and runs it where there is a GPU, with
// nothing but LibTorch; ctest runs it on the CPU and on the test-only device, so that it works when it is needed.
//
//   gpu_check [--quick]     the device is that of BEHOLDER_TEST_DEVICE: cuda (default), cuda:1, ..., cpu
//
// Exit status: 0 every check passed, 1 some failed, 2 a wrong command line, 77 there is no such device here.
#include "gpu_check.h"

#include <torch/version.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>

#include "beholder/log.h"

namespace {

constexpr int kFailed = 1, kUsage = 2, kNoDevice = 77;

int run(const Target& target, bool quick) {
  std::printf("Device: %s (%s); LibTorch %s\n", target.name().c_str(), target.device().str().c_str(), TORCH_VERSION);
  Report report;
  report.row("device", target.name() + " (" + target.device().str() + ")");
  report.row("LibTorch", TORCH_VERSION);
  try {
    check_promises(target, report);
    measure(target, report, quick);
  } catch (const std::exception& error) {
    report.check(false, "the checks come to their end", error.what());
  }
  report.print_table();
  if (!target.how_counted().empty()) std::printf("\nCounted: %s.\n", target.how_counted().c_str());
  if (quick) std::printf("\n--quick: these times are no measurements.\n");
  std::printf("\n%d checks passed, %d failed\n", report.passed(), report.failed());
  std::error_code ignored;
  std::filesystem::remove_all(std::filesystem::temp_directory_path() / "beholder-gpu-check", ignored);
  return report.failed() == 0 && report.passed() > 0 ? 0 : kFailed;
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") != 0) {
      std::fprintf(stderr, "usage: BEHOLDER_TEST_DEVICE=cuda|cuda:1|cpu gpu_check [--quick]; found '%s'\n", argv[i]);
      return kUsage;
    }
    quick = true;
  }
  const char* given = std::getenv("BEHOLDER_TEST_DEVICE");
  const std::string name = given && *given ? given : "cuda";
  std::unique_ptr<Target> target;
  try {
    target = find_target(name);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "BEHOLDER_TEST_DEVICE: %s\n", error.what());
    return kUsage;
  }
  if (!target) {
    std::printf("skipped: this machine has no device %s that LibTorch %s can use; nothing was checked\n", name.c_str(),
                TORCH_VERSION);
    return kNoDevice;
  }
  return run(*target, quick);
}
