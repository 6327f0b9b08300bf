// The families of the handoff, on prefill and decode workers alike.
#pragma once

#include "engine/handoff/handoff_metrics.h"
#include "server/metrics/family_list.h"

namespace tessera::metrics {

void add_handoff_families(FamilyList& list, const HandoffMetrics& handoff);

}  // namespace tessera::metrics
