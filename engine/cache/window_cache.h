// The whole latents of the exact window's tokens, beside the paged cache of one rank of a sliced
// group: for every sequence that may run a ring of rows (kernels/ops/latent_window.h), in each
// layer that is sliced. Allocated once at start-up.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/cache/latent_layout.h"
#include "kernels/core/device.h"
#include "kernels/ops/attention_params.h"

namespace tessera {

/// What a window cache is made for.
struct WindowCacheSetup {
  kernels::WindowRing ring;
  int64_t num_rings = 0;  ///< sequences side by side
};

/// Blocks of a prompt that hold tokens of its window: those whose whole latents a handoff brings,
/// in ascending order. A decode rank gets the image of its own slice of them like every block's,
/// and the images of all other slices besides.
[[nodiscard]] std::vector<int64_t> window_blocks(const kernels::LatentWindow& window,
                                                 int64_t num_tokens);

class WindowCache final {
 public:
  /// `layout` is the whole model's, in the type of the activations; layers of which `is_sliced` is
  /// false have no rows. `device` outlives the cache. The memory is not initialised. Errors:
  /// RESOURCE_EXHAUSTED, INVALID_ARGUMENT (an empty window, no rings).
  [[nodiscard]] static Result<WindowCache> create(kernels::Device& device,
                                                  const LatentLayout& layout,
                                                  const std::vector<bool>& is_sliced,
                                                  const WindowCacheSetup& setup);
  /// Bytes of one ring over all layers: what a sequence takes beside its blocks.
  [[nodiscard]] static int64_t ring_bytes(const LatentLayout& layout,
                                          const std::vector<bool>& is_sliced,
                                          const kernels::WindowRing& ring);

  [[nodiscard]] int64_t num_layers() const noexcept {
    return static_cast<int64_t>(row_bytes_.size());
  }
  /// 0 where the layer is not sliced.
  [[nodiscard]] int64_t row_bytes(int64_t layer) const noexcept {
    return row_bytes_[static_cast<size_t>(layer)];
  }
  /// Rows of all columns; no blocks where the layer is not sliced.
  [[nodiscard]] kernels::LatentCacheView layer_view(int64_t layer) const;
  [[nodiscard]] kernels::DType dtype() const noexcept { return layout_.dtype; }
  [[nodiscard]] const kernels::WindowRing& ring() const noexcept { return setup_.ring; }
  [[nodiscard]] int64_t num_rings() const noexcept { return setup_.num_rings; }
  /// Slot of the first row of ring `ring`; the row of position p is ring().row(p) behind it.
  [[nodiscard]] int64_t first_slot(int64_t ring) const noexcept {
    return ring * setup_.ring.rows_per_sequence();
  }
  /// Copies all layers of one ring over another (a forked sequence), in the order of `stream`.
  void copy_ring(int64_t source, int64_t destination, kernels::StreamView stream);
  [[nodiscard]] int64_t num_bytes() const noexcept { return memory_.num_bytes(); }

 private:
  WindowCache(kernels::Device& device,
              const LatentLayout& layout,
              const std::vector<bool>& is_sliced,
              const WindowCacheSetup& setup);

  kernels::Device* device_;
  WindowCacheSetup setup_;
  int64_t num_blocks_;                  // of each sliced layer
  std::vector<int64_t> row_bytes_;      // one per layer, 0 where it is not sliced
  std::vector<int64_t> layer_offsets_;  // one per layer, then the end
  LatentLayout layout_;
  kernels::DeviceBuffer memory_;
};

}  // namespace tessera
