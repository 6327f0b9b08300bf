#include "server/roles/router_role.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/text.h"
#include "engine/weights/fingerprint.h"
#include "server/metrics/router_families.h"
#include "server/metrics/vllm_families.h"
#include "server/roles/front_door.h"
#include "server/roles/role_parts.h"
#include "server/roles/rpc_door.h"
#include "server/router/cluster_json.h"
#include "server/router/router.h"
#include "server/router/rpc_connector.h"

namespace tessera {
namespace {

std::string join(const std::vector<std::string>& addresses) {
  std::string list;
  for (const std::string& address : addresses) {
    list += (list.empty() ? "" : ",") + address;
  }
  return list;
}

int64_t longest_sequence(const cli::Options& options, const ModelConfig& config) {
  return options.max_model_len != 0 ? options.max_model_len : config.max_position_embeddings;
}

Result<router::RouterOptions> router_options(const cli::Options& options,
                                             const ModelConfig& config) {
  router::RouterOptions router;
  router.prefill_workers = join(options.prefill_workers);
  router.decode_workers = join(options.decode_workers);
  router.model_fingerprint = model_fingerprint(config);
  router.vocab_size = config.vocab_size;
  router.max_model_len = longest_sequence(options, config);
  if (!router::parse_policy(options.routing_policy, router.policy)) {
    return invalid_argument(str_cat("--routing-policy \"", options.routing_policy, "\""));
  }
  router.local_prefill_max_tokens = options.max_local_prefill_tokens;
  router.max_in_flight_requests = options.max_inflight_requests;
  router.worker_wait = std::chrono::seconds(options.worker_wait_s);
  return router;
}

/// All requests may be at one worker, whose calls outlast them a little.
router::RpcConnectorOptions connector_options(const cli::Options& options) {
  router::RpcConnectorOptions connector;
  connector.channel.tls = cluster_tls(options);
  connector.workers.max_open_calls = std::max(
      connector.workers.max_open_calls, static_cast<size_t>(2 * options.max_inflight_requests));
  return connector;
}

}  // namespace

struct RouterRole::Parts {
  std::unique_ptr<router::RpcConnector> connector;
  std::unique_ptr<router::Router> router;
  std::unique_ptr<FrontDoor> door;  // last: its requests are the router's
};

Result<std::unique_ptr<RouterRole>> RouterRole::open(const cli::Options& options,
                                                     const ModelConfig& config,
                                                     const TextParts& text,
                                                     Neighbours neighbours) {
  auto parts = std::make_unique<Parts>();
  parts->connector = std::make_unique<router::RpcConnector>(connector_options(options));
  TESSERA_TRY(auto settings, router_options(options, config));
  TESSERA_TRY(parts->router, router::Router::create(std::move(settings), *parts->connector));
  FrontDoor::Parts door{.config = config,
                        .text = text,
                        .service = *parts->router,
                        .max_model_len = longest_sequence(options, config),
                        .liveness = std::move(neighbours.liveness),
                        .add_service_families = {},
                        .cluster_json = {}};
  door.cluster_json = [router = parts->router.get()] {
    return router::cluster_json(router::front_status(router->metrics()), *router->workers());
  };
  door.add_service_families = [router = parts->router.get(),
                               add_others =
                                   std::move(neighbours.add_families)](metrics::FamilyList& list) {
    metrics::add_router_families(list, router->metrics());
    metrics::add_vllm_request_families(list, router->metrics());
    if (add_others) {
      add_others(list);
    }
  };
  TESSERA_TRY(parts->door, FrontDoor::open(options, std::move(door)));
  return std::unique_ptr<RouterRole>(new RouterRole(std::move(parts)));
}

RouterRole::RouterRole(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
RouterRole::~RouterRole() = default;

void RouterRole::reload_keys() {
  parts_->door->reload_keys();
}

metrics::StatsReading RouterRole::stats() const {
  return metrics::read_stats(parts_->router->metrics());
}

Status RouterRole::drain_blocking(Deadline deadline) {
  parts_->door->set_draining();
  const Status status = parts_->router->drain_blocking(deadline);
  const bool have_all_ended = parts_->door->drain_blocking(Deadline::after(kLastWrites));
  if (status.is_ok() && !have_all_ended) {
    return {StatusCode::kDeadlineExceeded, "some answers could not be sent in time"};
  }
  return status;
}

}  // namespace tessera
