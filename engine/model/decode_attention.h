// Absorbed attention of a step's decode rows over what this rank caches, and the sum over the ranks
// that cache the rest. README.md has the shapes of each mode.
// Sources: DeepSeek-V2 (arXiv 2405.04434) appendix C; TPLA (arXiv 2508.15881).
#pragma once

#include <cstdint>

#include "engine/cache/window_cache.h"
#include "engine/config/model_config.h"
#include "engine/model/rank_context.h"
#include "engine/model/workspace.h"
#include "engine/weights/model_weights.h"
#include "kernels/ops/ops.h"

namespace tessera {

class DecodeAttention final {
 public:
  /// What one layer's decode rows work on.
  struct Layer {
    const AttentionWeights& weights;
    const ShardPlan::Layer& part;
    const kernels::LatentCacheView& cache;
    /// Null where the layer is not sliced or there is no exact window.
    const WindowCache* window = nullptr;
    int64_t index = 0;  ///< of the layer
  };

  /// All references outlive this object. The workspace's input arrays hold the step's.
  DecodeAttention(const ModelConfig& config,
                  const ShardPlan& plan,
                  const RankContext& ranks,
                  Workspace& workspace);

  /// Reads rows [0, num_decode) of workspace.q (rotated); writes the own heads' rows of
  /// workspace.attention_output.
  void forward(const Layer& layer, int64_t num_decode, kernels::StreamView stream);

 private:
  /// Writes the weighted means of the layer's value columns, [num_decode, Hd, v], and their
  /// log-sum-exps; returns the former.
  [[nodiscard]] kernels::TensorView attend(const Layer& layer,
                                           int64_t num_decode,
                                           kernels::StreamView stream);
  /// The decode rows' queries over all columns, [num_decode, Hd, R], and what they meet.
  [[nodiscard]] kernels::DecodeWindow decode_window(const Layer& layer,
                                                    const kernels::TensorView& q_nope,
                                                    kernels::StreamView stream);
  [[nodiscard]] kernels::TensorView log_sum_exp(int64_t num_decode, int64_t num_heads) const;
  /// From the ranks' partial values to the own heads' sums.
  void merge(const kernels::TensorView& partial, kernels::StreamView stream);

  const ModelConfig& config_;
  const ShardPlan& plan_;
  Communicator* attention_group_;
  Workspace& workspace_;
  kernels::Ops& ops_;
  const float softmax_scale_;
};

}  // namespace tessera
