// Stops a thread in the middle of what it does, at an allocation of a chosen size: a program that links
// allocation_gate.cpp has its operator new.
#pragma once

#include <atomic>
#include <cstddef>

/// Where a thread stops: at its first allocation of so many bytes, until somebody opens the gate.
struct AllocationGate {
  std::atomic<std::size_t> at_least{0};
  std::atomic<bool> reached{false}, open{false};
  std::atomic<bool> expired{false};  ///< nobody opened it for half a minute: it opened itself
};

/// For the thread that calls; nullptr: no gate.
void stop_at(AllocationGate* gate);
