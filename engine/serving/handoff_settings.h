// What a worker of a disaggregated server is told about the handoff. Plain data.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "engine/transport/transport_options.h"

namespace tessera {

/// Prefill workers that one decode group on GPUs can be linked with; each has its part of an arena
/// that is made at start. Host memory is taken link by link (ReceiverOptions::max_regions).
inline constexpr int32_t kGpuLandingRegions = 8;

struct HandoffSettings {
  std::string worker_name;  ///< in the peers' logs
  std::chrono::seconds lease{10};
  int32_t landing_slots = 32;
  bool allow_staged_handoff = false;
  TransportFaults faults;  ///< for tests
};

}  // namespace tessera
