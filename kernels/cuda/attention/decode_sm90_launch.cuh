// How the host launches Hopper's decode attention: what its files share.
#pragma once

#include "kernels/cuda/attention/decode_sm90_args.cuh"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {

template <typename Shape>
void attend(void (*kernel)(DecodeSm90Maps, DecodeSm90Args),
            const DecodeSm90Maps& maps,
            const DecodeSm90Args& args,
            int num_parts,
            cudaStream_t stream) {
  launch_early(
      "mla_decode",
      kernel,
      {to_grid(int64_t{num_parts} * args.num_head_tiles), Shape::kThreads, Shape::kSharedBytes},
      stream,
      maps,
      args);
}

/// The pass over float8 rows; for 1, 2 and 4 panels.
template <int kPanels>
void attend_float8(const DecodeSm90Maps& maps,
                   const DecodeSm90Args& args,
                   int num_parts,
                   cudaStream_t stream);

}  // namespace tessera::kernels::cuda
