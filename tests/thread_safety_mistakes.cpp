// Not built: what clang's thread-safety analysis must find, so that tests/thread_safety.sh is seen to fail. Each line
// with a mistake says so; in all others there is none.
#include <chrono>
#include <memory>

#include "beholder/thread_safety.h"

namespace beholder {

struct Shared {
  Mutex mutex;
  Condition changed;
  int value BEHOLDER_GUARDED_BY(mutex) = 0;
  std::unique_ptr<int> pointer BEHOLDER_PT_GUARDED_BY(mutex);
  RecursiveMutex recursive;
  int counted BEHOLDER_GUARDED_BY(recursive) = 0;

  Mutex& the_mutex() BEHOLDER_RETURN_CAPABILITY(mutex) { return mutex; }
  void add(int n) BEHOLDER_REQUIRES(mutex) { value += n; }
};

void under_the_lock(Shared& shared) {
  MutexLock lock(shared.mutex);
  shared.value = 1;
  shared.add(*shared.pointer);
  shared.changed.wait(lock, [&]() BEHOLDER_REQUIRES(shared.mutex) { return shared.value > 0; });
  lock.unlock();
  lock.lock();
  shared.value = 2;
}

int under_a_lock_that_a_function_returned(Shared& shared) {
  MutexLock lock(shared.the_mutex());
  return shared.value;
}

void under_a_recursive_lock(Shared& shared) {
  RecursiveLock lock(shared.recursive);
  ++shared.counted;
}

void not_analysed(Shared& shared) BEHOLDER_NO_THREAD_SAFETY_ANALYSIS { shared.value = 1; }

int read(const Shared& shared) { return shared.value; }  // mistake
void write(Shared& shared) { shared.value = 1; }         // mistake
void follow(Shared& shared) { *shared.pointer = 1; }     // mistake
void call(Shared& shared) { shared.add(1); }             // mistake
void count(Shared& shared) { ++shared.counted; }         // mistake

void after_unlock(Shared& shared) {
  MutexLock lock(shared.mutex);
  lock.unlock();
  shared.value = 1;  // mistake
}

void under_another_lock(Shared& shared, Shared& other) {
  MutexLock lock(other.mutex);
  shared.value = 1;  // mistake
}

void in_a_lambda(Shared& shared) {
  MutexLock lock(shared.mutex);
  shared.changed.wait_for(lock, std::chrono::seconds(1), [&] { return shared.value > 0; });  // mistake
}

void twice(Shared& shared) {
  MutexLock lock(shared.mutex);
  MutexLock again(shared.mutex);  // mistake
}

}  // namespace beholder
