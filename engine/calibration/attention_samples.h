// What the attention of some layers works on, in some windows of text: inputs of the fit that looks
// at attention outputs. Bounded: whole latents, but a bounded number of queries and windows.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/calibration/linear_algebra.h"
#include "engine/calibration/statistics_collector.h"
#include "engine/config/model_config.h"
#include "engine/model/latent_observer.h"
#include "kernels/core/device.h"

namespace tessera {

/// Of one layer and one window of T tokens: Q of its queries, and all that they look at.
struct AttentionSample {
  FloatMatrix latents;             ///< [T, R] rows of n
  FloatMatrix rope;                ///< [T, dr]
  FloatMatrix queries;             ///< [Q, H (dn + dr)]
  std::vector<int64_t> positions;  ///< [Q] rising: query q sees tokens [0, positions[q]]
};

/// Bytes of a sample.
[[nodiscard]] int64_t sample_bytes(const ModelConfig& config, int64_t num_tokens) noexcept;

/// Rows of window `window` that are sampled: one at random of each of equally many stretches behind
/// the first sixteenth, whose contexts are unlike those of decoded tokens. A function of both.
[[nodiscard]] std::vector<int64_t> sampled_rows(int64_t num_tokens, int64_t window);

/// Keeps samples of the layers in [begin, end), each of one window a step.
class SampleCollector final : public LatentObserver {
 public:
  /// References outlive it.
  SampleCollector(kernels::Device& device,
                  const std::vector<ObservedLayer>& layers,
                  int64_t begin,
                  int64_t end);

  /// A step of one whole sequence. Waits for the device.
  void observe(const ObservedLatents& latents, kernels::StreamView stream) override;
  /// [end - begin][steps].
  [[nodiscard]] std::vector<std::vector<AttentionSample>> take() && { return std::move(samples_); }

 private:
  kernels::Device& device_;
  const std::vector<ObservedLayer>& layers_;
  int64_t begin_;
  std::vector<std::vector<AttentionSample>> samples_;
};

}  // namespace tessera
