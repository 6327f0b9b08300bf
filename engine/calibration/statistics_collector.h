// Adds what a running model's attention sees to LatentStatistics: every latent, and the attention
// of some queries of some windows, computed again from queries and latents. Called by the model's
// rank thread.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/calibration/latent_statistics.h"
#include "engine/calibration/observed_step.h"
#include "engine/config/model_config.h"
#include "engine/model/latent_observer.h"
#include "kernels/core/device.h"

namespace tessera {

/// Weights that the collector needs of each layer, float32.
struct ObservedLayer {
  std::vector<float> norm;        ///< [R]: weight of the latents' norm
  std::vector<FloatMatrix> keys;  ///< by head, [dn, R]: W_UK diag(norm)
};

class StatisticsCollector final : public LatentObserver {
 public:
  /// All references outlive it.
  StatisticsCollector(const ModelConfig& config,
                      kernels::Device& device,
                      const std::vector<ObservedLayer>& layers,
                      LatentStatistics& statistics);

  /// Whether the attention of the next step is looked at, which costs more than the latents.
  void set_attention_observed(bool is_observed) noexcept { is_attention_observed_ = is_observed; }

  /// A step of one whole sequence. Waits for the device.
  void observe(const ObservedLatents& latents, kernels::StreamView stream) override;

 private:
  void observe_attention(int64_t index, ObservedStep& step, const FloatMatrix& latents);

  const ModelConfig& config_;
  kernels::Device& device_;
  const std::vector<ObservedLayer>& layers_;
  LatentStatistics& statistics_;
  bool is_attention_observed_ = true;
};

/// Rows of a sequence of `num_tokens` whose attention is looked at: evenly spaced, behind the first
/// sixteenth, whose contexts are unlike those of decoded tokens.
[[nodiscard]] std::vector<int64_t> observed_rows(int64_t num_tokens);

}  // namespace tessera
