// The landing regions of one rank in its GPU's memory: one allocation and one registration for the
// life of the process, of which each link gets an equal part. A peer on the same host writes
// through a mapping of its own, which nobody can take back: a part whose peer did not say goodbye
// is never given to another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/transport/ucx_context.h"
#include "kernels/core/image_mover.h"

namespace tessera {

/// One thread at a time.
class LandingArena final {
 public:
  /// `mover` outlives it. Errors: RESOURCE_EXHAUSTED (no memory), those of UcxMemory::create().
  [[nodiscard]] static Result<std::unique_ptr<LandingArena>> create(
      const std::shared_ptr<UcxContext>& context,
      kernels::ImageMover& mover,
      int64_t region_bytes,
      int32_t num_regions);

  /// Null when none is left.
  [[nodiscard]] std::byte* take();
  void give_back(std::byte* region) { free_.push_back(region); }
  /// Of every region.
  [[nodiscard]] const std::string& remote_key() const noexcept { return remote_key_; }

 private:
  LandingArena(kernels::DeviceBuffer buffer, UcxMemory memory, std::string remote_key)
      : buffer_(std::move(buffer)),
        memory_(std::move(memory)),
        remote_key_(std::move(remote_key)) {}

  kernels::DeviceBuffer buffer_;
  UcxMemory memory_;  // unmapped before the buffer is freed
  std::string remote_key_;
  std::vector<std::byte*> free_;
};

}  // namespace tessera
