// The operations an MLA model is made of, behind one interface for every backend. Public members
// check shapes and dtypes once, for all backends, then call the private virtual of the same name.
// A wrong shape is a bug of the caller: TESSERA_CHECK. Work is ordered on the stream it is given.
#pragma once

#include <memory>
#include <span>

#include "kernels/core/device.h"
#include "kernels/ops/attention_params.h"
#include "kernels/ops/linear_params.h"
#include "kernels/ops/moe_params.h"
#include "kernels/ops/probe_params.h"
#include "kernels/ops/random_weight.h"
#include "kernels/ops/sampling_params.h"
#include "kernels/ops/transform_params.h"

namespace tessera::kernels {

class Ops {
 public:
  Ops() = default;
  virtual ~Ops() = default;
  Ops(const Ops&) = delete;
  Ops& operator=(const Ops&) = delete;

  /// Whether a weight may be held in float8 (LinearShape::scales).
  [[nodiscard]] virtual bool multiplies_float8() const noexcept { return false; }
  /// An empty weight; fill every group with load_linear_weight, or load_float8_weight where it has
  /// scales. Start-up only.
  [[nodiscard]] std::unique_ptr<LinearWeight> make_linear_weight(const LinearShape& shape);
  /// Converts and packs `matrix` [N, K] (host memory; float32, bfloat16 or float16; strides free)
  /// as group `group` of `weight`. Different groups may be loaded from different threads.
  void load_linear_weight(LinearWeight& weight, int64_t group, const ConstTensorView& matrix);
  /// Stores `matrix` as it is. Different groups may be loaded from different threads.
  void load_float8_weight(LinearWeight& weight, int64_t group, const Float8Matrix& matrix);
  /// The same with random rows, the parts' one after another; N in all. A
  /// weight with scales gets the nearest numbers that it can hold, all scales being equal.
  void fill_linear_weight(LinearWeight& weight, int64_t group, std::span<const RandomRows> parts);

  void embedding(const EmbeddingParams& params, StreamView stream);
  void rms_norm(const RmsNormParams& params, StreamView stream);
  void rope(const RopeParams& params, StreamView stream);
  void silu_mul(const SiluMulParams& params, StreamView stream);
  void cast(const CastParams& params, StreamView stream);
  void gather_rows(const GatherRowsParams& params, StreamView stream);
  void linear(const LinearParams& params, StreamView stream);
  void batched_linear(const BatchedLinearParams& params, StreamView stream);
  void grouped_linear(const GroupedLinearParams& params, StreamView stream);
  void latent_write(const LatentWriteParams& params, StreamView stream);
  void latent_gather(const LatentGatherParams& params, StreamView stream);
  void latent_probe(const LatentProbeParams& params, StreamView stream);
  void cache_probe(const CacheProbeParams& params, StreamView stream);
  void mla_prefill(const MlaPrefillParams& params, StreamView stream);
  void mla_decode(const MlaDecodeParams& params, StreamView stream);
  void merge_scale(const MergeScaleParams& params, StreamView stream);
  void moe_gate(const MoeGateParams& params, StreamView stream);
  void moe_permute(const MoePermuteParams& params, StreamView stream);
  void moe_combine(const MoeCombineParams& params, StreamView stream);
  void sample(const SampleParams& params, StreamView stream);

 private:
  void fill_float8(LinearWeight& weight, int64_t group, std::span<const RandomRows> parts);
  virtual std::unique_ptr<LinearWeight> do_make_linear_weight(const LinearShape& shape) = 0;
  virtual void do_load_linear_weight(LinearWeight& weight,
                                     int64_t group,
                                     const ConstTensorView& matrix) = 0;
  /// Of backends that multiply float8.
  virtual void do_load_float8_weight(LinearWeight& weight,
                                     int64_t group,
                                     const Float8Matrix& matrix);
  /// Unless a backend can do better: by do_load_linear_weight().
  virtual void do_fill_linear_weight(LinearWeight& weight,
                                     int64_t group,
                                     std::span<const RandomRows> parts);
  virtual void do_embedding(const EmbeddingParams& params, StreamView stream) = 0;
  virtual void do_rms_norm(const RmsNormParams& params, StreamView stream) = 0;
  virtual void do_rope(const RopeParams& params, StreamView stream) = 0;
  virtual void do_silu_mul(const SiluMulParams& params, StreamView stream) = 0;
  virtual void do_cast(const CastParams& params, StreamView stream) = 0;
  virtual void do_gather_rows(const GatherRowsParams& params, StreamView stream) = 0;
  virtual void do_linear(const LinearParams& params, StreamView stream) = 0;
  virtual void do_batched_linear(const BatchedLinearParams& params, StreamView stream) = 0;
  virtual void do_grouped_linear(const GroupedLinearParams& params, StreamView stream) = 0;
  virtual void do_latent_write(const LatentWriteParams& params, StreamView stream) = 0;
  virtual void do_latent_gather(const LatentGatherParams& params, StreamView stream) = 0;
  virtual void do_latent_probe(const LatentProbeParams& params, StreamView stream) = 0;
  virtual void do_cache_probe(const CacheProbeParams& params, StreamView stream) = 0;
  virtual void do_mla_prefill(const MlaPrefillParams& params, StreamView stream) = 0;
  virtual void do_mla_decode(const MlaDecodeParams& params, StreamView stream) = 0;
  virtual void do_merge_scale(const MergeScaleParams& params, StreamView stream) = 0;
  virtual void do_moe_gate(const MoeGateParams& params, StreamView stream) = 0;
  virtual void do_moe_permute(const MoePermuteParams& params, StreamView stream) = 0;
  virtual void do_moe_combine(const MoeCombineParams& params, StreamView stream) = 0;
  virtual void do_sample(const SampleParams& params, StreamView stream) = 0;
};

}  // namespace tessera::kernels
