// Decides what becomes of an announced parcel: checks it, copies it from its landing slot into its
// cache block, and remembers what has come. The same for every transport.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/request/handoff_key.h"
#include "engine/transport/messages.h"
#include "engine/transport/transport_options.h"
#include "kernels/core/image_mover.h"

namespace tessera {

/// The memory of one landing region.
struct LandingSlots {
  std::byte* base = nullptr;
  int32_t num_slots = 0;
  int64_t slot_bytes = 0;
};

struct LandingCounts {
  int64_t landed_bytes = 0;
  int64_t landed_parcels = 0;
  int64_t refused_parcels = 0;
};

/// Any thread. The mutex guards everything and is held while one image is copied, in a device's
/// memory one batch: that is what makes forget() and remove_region() final.
class LandingTable final {
 public:
  struct Answer {
    AckCode code = AckCode::kLanded;
    bool is_complete = false;  ///< with this parcel every expected block has come
    int64_t copied_bytes = 0;
  };

  /// `mover` outlives the table: the device in whose memory blocks and slots are; null: the host's.
  explicit LandingTable(const CacheBlocks& blocks,
                        TransportFaults faults = {},
                        kernels::ImageMover* mover = nullptr);

  void add_region(uint64_t connection, const LandingSlots& slots);
  /// After this call nothing reads the region.
  void remove_region(uint64_t connection);
  /// See KvReceiver::expect(). True when nothing is to come.
  [[nodiscard]] bool expect(uint64_t connection,
                            const HandoffKey& key,
                            std::vector<int32_t> block_ids);
  /// See KvReceiver::forget().
  void forget(const HandoffKey& key);
  /// `batch` came on `connection` and is not trusted. One answer each. Throws DeviceError.
  [[nodiscard]] std::vector<Answer> land(uint64_t connection, std::span<const Ready> batch);
  [[nodiscard]] Answer land(uint64_t connection, const Ready& ready) {
    return land(connection, std::span(&ready, 1)).front();
  }
  [[nodiscard]] LandingCounts counts() const;

 private:
  struct Slot {
    uint64_t generation = 0;  ///< the last that was answered for good
    AckCode code = AckCode::kLanded;
  };
  struct Region {
    LandingSlots memory;
    std::vector<Slot> slots;
  };
  struct Expectation {
    uint64_t connection = 0;
    std::vector<int32_t> block_ids;  ///< -1: not to come
    std::vector<bool> has_landed;
    int64_t num_missing = 0;
  };
  /// How many forgotten keys are remembered.
  static constexpr size_t kMaxForgotten = 4096;

  /// A parcel that is to be summed, and copied unless it is of the self-test.
  struct Landing {
    const Ready* ready = nullptr;
    size_t answer = 0;                   ///< its place among the answers
    Expectation* expectation = nullptr;  ///< null: of the self-test
    kernels::ImageMover::Image image = {};
  };

  void land_some(uint64_t connection, std::span<const Ready> batch, std::vector<Answer>& answers);
  [[nodiscard]] bool can_join(const Landing& landing, std::span<const Landing> landings) const;
  Answer look_at(Region& region, uint64_t connection, Landing& landing);
  Answer look_up(const Region& region, uint64_t connection, Landing& landing);
  std::vector<uint64_t> move(std::span<const Landing> landings);
  Answer finish(Region& region, const Landing& landing, uint64_t checksum);
  void flip_if_due(const void* image);
  Answer refuse();

  const CacheBlocks blocks_;
  const TransportFaults faults_;
  kernels::ImageMover* const mover_;
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, Region> regions_;
  std::unordered_map<HandoffKey, Expectation, HandoffKeyHash> expectations_;
  std::unordered_map<HandoffKey, AckCode, HandoffKeyHash> forgotten_;
  std::deque<HandoffKey> forgotten_order_;
  LandingCounts counts_;
  int64_t num_images_ = 0;  ///< looked at, for faults
};

}  // namespace tessera
