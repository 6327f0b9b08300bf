// Puts the exact window of a landed prompt together on one rank: the whole latents of its tokens,
// from the images of all slices, into its ring of the window cache. One thread at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/cache/paged_latent_cache.h"
#include "engine/cache/window_cache.h"
#include "engine/config/model_config.h"
#include "engine/runner/step_runner.h"
#include "engine/weights/shard_plan.h"
#include "kernels/ops/backend.h"

namespace tessera {

class WindowFiller final {
 public:
  /// Allocates what the largest window needs. `config`, `plan` and both caches outlive this object;
  /// the paged one keeps one image, that of the plan's slice.
  WindowFiller(const ModelConfig& config,
               const ShardPlan& plan,
               const PagedLatentCache& images,
               const WindowCache& windows,
               kernels::Backend& backend);

  /// Waits until `landed` is no longer read. Throws DeviceError.
  void fill_blocking(const LandedWindow& landed);

 private:
  /// Consecutive tokens of the window inside one block.
  struct Run {
    int64_t window_block = 0;  ///< index of the block in window_blocks()
    int64_t offset = 0;        ///< of its first token in the block
    int64_t count = 0;
  };

  /// Where the columns of each image of a block belong: those of this slice, then of the next.
  [[nodiscard]] kernels::LatentColumns image_columns(int64_t layer, int64_t image) const;
  /// Finds the runs, and brings block ids [window blocks, slices] and slots [tokens] to the device.
  void upload(const LandedWindow& landed);
  void note_tokens(const LandedWindow& landed, int64_t begin, int64_t end);
  void fill_layer(int64_t layer);

  const ModelConfig& config_;
  const ShardPlan& plan_;
  const PagedLatentCache& images_;
  const WindowCache& windows_;
  kernels::Device& device_;
  kernels::Ops& ops_;
  std::vector<Run> runs_;
  std::vector<int64_t> blocks_;  // window_blocks() of the prompt
  std::vector<int32_t> host_ids_;
  std::vector<int64_t> host_slots_;
  kernels::DeviceBuffer ids_;
  kernels::DeviceBuffer slots_;
  kernels::DeviceBuffer latent_;       // [tokens, R], the window's dtype
  kernels::DeviceBuffer rope_;         // [tokens, dr], the window's dtype
  kernels::DeviceBuffer wide_latent_;  // [tokens, R] float32
  kernels::DeviceBuffer wide_rope_;    // [tokens, dr] float32
};

}  // namespace tessera
