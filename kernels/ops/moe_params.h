// Parameters of the mixture-of-experts operations.
// Sources: DeepSeek-V2 (arXiv 2405.04434) section 2.2, DeepSeek-V3 (arXiv 2412.19437)
// section 2.1.2.
#pragma once

#include <cstdint>

#include "kernels/core/tensor_view.h"

namespace tessera::kernels {

enum class MoeScoring : uint8_t { kSoftmax, kSigmoid };
enum class MoeTopk : uint8_t {
  kGreedy,              ///< the k best scores
  kGroupLimitedGreedy,  ///< V2: groups ranked by their best score, then the k best of those kept
  kNoauxTc,             ///< V3: score + bias chooses; groups ranked by the sum of their two best
};

/// Chooses top_k experts per token and their weights.
struct MoeGateParams {
  ConstTensorView logits;  ///< [T, E] float32
  ConstTensorView
      bias;  ///< [E] float32 e_score_correction_bias (kNoauxTc), used for the choice only
  MoeScoring scoring = MoeScoring::kSoftmax;
  MoeTopk topk = MoeTopk::kGreedy;
  int64_t num_groups = 1;       ///< n_group
  int64_t num_kept_groups = 1;  ///< topk_group
  bool normalize = false;       ///< norm_topk_prob
  float scale = 1.0F;           ///< routed_scaling_factor
  TensorView expert_ids;        ///< [T, k] int32
  TensorView expert_weights;    ///< [T, k] float32
};

/// Sorts the T * k (token, choice) pairs by expert and copies the tokens' rows in that order.
struct MoePermuteParams {
  ConstTensorView x;           ///< [T, D]
  ConstTensorView expert_ids;  ///< [T, k] int32
  TensorView permuted;         ///< [T * k, D], x's dtype
  TensorView offsets;          ///< [E + 1] int32: rows of expert e are [offsets[e], offsets[e + 1])
  TensorView row_of_pair;      ///< [T, k] int32: where pair (t, j) went
};

/// out[t] (+)= sum_j weights[t, j] * expert_out[row_of_pair[t, j]], over the pairs whose row lies
/// in [offsets[0], offsets[G]): those of the G experts that were computed here.
struct MoeCombineParams {
  ConstTensorView expert_out;      ///< [T * k, D] float32
  ConstTensorView row_of_pair;     ///< [T, k] int32
  ConstTensorView expert_weights;  ///< [T, k] float32
  ConstTensorView offsets = {};    ///< [G + 1] int32, a window of moe_permute's; empty: all pairs
  bool accumulate = false;         ///< add to `out` (which holds the shared experts' result)
  TensorView out;                  ///< [T, D] float32
};

}  // namespace tessera::kernels
