// What the kernels of prefill attention are told: MlaPrefillParams for the device.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace tessera::kernels::cuda {

struct PrefillPass {
  const void* q = nullptr;
  const void* kv = nullptr;  ///< k_nope | v
  const void* k_rope = nullptr;
  void* out = nullptr;
  int64_t q_stride = 0, q_head_stride = 0;  ///< in elements, as all strides
  int64_t kv_stride = 0, kv_head_stride = 0;
  int64_t k_rope_stride = 0;
  int64_t out_stride = 0, out_head_stride = 0;
  int32_t num_queries = 0;
  int32_t num_heads = 0;
  int32_t num_keys = 0;
  int32_t nope_width = 0;
  int32_t rope_width = 0;
  int32_t value_width = 0;
  int32_t first_visible = 0;  ///< query i sees the tile's keys [0, first_visible + i]; maybe < 0
  float scale = 1.0F;
  bool is_first_tile = true;
  bool is_last_tile = true;
  DeviceHeads<float> accumulator;
  DeviceRows<float> max_logit, sum;  ///< [T, H]

  /// Keys of this tile that query i sees.
  __device__ int num_visible(int query) const {
    return min(max(first_visible + query + 1, 0), num_keys);
  }
};

/// On the float32 units, for any sizes.
template <typename T>
void launch_prefill_simt(const PrefillPass& pass, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
