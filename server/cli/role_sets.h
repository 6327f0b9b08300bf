// Which roles know an option, as bits of Role.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "server/cli/option_table.h"

namespace tessera::cli {

[[nodiscard]] constexpr uint8_t role_bits(std::initializer_list<Role> roles) {
  uint8_t all = 0;
  for (const Role role : roles) {
    all = static_cast<uint8_t>(all | static_cast<uint8_t>(role));
  }
  return all;
}
inline constexpr uint8_t kWorkers = role_bits({Role::kServe, Role::kPrefill, Role::kDecode});
inline constexpr uint8_t kFronts = role_bits({Role::kServe, Role::kRouter});
inline constexpr uint8_t kRouters = role_bits({Role::kRouter});
inline constexpr uint8_t kDecoders = role_bits({Role::kServe, Role::kDecode});
// Whoever runs a model.
inline constexpr uint8_t kRunners = kWorkers | role_bits({Role::kEval, Role::kCalibrate});
/// Those that are other processes to each other.
inline constexpr uint8_t kCluster = role_bits({Role::kRouter, Role::kPrefill, Role::kDecode});

}  // namespace tessera::cli
