// Adds what a running model's attention sees to LatentStatistics. Called by the model's rank
// thread.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/calibration/latent_statistics.h"
#include "engine/config/model_config.h"
#include "engine/model/latent_observer.h"

namespace tessera {

class StatisticsCollector final : public LatentObserver {
 public:
  /// `norms`: the weight of the latents' norm of each layer [R], which the collector divides by; a
  /// column whose weight is 0 never reaches a query and counts as 0. All references outlive it.
  StatisticsCollector(const ModelConfig& config,
                      kernels::Device& device,
                      const std::vector<std::vector<float>>& norms,
                      LatentStatistics& statistics);

  /// Waits for the device.
  void observe(const ObservedLatents& latents, kernels::StreamView stream) override;

 private:
  /// [rows, columns] of float32 in rows that follow one another: `view` on the host.
  void download(const kernels::ConstTensorView& view, std::vector<float>& rows);

  const ModelConfig& config_;
  kernels::Device& device_;
  const std::vector<std::vector<float>>& norms_;
  LatentStatistics& statistics_;
  std::vector<char> bytes_;
  std::vector<float> latents_;  // [T, R]
  std::vector<float> queries_;  // [T, H dn]
};

}  // namespace tessera
