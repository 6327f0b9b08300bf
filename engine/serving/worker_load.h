// The load of an engine as routers see it.
#pragma once

#include "engine/handoff/worker_services.h"
#include "engine/serving/engine.h"

namespace tessera {

/// Any thread.
[[nodiscard]] WorkerLoad worker_load(const Engine& engine);

}  // namespace tessera
