// What a worker tells about itself over WorkerService.GetInfo.
#pragma once

#include <cstdint>
#include <string>

#include "engine/handoff/worker_services.h"

namespace tessera::rpc {

enum class WorkerRole : uint8_t { kPrefill, kDecode };

struct WorkerIdentity {
  WorkerRole role = WorkerRole::kPrefill;
  WorkerInfo info;
  std::string version;  ///< of the program
};

}  // namespace tessera::rpc
