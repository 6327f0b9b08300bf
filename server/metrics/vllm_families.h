// The same values under vLLM's names and labels, for dashboards and schedulers that know those.
// Families that hold nothing of ours are left out. What clients see (latencies, ends, sizes) is
// told by whoever faces them, a router or a combined engine; what an engine does by each engine: no
// sum over the processes of a cluster counts anything twice. Nothing is added to a list that does
// not ask for these names.
#pragma once

#include "engine/handoff/handoff_metrics.h"
#include "engine/serving/engine_metrics.h"
#include "server/metrics/family_list.h"
#include "server/router/router_metrics.h"

namespace tessera::metrics {

/// As clients see them.
void add_vllm_request_families(FamilyList& list, const EngineMetrics& engine);
void add_vllm_request_families(FamilyList& list, const router::RouterMetrics& router);

/// `handoff` is null for a combined engine.
void add_vllm_engine_families(FamilyList& list,
                              const EngineMetrics& engine,
                              const HandoffMetrics* handoff,
                              int64_t block_tokens);

}  // namespace tessera::metrics
