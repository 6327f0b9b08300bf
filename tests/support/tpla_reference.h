// A whole MLA model in double precision whose decoded tokens attend as TPLA does: written from the
// formulas of the method and of DeepSeek-V2/V3, on the checkpoint's own tensors. Slow on purpose.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/config/model_config.h"
#include "engine/weights/checkpoint.h"
#include "tests/support/host_tensor.h"

namespace tessera::testing {

struct TplaReference {
  int64_t num_slices = 1;
  double logit_factor = 1.0;
  /// U [R, R] of each layer; empty: the identity.
  std::vector<Array> bases = {};
  /// Tokens before this one attend exactly, as a prefill does; the others by slices.
  int64_t num_prompt_tokens = 0;
};

/// Logits [T, V] of all tokens. Plain RoPE only; no FP8.
[[nodiscard]] Array tpla_reference_logits(const ModelConfig& config,
                                          const Checkpoint& checkpoint,
                                          const std::vector<int32_t>& ids,
                                          const TplaReference& options);

}  // namespace tessera::testing
