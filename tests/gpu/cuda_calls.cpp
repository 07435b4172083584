#include "cuda_calls.h"

#include <dlfcn.h>

#include <array>
#include <atomic>
#include <cstddef>

namespace {

enum Call { Synchronization, PageableCopy, CopyToHost, CopyToDevice, Allocation, Free, kCalls };

thread_local std::array<int64_t, kCalls> mine{};
std::array<std::atomic<int64_t>, kCalls> all{};

void count(Call call) {
  ++mine[call];
  all[call].fetch_add(1, std::memory_order_relaxed);
}

template <typename Counters>
CudaCalls calls(const Counters& of) {
  return {of[Synchronization], of[PageableCopy], of[CopyToHost], of[CopyToDevice], of[Allocation], of[Free]};
}

// An enumeration of CUDA's runtime is an int for the calling convention; these are its values in all versions.
using Error = int;
constexpr Error kUnknownError = 999;
constexpr size_t kExpectedGraphNodes = 40;  // of check_graphs(): its own operators, and nothing else
constexpr int kHostToDevice = 1, kDeviceToHost = 2;

/// Calls the runtime's own function of this name.
template <typename... Arguments>
Error call_runtime(const char* name, Arguments... arguments) {
  void* function = dlsym(RTLD_NEXT, name);
  return function ? reinterpret_cast<Error (*)(Arguments...)>(function)(arguments...) : kUnknownError;
}

bool is_pageable(const void* pointer) {
  // cudaPointerAttributes begins with the type of the memory: 0 is that of malloc(). Later versions have a longer one.
  struct {
    int type;
    char more[252];
  } attributes{};
  return call_runtime<void*, const void*>("cudaPointerGetAttributes", &attributes, pointer) != 0 ||
         attributes.type == 0;
}

}  // namespace

CudaCalls cuda_calls_of_this_thread() { return calls(mine); }
CudaCalls cuda_calls_of_all_threads() { return calls(all); }

std::string cuda_device_name(int index) {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (!driver) driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (!driver) return "";
  const auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
  const auto get_name = reinterpret_cast<int (*)(char*, int, int)>(dlsym(driver, "cuDeviceGetName"));
  int device = 0;
  char name[256] = "";
  if (!get || !get_name || get(&device, index) != 0 || get_name(name, sizeof name, device) != 0) return "";
  return name;
}

std::string cuda_record_graph(void* stream, const std::function<void()>& work) {
  constexpr int kGlobal = 0;
  void *graph = nullptr, *executable = nullptr;
  if (const Error error = call_runtime<void*, int>("cudaStreamBeginCapture", stream, kGlobal)) {
    return "cudaStreamBeginCapture: error " + std::to_string(error);
  }
  std::string thrown;
  try {
    work();
  } catch (const std::exception& error) {
    thrown = error.what();
  }
  if (const Error error = call_runtime<void*, void**>("cudaStreamEndCapture", stream, &graph)) {
    call_runtime<>("cudaGetLastError");
    return "cudaStreamEndCapture: error " + std::to_string(error) + (thrown.empty() ? "" : "; " + thrown);
  }
  if (!thrown.empty()) return thrown;
  size_t nodes = 0;
  Error error = call_runtime<void*, void**, size_t*>("cudaGraphGetNodes", graph, nullptr, &nodes);
  if (!error)
    error = call_runtime<void**, void*, unsigned long long>("cudaGraphInstantiateWithFlags", &executable, graph, 0);
  if (!error) error = call_runtime<void*, void*>("cudaGraphLaunch", executable, stream);
  if (!error) error = call_runtime<void*>("cudaStreamSynchronize", stream);
  if (executable) call_runtime<void*>("cudaGraphExecDestroy", executable);
  call_runtime<void*>("cudaGraphDestroy", graph);
  if (error) return "the graph of " + std::to_string(nodes) + " nodes does not run: error " + std::to_string(error);
  return nodes == kExpectedGraphNodes ? "" : "the graph has " + std::to_string(nodes) + " nodes, expected 40";
}

// ---- the functions that LibTorch finds before CUDA's

extern "C" {

Error cudaStreamSynchronize(void* stream) {
  count(Synchronization);
  return call_runtime<void*>("cudaStreamSynchronize", stream);
}

Error cudaDeviceSynchronize() {
  count(Synchronization);
  return call_runtime<>("cudaDeviceSynchronize");
}

Error cudaEventSynchronize(void* event) {
  count(Synchronization);
  return call_runtime<void*>("cudaEventSynchronize", event);
}

Error cudaMemcpy(void* to, const void* from, size_t bytes, int kind) {
  count(Synchronization);
  return call_runtime<void*, const void*, size_t, int>("cudaMemcpy", to, from, bytes, kind);
}

Error cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, void* stream) {
  if (kind == kHostToDevice) count(is_pageable(from) ? PageableCopy : CopyToDevice);
  if (kind == kDeviceToHost) count(is_pageable(to) ? PageableCopy : CopyToHost);
  return call_runtime<void*, const void*, size_t, int, void*>("cudaMemcpyAsync", to, from, bytes, kind, stream);
}

Error cudaMalloc(void** pointer, size_t bytes) {
  count(Allocation);
  return call_runtime<void**, size_t>("cudaMalloc", pointer, bytes);
}

Error cudaMallocHost(void** pointer, size_t bytes) {
  count(Allocation);
  return call_runtime<void**, size_t>("cudaMallocHost", pointer, bytes);
}

Error cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  count(Allocation);
  return call_runtime<void**, size_t, unsigned>("cudaHostAlloc", pointer, bytes, flags);
}

Error cudaFree(void* pointer) {
  count(Free);
  return call_runtime<void*>("cudaFree", pointer);
}

Error cudaFreeHost(void* pointer) {
  count(Free);
  return call_runtime<void*>("cudaFreeHost", pointer);
}

}  // extern "C"
