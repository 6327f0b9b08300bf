// Decode attention by Hopper's own instructions: bfloat16, up to 128 heads, latents of up to 512
// columns (in float8 rows up to 256), rope parts of up to 64. What an exact window yields comes
// from another pass and is merged with the rest.
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

/// Bytes of device memory that calls leave as they found it: zero. After a call that failed they
/// may not be, and no other may follow.
[[nodiscard]] int64_t sm90_decode_ticket_bytes();

/// In use until the stream has passed.
struct Sm90DecodeMemory {
  void* scratch = nullptr;  ///< sm90_decode_scratch_bytes()
  void* tickets = nullptr;  ///< sm90_decode_ticket_bytes()
};

/// What the window's tokens yield; in the scratch.
struct Sm90WindowPartials {
  float* values = nullptr;  ///< [B, H, w], normalised
  float* sums = nullptr;    ///< [B, H]: log-sum-exp, natural
};

/// Where launch_sm90_decode() finds it: written before, on its stream. Only with a window.
[[nodiscard]] Sm90WindowPartials sm90_window_partials(const MlaDecodeParams& params,
                                                      int num_multiprocessors,
                                                      void* scratch);

void launch_sm90_decode(const MlaDecodeParams& params,
                        int num_multiprocessors,
                        const Sm90DecodeMemory& memory,
                        cudaStream_t stream);

}  // namespace tessera::kernels::cuda
