#include "beholder/forks.h"

#include <pthread.h>

#include <atomic>

namespace beholder {
namespace {

std::atomic<int> forks{0};

}  // namespace

int fork_count() noexcept {
  static const int registered =
      ::pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  static_cast<void>(registered);  // fails without memory alone: then a copy is not known as one
  return forks.load(std::memory_order_relaxed);
}

}  // namespace beholder
