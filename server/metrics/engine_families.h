// The families of one engine.
#pragma once

#include "engine/serving/engine_metrics.h"
#include "server/metrics/family_list.h"

namespace tessera::metrics {

void add_engine_families(FamilyList& list, const EngineMetrics& engine);

}  // namespace tessera::metrics
