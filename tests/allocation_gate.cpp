#include "allocation_gate.h"

#include <chrono>
#include <cstdlib>
#include <new>
#include <thread>

namespace {

thread_local AllocationGate* own_gate = nullptr;

void* allocate(std::size_t size) {
  if (AllocationGate* gate = own_gate; gate && size >= gate->at_least && !gate->reached.exchange(true)) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!gate->open && !gate->expired) {
      gate->expired = std::chrono::steady_clock::now() > end;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  return std::malloc(size > 0 ? size : 1);
}

}  // namespace

void stop_at(AllocationGate* gate) { own_gate = gate; }

void* operator new(std::size_t size) {
  if (void* memory = allocate(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
