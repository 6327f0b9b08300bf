// The cluster as one JSON object: what the console and scripts poll.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/metrics.h"
#include "server/router/cluster_board.h"
#include "server/router/router_metrics.h"

namespace tessera::router {

/// Whoever faces the clients. Counters are since its start.
struct FrontStatus {
  std::string_view kind;  ///< "router" or "combined"
  int64_t num_in_flight = 0;
  int64_t num_waiting = 0;  ///< of them, for a worker or for a place in the batch
  int64_t num_finished = 0;
  int64_t num_failed = 0;
  int64_t num_rejected = 0;
  int64_t num_prompt_tokens = 0;
  int64_t num_generated_tokens = 0;
  const Histogram* first_token_seconds = nullptr;  ///< these outlive the call
  const Histogram* inter_token_seconds = nullptr;
};

[[nodiscard]] FrontStatus front_status(const RouterMetrics& router);
/// {"front":{…},"workers":[…]}; what a worker has not reported is left out.
[[nodiscard]] std::string cluster_json(const FrontStatus& front,
                                       const std::vector<WorkerStatus>& workers);

}  // namespace tessera::router
