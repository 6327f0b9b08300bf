// What prefill and decode workers derive alike from their options.
#pragma once

#include "engine/handoff/handoff_options.h"
#include "engine/handoff/worker_services.h"
#include "engine/serving/handoff_settings.h"
#include "engine/serving/model_parts.h"

namespace tessera {

/// With a new random epoch.
[[nodiscard]] WorkerInfo make_worker_info(const WorkerConfig& worker, const ModelParts& model);

/// Keep-alives come often enough that one lost period does not end a lease.
[[nodiscard]] HandoffTimes handoff_times(const HandoffSettings& settings);

}  // namespace tessera
