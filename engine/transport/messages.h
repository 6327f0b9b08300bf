// The messages between the two ends of one data link (one sender, one rank), and their bytes.
// Both ends are little-endian machines; what comes in is checked for its size only, the values are
// the business of who uses them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request/handoff_key.h"

namespace tessera {

/// The key of the self-test's parcels: no router makes it.
inline constexpr HandoffKey kSelfTestKey{};

/// "This parcel is in your slot." Repeated until answered.
struct Ready {
  HandoffKey key;
  int32_t block_index = 0;
  int32_t slot = 0;
  uint64_t generation = 0;  ///< of the slot: increases with every put into it, begins at 1
  int64_t num_bytes = 0;
  uint64_t checksum = 0;
  friend bool operator==(const Ready&, const Ready&) = default;
};

enum class AckCode : uint8_t {
  kLanded,   ///< it is in the cache, or was already
  kDamaged,  ///< it must be put again
  kLater,    ///< nobody expects it yet; announce it again
  kDropped,  ///< nobody wants it any more
};

struct Ack {
  HandoffKey key;
  int32_t block_index = 0;
  int32_t slot = 0;
  uint64_t generation = 0;
  AckCode code = AckCode::kLanded;
  friend bool operator==(const Ack&, const Ack&) = default;
};

/// The sender's first message: where the answers go.
struct LinkHello {
  uint64_t connection = 0;
  std::string worker_address;
};

/// At most so many of them travel in one message.
inline constexpr size_t kMaxBatch = 32;

[[nodiscard]] std::string encode(std::span<const Ready> batch);
[[nodiscard]] std::string encode(std::span<const Ack> batch);
[[nodiscard]] std::string encode(const LinkHello& hello);
/// Empty when `bytes` are no such message (the length does not fit, a code is unknown).
[[nodiscard]] std::vector<Ready> decode_ready(std::string_view bytes);
[[nodiscard]] std::vector<Ack> decode_ack(std::string_view bytes);
[[nodiscard]] std::optional<LinkHello> decode_hello(std::string_view bytes);

}  // namespace tessera
