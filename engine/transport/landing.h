// What a prefill worker must know to write into one decode rank's landing region. Plain data that
// travels in the answer to Hello.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

/// The landing region of one rank for one link: `num_slots` slots of `slot_bytes` each, one block
/// image a slot. The prefill worker alone decides which slot it fills next; a slot is its own again
/// once the parcel in it was acknowledged. The region dies with the link.
struct LandingRegion {
  int32_t rank = 0;
  std::string worker_address;  ///< opaque to all but the transport
  uint64_t connection = 0;     ///< random; names (link, rank) in every message
  uint64_t base_address = 0;
  std::string remote_key;  ///< opaque to all but the transport
  int32_t num_slots = 0;
  int64_t slot_bytes = 0;
};

}  // namespace tessera
