// Builds ModelWeights from a checkpoint, or from random numbers, on one backend. Start-up only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/model_weights.h"
#include "engine/weights/tpla_transform.h"
#include "kernels/ops/backend.h"

namespace tessera {

/// In which of its two forms attention is to be computed: kv_b_proj is kept once for each.
enum class AttentionForms : uint8_t { kBoth, kPrefill, kDecode };

struct LoadOptions {
  kernels::DType dtype = kernels::DType::kFloat32;  ///< float32 or bfloat16
  /// Called for each tensor as it is read: stored bytes read so far and in total, its name.
  std::function<void(int64_t done, int64_t total, std::string_view tensor)> progress;
  std::optional<ShardPlan> plan = std::nullopt;  ///< one rank's part; none: the whole model
  /// Folded into the weights; null: latents as the checkpoint has them. Outlives the call.
  const TplaTransform* transform = nullptr;
  AttentionForms forms = AttentionForms::kBoth;
};

/// Reads, dequantises and packs every tensor that `config` asks for; host memory beside the
/// mapping: one group's staging. Errors: INVALID_ARGUMENT with every fault of the config, or every
/// missing, unexpected or misshapen tensor, or every FP8 tensor with NaN codes or scales that are
/// not finite; RESOURCE_EXHAUSTED when the device or the host runs out of memory.
[[nodiscard]] Result<ModelWeights> load_model_weights(const ModelConfig& config,
                                                      const Checkpoint& checkpoint,
                                                      kernels::Backend& backend,
                                                      const LoadOptions& options);

/// The same without a checkpoint: values are random, a function of `seed` and the tensor's name.
[[nodiscard]] Result<ModelWeights> make_dummy_weights(const ModelConfig& config,
                                                      kernels::Backend& backend,
                                                      const LoadOptions& options,
                                                      uint64_t seed);

}  // namespace tessera
