// Up-projected MLA attention of a chunk of queries over one tile of keys, with the running softmax
// kept in the caller's buffers between tiles: chooses a kernel.

#include "kernels/cuda/attention/prefill_pass.cuh"
#include "kernels/cuda/attention/prefill_sm90.h"
#include "kernels/cuda/cuda_ops.h"

namespace tessera::kernels::cuda {

void CudaOps::do_mla_prefill(const MlaPrefillParams& params, StreamView stream) {
  const cudaStream_t on = device_.enter(stream);
  const auto rope = static_cast<int32_t>(params.k_rope.dim(1));
  const auto nope = static_cast<int32_t>(params.q.dim(2)) - rope;
  const PrefillPass pass{
      .q = params.q.data,
      .kv = params.kv.data,
      .k_rope = params.k_rope.data,
      .out = params.out.data,
      .q_stride = params.q.stride[0],
      .q_head_stride = params.q.stride[1],
      .kv_stride = params.kv.stride[0],
      .kv_head_stride = params.kv.stride[1],
      .k_rope_stride = params.k_rope.stride[0],
      .out_stride = params.out.stride[0],
      .out_head_stride = params.out.stride[1],
      .num_queries = static_cast<int32_t>(params.q.dim(0)),
      .num_heads = static_cast<int32_t>(params.q.dim(1)),
      .num_keys = static_cast<int32_t>(params.kv.dim(0)),
      .nope_width = nope,
      .rope_width = rope,
      .value_width = static_cast<int32_t>(params.kv.dim(2)) - nope,
      .first_visible = static_cast<int32_t>(params.query_begin - params.key_begin),
      .scale = params.scale,
      .is_first_tile = params.is_first_tile,
      .is_last_tile = params.is_last_tile,
      .accumulator = heads_of<float>(params.accumulator),
      .max_logit = rows_of<float>(params.max_logit),
      .sum = rows_of<float>(params.sum)};
  if (params.q.dtype == DType::kFloat32) {
    launch_prefill_simt<float>(pass, on);
  } else if (can_use_sm90_prefill(pass)) {
    launch_prefill_sm90(pass, on);
  } else {
    launch_prefill_simt<Bf16>(pass, on);
  }
}

}  // namespace tessera::kernels::cuda
