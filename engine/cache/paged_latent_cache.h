// The device memory of all cache blocks of one rank. Allocated once at start-up. A block is one or
// more images back to back, one a shard: what a decode rank holds is one image; a prefill worker
// that feeds g slices keeps g, each as the rank of that slice wants it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/cache/latent_layout.h"
#include "kernels/core/device.h"
#include "kernels/ops/attention_params.h"

namespace tessera {

/// One layer of one image: which of the latent's columns its rows hold.
struct LatentImageView {
  kernels::LatentCacheView cache;
  LatentColumns columns;
  /// Device memory of the expected probes: of slot s at s * probe_stride. Null: none are kept.
  double* probes = nullptr;
  int64_t probe_stride = 0;
};

class PagedLatentCache final {
 public:
  /// One image a shard; the shards have the same number of layers and together every column that
  /// attention over this cache needs. `device` outlives the cache. The memory is not initialised.
  /// Errors: RESOURCE_EXHAUSTED, INVALID_ARGUMENT (no blocks, too many).
  [[nodiscard]] static Result<PagedLatentCache> create(kernels::Device& device,
                                                       std::vector<LatentShard> images,
                                                       int64_t num_blocks);
  [[nodiscard]] static Result<PagedLatentCache> create(kernels::Device& device,
                                                       LatentShard shard,
                                                       int64_t num_blocks);

  /// From now on views() has room for one probe a slot and image (kernels/ops/probe_params.h),
  /// which a prefill worker fills beside the rows. Before the first step. Errors:
  /// RESOURCE_EXHAUSTED.
  [[nodiscard]] Status keep_probes();
  /// By image: the probe over tokens [begin, end) of a sequence with these blocks; empty where none
  /// are kept. Waits for the device: between steps.
  [[nodiscard]] std::vector<double> probes_blocking(std::span<const int32_t> block_ids,
                                                    int64_t begin,
                                                    int64_t end) const;

  [[nodiscard]] kernels::LatentCacheView layer_view(int64_t layer, int64_t image = 0) const;
  /// Of all layers and images: image i of layer l is element l * num_images() + i.
  [[nodiscard]] std::vector<LatentImageView> views() const;
  /// Copies all layers (and the probes) of block `source` over block `destination`, in the order of
  /// `stream`.
  void copy_block(int32_t source, int32_t destination, kernels::StreamView stream);

  [[nodiscard]] int64_t num_images() const noexcept { return static_cast<int64_t>(images_.size()); }
  [[nodiscard]] const LatentShard& shard(int64_t image = 0) const noexcept {
    return images_[static_cast<size_t>(image)];
  }
  /// Bytes of one image of one block, and where they lie: what a handoff sends or receives.
  [[nodiscard]] int64_t image_bytes(int64_t image) const noexcept {
    return shard(image).block_bytes();
  }
  [[nodiscard]] void* image_address(int64_t block, int64_t image) const;
  [[nodiscard]] int64_t block_bytes() const noexcept { return image_offsets_.back(); }
  [[nodiscard]] int64_t num_blocks() const noexcept { return num_blocks_; }
  [[nodiscard]] int64_t num_bytes() const noexcept { return memory_.num_bytes(); }

 private:
  PagedLatentCache(kernels::Device& device,
                   std::vector<LatentShard> images,
                   int64_t num_blocks,
                   kernels::DeviceBuffer memory);
  [[nodiscard]] char* address(int64_t block) const noexcept;
  [[nodiscard]] double* probe_address(int64_t block) const noexcept;

  kernels::Device* device_;
  std::vector<LatentShard> images_;
  std::vector<int64_t> image_offsets_;  // inside a block, one an image, then the end
  int64_t num_blocks_;
  kernels::DeviceBuffer memory_;  // [num_blocks, block_bytes]
  kernels::DeviceBuffer probes_;  // [num_blocks, kBlockTokens, images] double, or empty
};

}  // namespace tessera
