// Counts what is allocated, through the address sanitizer's hooks. Compiled without coverage: how often memory is
// allocated is no news for libFuzzer.
#include <atomic>

#include "fuzz.h"

// Missing, and then null, where there is no address sanitizer.
extern "C" {
__attribute__((weak)) int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*, size_t),
                                                                    void (*free_hook)(const volatile void*));
__attribute__((weak)) size_t __sanitizer_get_allocated_size(const volatile void* address);
}

namespace fuzz {
namespace {

std::atomic<int64_t> now_bytes{0}, highest_bytes{0};

void allocated(const volatile void*, size_t bytes) {
  const int64_t now = now_bytes.fetch_add(static_cast<int64_t>(bytes)) + static_cast<int64_t>(bytes);
  int64_t highest = highest_bytes.load();
  while (now > highest && !highest_bytes.compare_exchange_weak(highest, now)) {
  }
}

void freed(const volatile void* address) {
  if (address) now_bytes -= static_cast<int64_t>(__sanitizer_get_allocated_size(address));
}

}  // namespace

void start_counting() {
  static const bool counts = __sanitizer_install_malloc_and_free_hooks && __sanitizer_get_allocated_size &&
                             __sanitizer_install_malloc_and_free_hooks(&allocated, &freed) > 0;
  (void)counts;
  now_bytes = 0;
  highest_bytes = 0;
}

int64_t most_bytes() { return highest_bytes; }

}  // namespace fuzz
