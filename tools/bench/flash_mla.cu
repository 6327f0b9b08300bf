#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "tools/bench/flash_mla.h"

// FlashMLA's own, relative to its folder csrc.
#include <params.h>
#include <sm90/decode/dense/splitkv_mla.h>
#include <smxx/decode/combine/combine.h>
#include <smxx/decode/get_decoding_sched_meta/get_decoding_sched_meta.h>

namespace tessera::bench {
namespace {

using kernels::kBlockTokens;
using kernels::MlaDecodeParams;

constexpr int kValueWidth = 512;
constexpr int kRowWidth = 576;
constexpr int kTileHeads = 64;
/// Blocks that a sequence costs besides its own; what its Python interface sets.
constexpr int kSequenceCost = 5;
constexpr float kLog2E = 1.4426950408889634F;

int num_multiprocessors() {
  int device = 0;
  int count = 0;
  check_cuda_call(cudaGetDevice(&device));
  check_cuda_call(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

cudaStream_t stream_of(const GpuBench& bench) {
  return static_cast<cudaStream_t>(bench.stream().handle);
}

class FlashMla final : public DecodeBaseline {
 public:
  FlashMla(GpuBench& bench, const MlaDecodeParams& params);
  void run(const MlaDecodeParams& params) override;

 private:
  GpuBench& bench_;
  int num_parts_ = 0;
  kernels::DeviceBuffer plan_;        ///< of each part
  kernels::DeviceBuffer num_splits_;  ///< [sequences + 1], of the sequences before each
  kernels::DeviceBuffer sums_;        ///< [parts + sequences, heads]
  kernels::DeviceBuffer values_;      ///< [parts + sequences, heads, 512]
};

FlashMla::FlashMla(GpuBench& bench, const MlaDecodeParams& params) : bench_(bench) {
  const int64_t batch = params.q_latent.dim(0);
  const int64_t heads = params.q_latent.dim(1);
  const auto* latent = static_cast<const kernels::BFloat16*>(params.q_latent.data);
  const bool is_plain =
      params.cache.dtype == kernels::DType::kBFloat16 && params.cache.latent_width == kValueWidth &&
      params.cache.latent_width + params.cache.rope_width == kRowWidth &&
      params.cache.block_stride_bytes ==
          kBlockTokens * kRowWidth * static_cast<int64_t>(sizeof(kernels::BFloat16)) &&
      params.row_tokens == 1 && !params.window && params.q_rope.data == latent + kValueWidth &&
      params.q_latent.stride[0] == heads * kRowWidth && params.q_latent.stride[1] == kRowWidth &&
      params.out.stride[0] == heads * kValueWidth && params.out.stride[1] == kValueWidth;
  if (!is_plain) {
    throw DeviceError("FlashMLA: only bfloat16 rows of 512 + 64 columns, one token a sequence");
  }
  const auto tiles = static_cast<int>(kernels::cuda::ceil_div(heads, kTileHeads));
  num_parts_ = std::max(1, num_multiprocessors() / tiles);
  kernels::Device& device = bench.device();
  plan_ = device.allocate(num_parts_ * static_cast<int64_t>(sizeof(DecodingSchedMeta)));
  num_splits_ = device.allocate((batch + 1) * static_cast<int64_t>(sizeof(int)));
  const int64_t rows = (num_parts_ + batch) * heads;
  sums_ = device.allocate(rows * static_cast<int64_t>(sizeof(float)));
  values_ = device.allocate(rows * kValueWidth * static_cast<int64_t>(sizeof(float)));
  GetDecodeSchedMetaParams plan = {};
  plan.b = static_cast<int>(batch);
  plan.s_q = 1;
  plan.block_size_n = static_cast<int>(kBlockTokens);
  plan.fixed_overhead_num_blocks = kSequenceCost;
  plan.topk = -1;
  plan.extra_topk = -1;
  plan.seqlens_k_ptr = const_cast<int*>(params.lengths.as<int32_t>());  // NOLINT: its own type
  plan.tile_scheduler_metadata_ptr = static_cast<DecodingSchedMeta*>(plan_.data());
  plan.num_splits_ptr = static_cast<int*>(num_splits_.data());
  plan.num_sm_parts = num_parts_;
  plan.stream = stream_of(bench);
  smxx::decode::run_get_decoding_sched_meta_kernel(plan);
  check_cuda_call(cudaStreamSynchronize(plan.stream));
}

void FlashMla::run(const MlaDecodeParams& params) {
  const auto batch = static_cast<int>(params.q_latent.dim(0));
  const auto heads = static_cast<int>(params.q_latent.dim(1));
  // Its parameters point to what is not const; it writes only results.
  DenseAttnDecodeParams split = {};
  split.b = batch;
  split.s_q = 1;
  split.q_seq_per_hk = heads;
  split.d = kRowWidth;
  split.d_v = kValueWidth;
  split.h_q = heads;
  split.h_k = 1;
  split.num_blocks = static_cast<int>(params.cache.num_blocks);
  split.q_head_per_hk = heads;
  split.is_causal = false;
  split.scale_softmax = params.scale;
  split.scale_softmax_log2 = params.scale * kLog2E;
  split.q_ptr = const_cast<void*>(params.q_latent.data);  // NOLINT
  split.k_ptr = params.cache.base;
  split.o_ptr = params.out.data;
  split.softmax_lse_ptr = params.log_sum_exp.as<float>();
  split.q_batch_stride = int64_t{heads} * kRowWidth;
  split.k_batch_stride = kBlockTokens * kRowWidth;
  split.o_batch_stride = int64_t{heads} * kValueWidth;
  split.q_row_stride = kRowWidth;
  split.k_row_stride = kRowWidth;
  split.o_row_stride = kValueWidth;
  split.q_head_stride = kRowWidth;
  split.k_head_stride = kRowWidth;
  split.o_head_stride = int64_t{heads} * kValueWidth;
  split.block_table = const_cast<int*>(params.block_tables.as<int32_t>());  // NOLINT
  split.block_table_batch_stride = params.block_tables.stride[0];
  split.page_block_size = static_cast<int>(kBlockTokens);
  split.seqlens_k_ptr = const_cast<int*>(params.lengths.as<int32_t>());  // NOLINT
  split.tile_scheduler_metadata_ptr = static_cast<DecodingSchedMeta*>(plan_.data());
  split.num_sm_parts = num_parts_;
  split.num_splits_ptr = static_cast<int*>(num_splits_.data());
  split.total_num_splits = num_parts_ + batch;
  split.softmax_lseaccum_ptr = static_cast<float*>(sums_.data());
  split.oaccum_ptr = static_cast<float*>(values_.data());
  split.stream = stream_of(bench_);
  sm90::run_flash_splitkv_mla_kernel<cutlass::bfloat16_t>(split);

  CombineParams combine = {};
  combine.b = batch;
  combine.s_q = 1;
  combine.h_q = heads;
  combine.d_v = kValueWidth;
  combine.lse = split.softmax_lse_ptr;
  combine.out = split.o_ptr;
  combine.stride_lse_b = heads;
  combine.stride_lse_s_q = heads;
  combine.stride_o_b = heads * kValueWidth;
  combine.stride_o_s_q = heads * kValueWidth;
  combine.stride_o_h_q = kValueWidth;
  combine.lse_accum = split.softmax_lseaccum_ptr;
  combine.o_accum = split.oaccum_ptr;
  combine.stride_lse_accum_split = heads;
  combine.stride_lse_accum_s_q = heads;
  combine.stride_o_accum_split = heads * kValueWidth;
  combine.stride_o_accum_s_q = heads * kValueWidth;
  combine.stride_o_accum_h_q = kValueWidth;
  combine.tile_scheduler_metadata_ptr = split.tile_scheduler_metadata_ptr;
  combine.num_splits_ptr = split.num_splits_ptr;
  combine.num_sm_parts = num_parts_;
  combine.stream = split.stream;
  smxx::decode::run_flash_mla_combine_kernel<cutlass::bfloat16_t>(combine);
}

}  // namespace

bool has_flash_mla() {
  return true;
}

std::unique_ptr<DecodeBaseline> create_flash_mla(GpuBench& bench, const MlaDecodeParams& params) {
  return std::make_unique<FlashMla>(bench, params);
}

}  // namespace tessera::bench
