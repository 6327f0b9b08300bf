// Ops on a GPU. Each member is implemented in the source file of its family: linear.cpp,
// grouped_linear.cu, rowwise.cu, latent_cache.cu, probes.cu, mla_prefill.cu, mla_decode.cu, moe.cu,
// sampling.cu.
#pragma once

#include <memory>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/float8_dense.h"
#include "kernels/ops/ops.h"

namespace tessera::kernels::cuda {

class CudaOps final : public Ops {
 public:
  /// `device` outlives it.
  explicit CudaOps(CudaDevice& device);
  ~CudaOps() override;
  CudaOps(const CudaOps&) = delete;
  CudaOps& operator=(const CudaOps&) = delete;
  [[nodiscard]] bool multiplies_float8() const noexcept override { return true; }
  /// Whether many rows are multiplied in float8 themselves: see float8_dense.h.
  [[nodiscard]] bool multiplies_rows_in_float8() { return float8_dense_.is_usable_blocking(); }

 private:
  /// Scratch of any one operation: partial results of split attention, logits of sampled rows.
  static constexpr int64_t kScratchBytes = int64_t{96} << 20;

  std::unique_ptr<LinearWeight> do_make_linear_weight(const LinearShape& shape) override;
  void do_fill_linear_weight(LinearWeight& weight,
                             int64_t group,
                             std::span<const RandomRows> parts) override;
  void do_load_linear_weight(LinearWeight& weight,
                             int64_t group,
                             const ConstTensorView& matrix) override;
  void do_load_float8_weight(LinearWeight& weight,
                             int64_t group,
                             const Float8Matrix& matrix) override;
  void do_embedding(const EmbeddingParams& params, StreamView stream) override;
  void do_rms_norm(const RmsNormParams& params, StreamView stream) override;
  void do_rope(const RopeParams& params, StreamView stream) override;
  void do_silu_mul(const SiluMulParams& params, StreamView stream) override;
  void do_cast(const CastParams& params, StreamView stream) override;
  void do_gather_rows(const GatherRowsParams& params, StreamView stream) override;
  void do_linear(const LinearParams& params, StreamView stream) override;
  void do_batched_linear(const BatchedLinearParams& params, StreamView stream) override;
  void do_grouped_linear(const GroupedLinearParams& params, StreamView stream) override;
  void do_latent_write(const LatentWriteParams& params, StreamView stream) override;
  void do_latent_gather(const LatentGatherParams& params, StreamView stream) override;
  void do_latent_probe(const LatentProbeParams& params, StreamView stream) override;
  void do_cache_probe(const CacheProbeParams& params, StreamView stream) override;
  void do_mla_prefill(const MlaPrefillParams& params, StreamView stream) override;
  void do_mla_decode(const MlaDecodeParams& params, StreamView stream) override;
  void do_merge_scale(const MergeScaleParams& params, StreamView stream) override;
  void do_moe_gate(const MoeGateParams& params, StreamView stream) override;
  void do_moe_permute(const MoePermuteParams& params, StreamView stream) override;
  void do_moe_combine(const MoeCombineParams& params, StreamView stream) override;
  void do_sample(const SampleParams& params, StreamView stream) override;

  CudaDevice& device_;
  Blas blas_;
  DeviceBuffer scratch_;
  DeviceBuffer decode_tickets_;  ///< zero between calls: attention/decode_sm90.h
  Float8Dense float8_dense_;     // uses all of them
};

}  // namespace tessera::kernels::cuda
