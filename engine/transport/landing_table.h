// Decides what becomes of an announced parcel: checks it, copies it from its landing slot into its
// cache block, and remembers what has come. The same for every transport.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine/request/handoff_key.h"
#include "engine/transport/messages.h"
#include "engine/transport/transport_options.h"

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

/// Any thread. The mutex guards everything and is held while one image is copied: that is what
/// makes forget() and remove_region() final.
class LandingTable final {
 public:
  struct Answer {
    AckCode code = AckCode::kLanded;
    bool is_complete = false;  ///< with this parcel every expected block has come
    int64_t copied_bytes = 0;
  };

  explicit LandingTable(const CacheBlocks& blocks, TransportFaults faults = {});

  void add_region(uint64_t connection, const LandingSlots& slots);
  /// After this call nothing reads the region.
  void remove_region(uint64_t connection);
  /// See KvReceiver::expect(). True when nothing is to come.
  [[nodiscard]] bool expect(uint64_t connection,
                            const HandoffKey& key,
                            std::vector<int32_t> block_ids);
  /// See KvReceiver::forget().
  void forget(const HandoffKey& key);
  /// `ready` came on `connection` and is not trusted.
  [[nodiscard]] Answer land(uint64_t connection, const Ready& ready);
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

  Answer refuse();
  Answer land_in(Region& region, uint64_t connection, const Ready& ready);
  Answer land_expected(Region& region, Expectation& expectation, const Ready& ready);
  Answer check_self_test(const Region& region, const Ready& ready);
  void flip_if_due(std::byte* image);

  const CacheBlocks blocks_;
  const TransportFaults faults_;
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, Region> regions_;
  std::unordered_map<HandoffKey, Expectation, HandoffKeyHash> expectations_;
  std::unordered_map<HandoffKey, AckCode, HandoffKeyHash> forgotten_;
  std::deque<HandoffKey> forgotten_order_;
  LandingCounts counts_;
  int64_t num_images_ = 0;  ///< looked at, for faults
};

}  // namespace tessera
