// What LibTorch asks of CUDA's runtime: its calls are counted on their way there, by functions of the same names in
// this program, which the dynamic linker finds first. No header of CUDA, and nothing to do where LibTorch has no CUDA.
//
// Seen: the calls of LibTorch's own libraries. Not seen: what CUDA's libraries (cuBLAS, cuDNN, ...) do inside, and a
// runtime that is linked into LibTorch statically; gpu_check tries first whether an item() is counted.
//
// Multithreading: everything here may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

struct CudaCalls {
  int64_t synchronizations = 0;  ///< cudaStreamSynchronize, cudaDeviceSynchronize, cudaEventSynchronize, cudaMemcpy
  int64_t pageable_copies = 0;   ///< cudaMemcpyAsync between a device and memory that is not pinned: they may wait
  int64_t copies_to_host = 0;    ///< cudaMemcpyAsync, pinned
  int64_t copies_to_device = 0;  ///< likewise
  int64_t allocations = 0;       ///< cudaMalloc, cudaHostAlloc, ...: they may wait
  int64_t frees = 0;             ///< cudaFree, cudaFreeHost, ...: they wait
};

/// Of the calling thread, since the program began.
CudaCalls cuda_calls_of_this_thread();
/// Of all threads together.
CudaCalls cuda_calls_of_all_threads();

/// Records what `work` puts on this stream (CUDA's own) into a graph and runs it; nothing, or what went wrong.
std::string cuda_record_graph(void* stream, const std::function<void()>& work);

/// The name of a CUDA device ("NVIDIA H100 80GB HBM3"), from the driver; empty where it does not tell.
std::string cuda_device_name(int index);
