// A kernel that only reads: how fast a GPU's memory can be.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace tessera::bench {

/// Of `sums`.
inline constexpr int64_t kReadKernelSumBytes = 4;

/// Reads `num_bytes` (a multiple of 16) once. What it adds up lands in `sums` at the most once in
/// 2^32 times, so that the compiler cannot drop the reads.
void launch_read_kernel(const void* data, int64_t num_bytes, void* sums, cudaStream_t stream);

}  // namespace tessera::bench
