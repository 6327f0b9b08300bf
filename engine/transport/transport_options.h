// What is told to senders and receivers of the cache at start-up.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/base/result.h"

namespace tessera {

/// Faults made on purpose, for tests of the recovery from them. Counted from 1; 0: never.
struct TransportFaults {
  int64_t drop_ready = 0;  ///< the sender loses the n-th announcement of a parcel
  int64_t drop_ack = 0;    ///< the receiver loses the n-th answer
  int64_t flip = 0;        ///< one bit of the n-th landed image is wrong before it is checked
  friend bool operator==(const TransportFaults&, const TransportFaults&) = default;
};

/// Reads "drop_ready=3,drop_ack=1,flip=5"; an empty text is no fault. Errors: INVALID_ARGUMENT.
[[nodiscard]] Result<TransportFaults> parse_transport_faults(std::string_view text);

struct SenderOptions {
  std::chrono::milliseconds connect_timeout{5000};  ///< of the self-test too
  std::chrono::milliseconds leave_timeout{1000};    ///< for puts to end, before they are cut off
  std::chrono::milliseconds resend_period{200};     ///< of announcements that nobody answered
  int32_t max_puts = 3;                             ///< of one parcel, when it lands damaged
  int64_t self_test_bytes = int64_t{64} << 20U;     ///< at most the region, at least one slot
  int64_t min_self_test_mb_per_s = 0;               ///< of the slowest rank; 0: any
  int64_t max_ring_bytes = int64_t{192} << 20U;     ///< of one link's send ring in a GPU's memory
  bool allow_staged_handoff = false;                ///< device memory over a lane that stages it
  TransportFaults faults;
};

struct ReceiverOptions {
  int32_t num_slots = 16;             ///< of one region
  int32_t max_regions = 64;           ///< open at once
  int32_t max_revoked_regions = 256;  ///< kept away from use; costs address space
  TransportFaults faults;
};

/// Slots begin where copies are fastest.
inline constexpr int64_t kSlotAlignment = 64;

/// Of an image of so many bytes.
[[nodiscard]] constexpr int64_t landing_slot_bytes(int64_t image_bytes) noexcept {
  return (image_bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
}

/// Where a receiver puts what has landed: the image of block b begins at base + b * stride_bytes.
struct CacheBlocks {
  std::byte* base = nullptr;
  int64_t stride_bytes = 0;
  int64_t image_bytes = 0;
  int64_t num_blocks = 0;
};

}  // namespace tessera
