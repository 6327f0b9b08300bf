// What a worker of a disaggregated server is told about the handoff. Plain data.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "engine/transport/transport_options.h"

namespace tessera {

struct HandoffSettings {
  std::string worker_name;  ///< in the peers' logs
  std::chrono::seconds lease{10};
  int32_t landing_slots = 32;
  bool allow_staged_handoff = false;
  TransportFaults faults;  ///< for tests
};

}  // namespace tessera
