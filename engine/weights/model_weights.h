// Every tensor of a model as the engine multiplies it: packed products and small float32 vectors.
// Letters: D hidden, V vocabulary, H heads, R kv_lora_rank, Rq q_lora_rank, dn/dr/dv head
// dimensions (nope, rope, value), I intermediate, E routed experts. With several ranks these are
// one rank's part of each (`plan`; README.md has the shapes). Immutable after load.
#pragma once

#include <memory>
#include <vector>

#include "engine/weights/shard_plan.h"
#include "kernels/ops/ops.h"

namespace tessera {

/// A device buffer with its shape.
struct WeightTensor {
  kernels::DeviceBuffer buffer;
  kernels::TensorView view;  ///< of `buffer`
};

using LinearWeightPtr = std::unique_ptr<kernels::LinearWeight>;

struct AttentionWeights {
  /// Everything that reads the normalised hidden state in one product, rows stacked:
  /// [Rq | R | dr, D] (q_a_proj, kv_a_proj_with_mqa), or [H (dn + dr) | R | dr, D] without q_lora.
  LinearWeightPtr input;
  WeightTensor input_bias;  ///< stacked likewise; empty unless attention_bias
  WeightTensor q_norm;      ///< [Rq] float32, empty without q_lora
  LinearWeightPtr q_up;     ///< q_b_proj [H (dn + dr), Rq], null without q_lora
  WeightTensor kv_norm;     ///< [R] float32
  /// [R, R] float32 in every dtype: what the normalised latent is multiplied by before it is cached
  /// (the transposed basis). Null where the basis is folded into `input`.
  LinearWeightPtr latent_basis;
  /// kv_b_proj [H (dn + dv), R]: per head k_nope, then v (prefill). Null without that form.
  LinearWeightPtr kv_up;
  LinearWeightPtr key_absorb;  ///< H groups [R, dn]: W_UK transposed, q_nope to q_latent (decode)
  /// H groups [R, dn]: the exact keys of an exact window's tokens, whole also where `key_absorb` is
  /// a slice's. Null where the layer is not sliced or there is no window.
  LinearWeightPtr window_key_absorb;
  LinearWeightPtr value_up;  ///< H groups [dv, R]: W_UV, latent to value (decode)
  LinearWeightPtr output;    ///< o_proj [D, H dv]
  WeightTensor output_bias;  ///< [D] float32, empty unless attention_bias
};

struct MlpWeights {
  LinearWeightPtr gate_up;  ///< [2 I, D]: gate_proj rows, then up_proj rows
  LinearWeightPtr down;     ///< [D, I]
};

struct MoeWeights {
  LinearWeightPtr gate;     ///< [E, D], float32 in every dtype
  WeightTensor gate_bias;   ///< e_score_correction_bias [E] float32, empty unless noaux_tc
  LinearWeightPtr gate_up;  ///< E groups [2 I, D]
  LinearWeightPtr down;     ///< E groups [D, I]
  MlpWeights shared;        ///< n_shared_experts merged to one MLP; null products without them
};

struct LayerWeights {
  WeightTensor input_norm;  ///< [D] float32
  AttentionWeights attention;
  WeightTensor post_attention_norm;  ///< [D] float32
  MlpWeights mlp;                    ///< dense layers
  MoeWeights moe;                    ///< MoE layers
};

struct ModelWeights {
  ShardPlan plan;                                   ///< which part of the model this is
  kernels::DType dtype = kernels::DType::kFloat32;  ///< of products and activations
  WeightTensor embedding;                           ///< [V, D], dtype
  std::vector<LayerWeights> layers;
  WeightTensor final_norm;  ///< [D] float32
  LinearWeightPtr head;     ///< lm_head [V, D]; packed from the embedding when tied
  int64_t num_parameters = 0;
  int64_t num_bytes = 0;  ///< device bytes, both forms of kv_b included
};

}  // namespace tessera
