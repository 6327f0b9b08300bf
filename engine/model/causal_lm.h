// The whole model: embedding, layers, final norm, head. One rank, one stream; with several ranks
// every one runs the same step at the same time, each with its part of the weights.
#pragma once

#include <span>

#include "engine/config/model_config.h"
#include "engine/model/latent_attention.h"
#include "engine/model/mlp.h"
#include "engine/model/model_input.h"
#include "engine/model/rank_context.h"
#include "engine/model/rope_table.h"
#include "engine/model/workspace.h"
#include "engine/weights/model_weights.h"
#include "kernels/ops/backend.h"

namespace tessera {

/// Where a step's latents go and come from.
struct StepCache {
  std::span<const LatentImageView> images;  ///< PagedLatentCache::views()
  const WindowCache* window = nullptr;      ///< null unless the weights' plan has a window
};

class CausalLm final {
 public:
  /// Allocates the workspace. `config`, `weights` and what `ranks` points to outlive the model;
  /// `ranks` has communicators unless `weights` are the whole model.
  CausalLm(const ModelConfig& config,
           const ModelWeights& weights,
           const StepLimits& limits,
           const RankContext& ranks);
  CausalLm(const CausalLm&) = delete;
  CausalLm& operator=(const CausalLm&) = delete;

  /// Runs one step: writes the tokens' latents into `cache` and returns the logits [logits_rows, V]
  /// float32 of the wanted rows, in the workspace, valid until the next call; no data on other
  /// ranks than 0. Work is queued on `stream`; `input`, the same on every
  /// rank, may change once this returns.
  [[nodiscard]] kernels::TensorView forward(const ModelInput& input,
                                            const StepCache& cache,
                                            kernels::StreamView stream);
  /// The two halves of forward(). upload() returns what of the step is this rank's, valid until
  /// the next call; compute() takes that and reads nothing of it but its sizes, so that it can be
  /// recorded once for all steps of these sizes.
  const ModelInput& upload(const ModelInput& input, kernels::StreamView stream);
  [[nodiscard]] kernels::TensorView compute(const ModelInput& input,
                                            const StepCache& cache,
                                            kernels::StreamView stream);
  [[nodiscard]] const Workspace& workspace() const noexcept { return workspace_; }

 private:
  [[nodiscard]] const ModelInput& local_input(const ModelInput& input);
  void layers(const ModelInput& input, const StepCache& cache, kernels::StreamView stream);
  /// Sums workspace.delta over the ranks.
  void add_up_delta(int64_t num_tokens, kernels::StreamView stream);
  [[nodiscard]] kernels::TensorView head(int64_t num_rows, kernels::StreamView stream);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  Communicator* world_;  // null with one rank
  kernels::Device& device_;
  kernels::Ops& ops_;
  Workspace workspace_;
  const int64_t table_capacity_;  // entries of the workspace's block tables
  RopeTable rope_;
  LatentAttention attention_;
  Mlp mlp_;
  ModelInput local_input_;  // dcp
};

}  // namespace tessera
