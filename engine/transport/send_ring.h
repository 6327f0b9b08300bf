// Where images of a GPU's cache are packed for one link: a mirror of the landing region, in the
// same GPU's memory. A put of a few dozen microseconds' overhead then carries a run of slots
// instead of one image, whose neighbour in the cache goes to another rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/transport/device_pool.h"
#include "engine/transport/slot_queue.h"
#include "kernels/core/image_mover.h"

namespace tessera {

/// The sender's thread only.
class SendRing final {
 public:
  /// Adjacent slots, put together.
  struct Run {
    const std::byte* source = nullptr;
    int64_t num_bytes = 0;
    int32_t first_slot = 0;
  };

  /// `pool` outlives it. Errors: UNAVAILABLE (no memory).
  [[nodiscard]] static Result<std::unique_ptr<SendRing>> create(DevicePool& pool,
                                                                int32_t num_slots,
                                                                int64_t slot_bytes);
  /// Waits for what is still packed. Copies that a link left behind may still read the memory: it
  /// goes back to the pool.
  ~SendRing();
  SendRing(const SendRing&) = delete;
  SendRing& operator=(const SendRing&) = delete;

  /// Starts copying the images into their slots. Does not wait; the sources are read until
  /// take_packed() has returned the puts. Errors: UNAVAILABLE (the device failed).
  [[nodiscard]] Status pack(std::span<const SlotQueue::Put> puts);
  /// The oldest puts whose images lie in the ring, with checksums, by slot; empty when there are
  /// none yet. Does not wait. Errors: UNAVAILABLE (the device failed).
  [[nodiscard]] Result<std::vector<SlotQueue::Put>> take_packed();
  [[nodiscard]] bool is_packing() const noexcept { return !packing_.empty(); }
  /// What to put for `puts` of one take_packed(). Between two images of a run lies what is left of
  /// the first one's slot.
  [[nodiscard]] std::vector<Run> runs(std::span<const SlotQueue::Put> puts) const;

 private:
  struct Packing {
    int64_t batch = 0;
    std::vector<SlotQueue::Put> puts;
  };

  SendRing(DevicePool& pool, int64_t slot_bytes, kernels::DeviceBuffer memory);
  [[nodiscard]] std::byte* slot(int32_t number) const noexcept;
  // These throw DeviceError.
  void begin(std::span<const SlotQueue::Put> puts);
  std::vector<SlotQueue::Put> finish_first();

  DevicePool& pool_;
  kernels::ImageMover& mover_;
  const int64_t slot_bytes_;
  kernels::DeviceBuffer memory_;
  std::deque<Packing> packing_;
};

}  // namespace tessera
