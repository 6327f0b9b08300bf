// One step of a running model as calibration looks at it: host matrices of float32.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/calibration/linear_algebra.h"
#include "engine/model/latent_observer.h"
#include "kernels/core/device.h"

namespace tessera {

/// Downloads what an observer is shown. One thread.
class ObservedStep final {
 public:
  /// Both outlive it. Waits for the stream.
  ObservedStep(const ObservedLatents& step, kernels::Device& device, kernels::StreamView stream);

  /// n [T, R]: the latents without `norm`, the weight [R] of their norm. Columns whose weight is 0
  /// never reach a query: they count as 0.
  [[nodiscard]] FloatMatrix latents(const std::vector<float>& norm);
  [[nodiscard]] FloatMatrix rope();     ///< [T, dr]
  [[nodiscard]] FloatMatrix queries();  ///< [T, H (dn + dr)]

 private:
  /// `view` [rows, columns] or [rows, heads, columns].
  [[nodiscard]] FloatMatrix download(const kernels::ConstTensorView& view);

  const ObservedLatents& step_;
  kernels::Device& device_;
  std::vector<char> bytes_;
};

}  // namespace tessera
