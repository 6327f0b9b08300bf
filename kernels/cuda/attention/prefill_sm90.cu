#include "kernels/cuda/attention/prefill_sm90.cuh"
#include "kernels/cuda/attention/prefill_sm90.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.h"

namespace tessera::kernels::cuda {

namespace {

using Shape = PrefillSm90Shape;

__global__ void __launch_bounds__(Shape::kThreads, 1)
    prefill_sm90_kernel(const __grid_constant__ PrefillSm90Maps maps,
                        const __grid_constant__ PrefillPass p) {
  extern __shared__ uint8_t raw[];
  uint8_t* shared = sm90::align_tiles(raw);
  const prefill_detail::Places places(sm90::shared_address(shared));
  if (threadIdx.x == 0) {
    sm90::prefetch_tensor_map(&maps.q);
    sm90::prefetch_tensor_map(&maps.kv);
    sm90::prefetch_tensor_map(&maps.k_rope);
    places.init_barriers();
  }
  __syncthreads();
  const prefill_detail::Block block(p);
  if (threadIdx.x < 128) {
    sm90::give_registers<40>();
    if (threadIdx.x == 0) {
      prefill_detail::produce(maps, places, block);
    }
  } else {
    sm90::take_registers<232>();
    prefill_detail::consume(p, maps, places, block, shared);
  }
}

PrefillSm90Maps make_maps(const PrefillPass& pass) {
  const int64_t heads = pass.num_heads;
  return {
      .q =
          make_tensor_map({.base = pass.q,
                           .size = {Shape::kNopeWidth + Shape::kRopeWidth, heads, pass.num_queries},
                           .stride = {pass.q_head_stride, pass.q_stride},
                           .box = {1, Shape::kGroupQueries}}),
      .kv = make_tensor_map({.base = pass.kv,
                             .size = {Shape::kNopeWidth + Shape::kValueWidth, heads, pass.num_keys},
                             .stride = {pass.kv_head_stride, pass.kv_stride},
                             .box = {1, Shape::kKeys}}),
      .k_rope = make_tensor_map({.base = pass.k_rope,
                                 .size = {Shape::kRopeWidth, 1, pass.num_keys},
                                 .stride = {pass.k_rope_stride, pass.k_rope_stride},
                                 .box = {1, Shape::kKeys}}),
      .out = make_tensor_map({.base = pass.out,
                              .size = {Shape::kValueWidth, heads, pass.num_queries},
                              .stride = {pass.out_head_stride, pass.out_stride},
                              .box = {1, Shape::kGroupQueries}})};
}

}  // namespace

bool can_use_sm90_prefill(const PrefillPass& pass) {
  return pass.nope_width == Shape::kNopeWidth && pass.rope_width == Shape::kRopeWidth &&
         pass.value_width == Shape::kValueWidth && is_copy_aligned(pass.q) &&
         is_copy_aligned(pass.q_stride) && is_copy_aligned(pass.q_head_stride) &&
         is_copy_aligned(pass.kv) && is_copy_aligned(pass.kv_stride) &&
         is_copy_aligned(pass.kv_head_stride) && is_copy_aligned(pass.k_rope) &&
         is_copy_aligned(pass.k_rope_stride) && is_copy_aligned(pass.out) &&
         is_copy_aligned(pass.out_stride) && is_copy_aligned(pass.out_head_stride);
}

void launch_prefill_sm90(const PrefillPass& pass, cudaStream_t stream) {
  launch("mla_prefill (sm90)",
         prefill_sm90_kernel,
         {to_grid(pass.num_heads * ceil_div(pass.num_queries, Shape::kQueries)),
          Shape::kThreads,
          Shape::kSharedBytes},
         stream,
         make_maps(pass),
         pass);
}

}  // namespace tessera::kernels::cuda
