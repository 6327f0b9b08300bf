// Decode attention by Hopper's own instructions: bfloat16, up to 128 heads, latents of up to 256
// columns, rope parts of up to 64; one softmax over the paged rows, no window.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/ops/attention_params.h"

namespace tessera::kernels::cuda {

/// Whether `params` are of that kind, aligned as the copy engine needs (16 bytes).
[[nodiscard]] bool can_use_sm90_decode(const MlaDecodeParams& params);

/// Scratch that a call needs.
[[nodiscard]] int64_t sm90_decode_scratch_bytes(const MlaDecodeParams& params,
                                                int num_multiprocessors);

/// `scratch`: sm90_decode_scratch_bytes() of device memory, in use until the stream has passed.
void launch_sm90_decode(const MlaDecodeParams& params,
                        int num_multiprocessors,
                        void* scratch,
                        cudaStream_t stream);

}  // namespace tessera::kernels::cuda
