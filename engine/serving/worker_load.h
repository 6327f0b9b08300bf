// The load of an engine as routers see it.
#pragma once

#include "engine/handoff/worker_services.h"
#include "engine/serving/engine.h"

namespace tessera {

/// Any thread.
[[nodiscard]] WorkerLoad worker_load(const Engine& engine);
/// Adds what an engine does not know: `seconds` of each handoff, and `bytes` of all (null: not
/// counted here).
void add_handoffs(const Histogram& seconds, const Counter* bytes, WorkerLoad& load);

}  // namespace tessera
