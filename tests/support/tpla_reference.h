// A whole MLA model in double precision whose decoded tokens attend as TPLA does: written from the
// formulas of the method and of DeepSeek-V2/V3, on the checkpoint's own tensors. Slow on purpose.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/config/model_config.h"
#include "engine/weights/checkpoint.h"
#include "kernels/ops/latent_window.h"
#include "tests/support/host_tensor.h"

namespace tessera::testing {

struct TplaReference {
  struct Layer {
    /// A [R, R], any that has an inverse; empty: the identity. Its columns stand in the order
    /// shared, own of slice 0, own of slice 1, ...
    Array basis = {};
    int64_t num_shared = 0;
    double logit_factor = 1.0;  ///< of a slice's own columns
    /// [g, H, w, dn], replaces the slices' keys; of the w columns the shared ones stand
    /// first, then the slice's own. Empty: not fitted.
    Array keys = {};
  };
  int64_t num_slices = 1;
  std::vector<Layer> layers = {};  ///< one a layer
  /// Tokens before this one attend exactly, as a prefill does; the others by slices.
  int64_t num_prompt_tokens = 0;
  /// Tokens whose logits are exact in every slice; what a slice sums stays its own columns.
  kernels::LatentWindow window = {};
};

/// Logits [T, V] of all tokens. Plain RoPE only; no FP8.
[[nodiscard]] Array tpla_reference_logits(const ModelConfig& config,
                                          const Checkpoint& checkpoint,
                                          const std::vector<int32_t>& ids,
                                          const TplaReference& options);

}  // namespace tessera::testing
