// StepRunner of one rank: model, cache and sampling on one backend. One thread at a time.
#pragma once

#include <vector>

#include "engine/cache/paged_latent_cache.h"
#include "engine/cache/window_cache.h"
#include "engine/model/causal_lm.h"
#include "engine/runner/decode_graphs.h"
#include "engine/runner/sampling_buffers.h"
#include "engine/runner/step_runner.h"
#include "kernels/ops/backend.h"

namespace tessera {

class ModelRunner final : public StepRunner {
 public:
  /// What its steps read and write; a window cache only with an exact window.
  struct Caches {
    Caches(PagedLatentCache& own) : paged(&own) {}  // NOLINT(google-explicit-constructor)
    Caches(PagedLatentCache& own, const WindowCache* whole) : paged(&own), window(whole) {}

    PagedLatentCache* paged;
    const WindowCache* window = nullptr;
  };

  /// `config`, `weights`, and what `caches` and `ranks` point to outlive the runner.
  ModelRunner(const ModelConfig& config,
              const ModelWeights& weights,
              const StepLimits& limits,
              const Caches& caches,
              const RankContext& ranks);

  void run_blocking(const ModelInput& input,
                    const SamplingInput& sampling,
                    StepOutput& output) override;
  void copy_block(int32_t source, int32_t destination) override;
  /// The forward pass alone: logits [logits_rows, V] of rank 0, on the device, valid until the next
  /// step. Waits for it.
  [[nodiscard]] kernels::TensorView forward_blocking(const ModelInput& input);
  [[nodiscard]] int64_t workspace_bytes() const noexcept { return model_.workspace().num_bytes(); }

 private:
  [[nodiscard]] kernels::TensorView forward(const ModelInput& input);
  void sample(const kernels::TensorView& logits, const SamplingInput& sampling, StepOutput& output);

  kernels::Device& device_;
  kernels::Ops& ops_;
  PagedLatentCache& cache_;
  const WindowCache* const window_cache_;
  CausalLm model_;
  const std::vector<LatentImageView> cache_views_;
  DecodeGraphs graphs_;  // of model_, on cache_views_
  SamplingBuffers buffers_;
};

}  // namespace tessera
