// Names one handoff: a request and which try of it. Made by the router only.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "engine/request/generation_request.h"

namespace tessera {

/// H of the handoff protocol (KVH/1). Of two keys with one request the higher attempt is valid.
struct HandoffKey {
  RequestId request;
  uint32_t attempt = 0;
  friend auto operator<=>(const HandoffKey&, const HandoffKey&) = default;
  /// "<request>/<attempt>", the form in every log line.
  [[nodiscard]] std::string to_string() const {
    return request.to_string() + "/" + std::to_string(attempt);
  }
};

struct HandoffKeyHash {
  size_t operator()(const HandoffKey& key) const noexcept {
    return RequestIdHash{}(key.request) ^ (key.attempt * size_t{0x9e3779b9});
  }
};

}  // namespace tessera
