// Memory of a device for links that come and go. Freeing it would wait for everything that the
// device does, also for others, and copies that a link left behind may still read it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/base/result.h"
#include "kernels/core/image_mover.h"

namespace tessera {

/// One thread.
class DevicePool final {
 public:
  /// `mover` outlives it and what it lends.
  explicit DevicePool(kernels::ImageMover& mover) : mover_(mover) {}

  /// At least so much; memory that came back where it is not twice as large. Errors: UNAVAILABLE
  /// (no memory).
  [[nodiscard]] Result<kernels::DeviceBuffer> take(int64_t num_bytes);
  /// Nothing of ours reads or writes it any more.
  void give_back(kernels::DeviceBuffer buffer) { free_.push_back(std::move(buffer)); }
  [[nodiscard]] kernels::ImageMover& mover() const noexcept { return mover_; }

 private:
  kernels::ImageMover& mover_;
  std::vector<kernels::DeviceBuffer> free_;
};

}  // namespace tessera
