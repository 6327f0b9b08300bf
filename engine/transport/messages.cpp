#include "engine/transport/messages.h"

#include <bit>
#include <cstring>

namespace tessera {
namespace {

static_assert(std::endian::native == std::endian::little);

// Fixed layouts without padding; the wire holds arrays of them.
struct WireKey {
  uint64_t request_high;
  uint64_t request_low;
  uint32_t attempt;
  int32_t block_index;
};
struct WireReady {
  WireKey key;
  uint64_t generation;
  int64_t num_bytes;
  uint64_t checksum;
  int32_t slot;
  uint32_t reserved;
};
struct WireAck {
  WireKey key;
  uint64_t generation;
  int32_t slot;
  uint32_t code;
};
static_assert(sizeof(WireReady) == 56 && sizeof(WireAck) == 40);

WireKey to_wire(const HandoffKey& key, int32_t block_index) {
  return {key.request.high, key.request.low, key.attempt, block_index};
}
HandoffKey from_wire(const WireKey& wire) {
  return {{wire.request_high, wire.request_low}, wire.attempt};
}

template <typename Wire>
void append(std::string& bytes, const Wire& wire) {
  bytes.append(reinterpret_cast<const char*>(&wire), sizeof(wire));
}

/// Calls `take(wire)` for each element; false when `bytes` are no such array.
template <typename Wire, typename Take>
bool for_each(std::string_view bytes, const Take& take) {
  if (bytes.size() % sizeof(Wire) != 0 || bytes.size() > kMaxBatch * sizeof(Wire)) {
    return false;
  }
  for (size_t offset = 0; offset < bytes.size(); offset += sizeof(Wire)) {
    Wire wire;
    std::memcpy(&wire, bytes.data() + offset, sizeof(wire));
    if (!take(wire)) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::string encode(std::span<const Ready> batch) {
  std::string bytes;
  for (const Ready& ready : batch) {
    append(bytes,
           WireReady{to_wire(ready.key, ready.block_index),
                     ready.generation,
                     ready.num_bytes,
                     ready.checksum,
                     ready.slot,
                     0});
  }
  return bytes;
}

std::string encode(std::span<const Ack> batch) {
  std::string bytes;
  for (const Ack& ack : batch) {
    append(bytes,
           WireAck{to_wire(ack.key, ack.block_index),
                   ack.generation,
                   ack.slot,
                   static_cast<uint32_t>(ack.code)});
  }
  return bytes;
}

std::string encode(const LinkHello& hello) {
  std::string bytes;
  append(bytes, hello.connection);
  return bytes + hello.worker_address;
}

std::vector<Ready> decode_ready(std::string_view bytes) {
  std::vector<Ready> batch;
  const bool is_whole = for_each<WireReady>(bytes, [&batch](const WireReady& wire) {
    batch.push_back({from_wire(wire.key),
                     wire.key.block_index,
                     wire.slot,
                     wire.generation,
                     wire.num_bytes,
                     wire.checksum});
    return true;
  });
  return is_whole ? batch : std::vector<Ready>();
}

std::vector<Ack> decode_ack(std::string_view bytes) {
  std::vector<Ack> batch;
  const bool is_whole = for_each<WireAck>(bytes, [&batch](const WireAck& wire) {
    if (wire.code > static_cast<uint32_t>(AckCode::kDropped)) {
      return false;
    }
    batch.push_back({from_wire(wire.key),
                     wire.key.block_index,
                     wire.slot,
                     wire.generation,
                     static_cast<AckCode>(wire.code)});
    return true;
  });
  return is_whole ? batch : std::vector<Ack>();
}

std::optional<LinkHello> decode_hello(std::string_view bytes) {
  LinkHello hello;
  if (bytes.size() <= sizeof(hello.connection)) {
    return std::nullopt;
  }
  std::memcpy(&hello.connection, bytes.data(), sizeof(hello.connection));
  hello.worker_address = bytes.substr(sizeof(hello.connection));
  return hello;
}

}  // namespace tessera
