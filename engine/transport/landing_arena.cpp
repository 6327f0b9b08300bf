#include "engine/transport/landing_arena.h"

#include <utility>

#include "engine/base/text.h"
#include "engine/transport/device_guard.h"

namespace tessera {

Result<std::unique_ptr<LandingArena>> LandingArena::create(
    const std::shared_ptr<UcxContext>& context,
    kernels::ImageMover& mover,
    int64_t region_bytes,
    int32_t num_regions) {
  const int64_t num_bytes = region_bytes * num_regions;
  kernels::DeviceBuffer buffer;
  const Status status = guard_device([&] {
    mover.enter();
    buffer = mover.allocate(num_bytes);
  });
  if (!status.is_ok()) {
    return resource_exhausted(str_cat("the landing arena of ",
                                      num_regions,
                                      " regions needs ",
                                      num_bytes,
                                      " bytes: ",
                                      status.message()));
  }
  TESSERA_TRY(UcxMemory memory,
              UcxMemory::create(context, buffer.data(), num_bytes, mover.is_cuda()));
  TESSERA_TRY(std::string remote_key, memory.remote_key());
  std::unique_ptr<LandingArena> arena(
      new LandingArena(std::move(buffer), std::move(memory), std::move(remote_key)));
  auto* const base = static_cast<std::byte*>(arena->buffer_.data());
  for (int32_t region = num_regions; region > 0; --region) {
    arena->free_.push_back(base + (region - 1) * region_bytes);
  }
  return arena;
}

std::byte* LandingArena::take() {
  if (free_.empty()) {
    return nullptr;
  }
  std::byte* const region = free_.back();
  free_.pop_back();
  return region;
}

}  // namespace tessera
