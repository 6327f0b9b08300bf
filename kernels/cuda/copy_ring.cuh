// A ring of tiles in shared memory that the bulk copy engine fills and warps read.
#pragma once

#include "kernels/cuda/sm90.cuh"

namespace tessera::kernels::cuda {

/// Tiles are numbered in the order in which they pass; tile n lies in slot n % kStages, in use
/// until all reading warps have released it. Barriers are 8 bytes each, kStages side by side.
template <int kStages>
struct CopyRing {
  uint32_t full = 0;
  uint32_t empty = 0;
  uint32_t slots = 0;
  int slot_bytes = 0;

  /// One thread of the block.
  __device__ __forceinline__ void init_barriers(int num_reading_warps) const {
    for (int i = 0; i < kStages; ++i) {
      sm90::barrier_init(full + i * 8, 1);
      sm90::barrier_init(empty + i * 8, num_reading_warps);
    }
  }
  __device__ __forceinline__ uint32_t slot(int number) const {
    return slots + number % kStages * slot_bytes;
  }
  __device__ __forceinline__ uint32_t full_of(int number) const {
    return full + number % kStages * 8;
  }
  /// By readers: the tile has landed.
  __device__ __forceinline__ uint32_t wait(int number) const {
    sm90::barrier_wait(full_of(number), number / kStages & 1);
    return slot(number);
  }
  /// By every reading warp.
  __device__ __forceinline__ void release(int number) const {
    if (threadIdx.x % 32 == 0) {
      sm90::barrier_arrive(empty + number % kStages * 8);
    }
  }
  /// By the writer: waits until the slot is free.
  __device__ __forceinline__ void wait_free(int number) const {
    sm90::barrier_wait(empty + number % kStages * 8, (number / kStages + 1) & 1);
  }
  /// By the writer, once the slot is free: `num_bytes` of copies that name full_of() are to follow.
  /// What it stored to shared memory before is seen by readers after wait().
  __device__ __forceinline__ uint32_t fill(int number, int num_bytes) const {
    sm90::barrier_expect(full_of(number), num_bytes);
    return slot(number);
  }
};

}  // namespace tessera::kernels::cuda
