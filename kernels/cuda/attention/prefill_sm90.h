// Prefill attention by Hopper's own instructions: bfloat16, heads of 128 + 64 key and 128 value
// columns, those of DeepSeek-V2 and V3 and of all that follow them.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention/prefill_pass.cuh"

namespace tessera::kernels::cuda {

/// Whether a pass in bfloat16 is of that kind, aligned as the copy engine needs (16 bytes).
[[nodiscard]] bool can_use_sm90_prefill(const PrefillPass& pass);

void launch_prefill_sm90(const PrefillPass& pass, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
