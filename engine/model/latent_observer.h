// Sees what every layer's attention works on: how calibration gathers its statistics. Nothing in
// serving has one.
#pragma once

#include <cstdint>

#include "kernels/core/device.h"
#include "kernels/core/tensor_view.h"

namespace tessera {

/// One layer of one step; views of device memory, valid during the call once `stream` has got
/// there. Rows are the step's tokens.
struct ObservedLatents {
  int64_t layer = 0;
  kernels::ConstTensorView latent;  ///< [T, R] float32: normalised, times the norm's weight, before
                                    ///< any basis that is not folded into the down-projection
  kernels::ConstTensorView rope;    ///< [T, dr] float32, rotated
  /// [T, Hd, dn + dr], activation dtype, of the rank's decode heads; rope part rotated.
  kernels::ConstTensorView query;
};

class LatentObserver {
 public:
  LatentObserver() = default;
  virtual ~LatentObserver() = default;
  LatentObserver(const LatentObserver&) = delete;
  LatentObserver& operator=(const LatentObserver&) = delete;

  /// Called by rank 0's thread, layer by layer.
  virtual void observe(const ObservedLatents& latents, kernels::StreamView stream) = 0;
};

}  // namespace tessera
