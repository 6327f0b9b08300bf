// The metric families of the front end.
#pragma once

#include "server/metrics/family_list.h"
#include "server/openai/frontend_metrics.h"

namespace tessera::openai {

void add_frontend_families(metrics::FamilyList& list, const FrontendMetrics& frontend);

}  // namespace tessera::openai
