// The families of a router.
#pragma once

#include "server/metrics/family_list.h"
#include "server/router/router_metrics.h"

namespace tessera::metrics {

void add_router_families(FamilyList& list, const router::RouterMetrics& router);

}  // namespace tessera::metrics
