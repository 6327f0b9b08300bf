// The feed-forward sublayer: one dense SwiGLU MLP, or routed experts plus shared ones.
// Source: DeepSeek-V3 (arXiv 2412.19437) section 2.1.2.
#pragma once

#include <cstdint>

#include "engine/config/model_config.h"
#include "engine/model/workspace.h"
#include "engine/weights/model_weights.h"
#include "kernels/ops/ops.h"

namespace tessera {

class Mlp final {
 public:
  /// All references outlive this object.
  Mlp(const ModelConfig& config,
      const ShardPlan& plan,
      Workspace& workspace,
      kernels::Ops& ops) noexcept
      : config_(config), plan_(plan), workspace_(workspace), ops_(ops) {}

  /// Reads workspace.normed [T, D]; writes workspace.delta [T, D], with several ranks this rank's
  /// part of the sum.
  void forward_dense(const MlpWeights& weights, int64_t num_tokens, kernels::StreamView stream);
  void forward_experts(const MoeWeights& weights, int64_t num_tokens, kernels::StreamView stream);

 private:
  void choose_experts(const MoeWeights& weights, int64_t num_tokens, kernels::StreamView stream);

  const ModelConfig& config_;
  const ShardPlan& plan_;
  Workspace& workspace_;
  kernels::Ops& ops_;
};

}  // namespace tessera
