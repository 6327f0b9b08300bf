#include "server/roles/worker_families.h"

#include <string>

#include "engine/cache/latent_layout.h"
#include "server/metrics/engine_families.h"
#include "server/metrics/handoff_families.h"
#include "server/metrics/vllm_families.h"

namespace tessera {
namespace {

metrics::FamilyList::Labels rank_label(size_t rank) {
  return {{"rank", std::to_string(rank)}};
}

void add_cache_shape(metrics::FamilyList& list, const ModelParts& model) {
  const MemoryPlan& memory = model.plan().memory;
  list.gauge("tessera_cache_bytes_per_token_replicated",
             "Latent cache of one token when a rank holds all of it",
             static_cast<double>(memory.whole_kv_bytes_per_token));
  list.begin_gauges("tessera_cache_bytes_per_token",
                    "Latent cache of one token on each rank, on average");
  for (size_t rank = 0; rank < static_cast<size_t>(memory.num_ranks); ++rank) {
    list.add(rank_label(rank), static_cast<double>(memory.kv_bytes_per_token_and_rank));
  }
}

void add_receivers(metrics::FamilyList& list, const DecodeParts& parts) {
  std::vector<ReceiverStatistics> all;
  for (const auto& receiver : parts.receivers()) {
    all.push_back(receiver->statistics());
  }
  const auto add = [&](auto value_of) {
    for (size_t rank = 0; rank < all.size(); ++rank) {
      list.add(rank_label(rank), static_cast<double>(value_of(all[rank])));
    }
  };
  list.begin_counters("tessera_handoff_landed_bytes_total",
                      "Bytes copied from landing slots into each rank's cache");
  add([](const ReceiverStatistics& rank) { return rank.landed_bytes; });
  list.begin_counters("tessera_handoff_landed_parcels_total", "Parcels copied in");
  add([](const ReceiverStatistics& rank) { return rank.landed_parcels; });
  list.begin_counters("tessera_handoff_refused_parcels_total",
                      "Parcels whose checksum or header did not match");
  add([](const ReceiverStatistics& rank) { return rank.refused_parcels; });
  list.begin_gauges("tessera_handoff_landing_regions", "Landing regions in use, one a link");
  add([](const ReceiverStatistics& rank) { return rank.open_regions; });
  list.begin_gauges("tessera_handoff_revoked_regions",
                    "Landing regions kept away from use: their peer may still write");
  add([](const ReceiverStatistics& rank) { return rank.revoked_regions; });
  list.begin_gauges("tessera_handoff_lane", "1 for the lane of the newest link of each rank");
  for (size_t rank = 0; rank < all.size(); ++rank) {
    auto labels = rank_label(rank);
    labels.emplace_back("lane", all[rank].lane);
    list.add(labels, 1.0);
  }
}

/// Of a PrefillEngine or a DecodeEngine.
template <typename WorkerEngine>
void add_common(metrics::FamilyList& list, const WorkerEngine& engine) {
  metrics::add_engine_families(list, engine.metrics());
  metrics::add_handoff_families(list, engine.handoff_metrics());
  metrics::add_vllm_engine_families(
      list, engine.metrics(), &engine.handoff_metrics(), kBlockTokens);
}

}  // namespace

void add_worker_families(metrics::FamilyList& list, PrefillParts& parts) {
  list.set_role("prefill");
  add_common(list, parts.engine());
  add_cache_shape(list, parts.model());
}

void add_worker_families(metrics::FamilyList& list, DecodeParts& parts) {
  list.set_role("decode");
  add_common(list, parts.engine());
  add_cache_shape(list, parts.model());
  add_receivers(list, parts);
}

int64_t handoff_bytes(PrefillParts& parts) {
  return parts.engine().handoff_metrics().sent_bytes.value();
}

int64_t handoff_bytes(DecodeParts& parts) {
  int64_t num_bytes = 0;
  for (const auto& receiver : parts.receivers()) {
    num_bytes += static_cast<int64_t>(receiver->statistics().landed_bytes);
  }
  return num_bytes;
}

}  // namespace tessera
