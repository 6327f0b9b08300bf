// One layer's MLA sublayer over a step's tokens: writes the latents of all of them, then attends,
// decode rows in absorbed form, prefill chunks in up-projected form. Both read the paged cache,
// except where it holds only part of a token's latent or of a sequence's tokens: there a chunk is a
// whole prompt and attends over the step's own latents.
// Source: DeepSeek-V2 (arXiv 2405.04434) section 2.1.
#pragma once

#include <cstdint>
#include <span>

#include "engine/cache/paged_latent_cache.h"
#include "engine/cache/window_cache.h"
#include "engine/config/model_config.h"
#include "engine/model/decode_attention.h"
#include "engine/model/model_input.h"
#include "engine/model/rank_context.h"
#include "engine/model/rope_table.h"
#include "engine/model/workspace.h"
#include "engine/weights/model_weights.h"
#include "kernels/ops/ops.h"

namespace tessera {

class LatentAttention final {
 public:
  /// What a layer's attention works on beside the step.
  struct Layer {
    const AttentionWeights& weights;
    std::span<const LatentImageView> images;  ///< of the cache
    const WindowCache* window = nullptr;      ///< null without an exact window
    int64_t index = 0;                        ///< of the layer
  };

  /// All references outlive this object. The workspace's input arrays hold the step's.
  LatentAttention(const ModelConfig& config,
                  const ShardPlan& plan,
                  const RankContext& ranks,
                  const RopeTable& rope,
                  Workspace& workspace);

  /// Reads workspace.normed [T, D]; writes workspace.delta [T, D], with several ranks this rank's
  /// part of the sum.
  void forward(const Layer& layer, const ModelInput& input, kernels::StreamView stream);

 private:
  /// Columns of workspace.attention_input.
  struct Projected {
    kernels::TensorView query;   ///< [T, Rq], or [T, Hd (dn + dr)] without q_lora
    kernels::TensorView latent;  ///< [T, R]; workspace.latent where the basis is not folded
    kernels::TensorView rope;    ///< [T, dr]
  };
  /// What of it layer `layer` uses, once project() is through.
  [[nodiscard]] Projected projected(const Layer& layer, int64_t num_tokens) const;
  /// Queries of the layer's decode heads [T, Hd, dn + dr], in workspace.q.
  [[nodiscard]] kernels::TensorView queries(const Layer& layer, int64_t num_tokens) const;
  /// Fills workspace.q (rope part rotated) and writes the tokens' latents, in the layer's basis, to
  /// the cache, whole ones to the exact window.
  void project(const Layer& layer, int64_t num_tokens, kernels::StreamView stream);
  /// The layer's window; null where it is not sliced or there is none.
  [[nodiscard]] const WindowCache* window_of(const Layer& layer) const;
  /// The expected probes of what decode ranks will receive, from the whole latents.
  void note_probes(const Layer& layer, const Projected& input, kernels::StreamView stream);
  void project_queries(const Layer& layer,
                       const kernels::TensorView& input,
                       kernels::StreamView stream);
  /// Norm of the latents, which are whole on every rank, then the basis.
  void normalise_latents(const Layer& layer,
                         const kernels::TensorView& latent,
                         kernels::StreamView stream);
  void prefill(const Layer& layer, const PrefillChunk& chunk, kernels::StreamView stream);
  /// Keys [begin, begin + count) of the chunk's sequence to workspace.context_latent and _rope.
  void load_context(const Layer& layer,
                    const PrefillChunk& chunk,
                    const IndexRange& keys,
                    kernels::StreamView stream);
  /// The same from rows of the step, rounded as a prefill worker's cache rounds them: of float8
  /// rows each slice for itself.
  void load_own(const Layer& layer,
                const Projected& own,
                const IndexRange& rows,
                kernels::StreamView stream);

  const ModelConfig& config_;
  const ShardPlan& plan_;
  const RopeTable& rope_;
  Workspace& workspace_;
  kernels::Ops& ops_;
  DecodeAttention decode_;
  LatentObserver* observer_;
  const float softmax_scale_;
};

}  // namespace tessera
