// Metric families of what a worker's ranks hold and what has travelled, from the parts' own
// counters.
#pragma once

#include "engine/serving/decode_parts.h"
#include "engine/serving/prefill_parts.h"
#include "server/metrics/family_list.h"

namespace tessera {

void add_worker_families(metrics::FamilyList& list, PrefillParts& parts);
void add_worker_families(metrics::FamilyList& list, DecodeParts& parts);

/// Bytes that handoffs moved so far: sent by prefill, landed on all ranks of decode.
[[nodiscard]] int64_t handoff_bytes(PrefillParts& parts);
[[nodiscard]] int64_t handoff_bytes(DecodeParts& parts);

}  // namespace tessera
