#include "server/router/cluster_json.h"

#include <nlohmann/json.hpp>

namespace tessera::router {
namespace {

using Json = nlohmann::ordered_json;

Json times_json(const Histogram* seconds) {
  return {{"count", seconds->count()}, {"seconds", seconds->sum()}};
}

Json front_json(const FrontStatus& front) {
  return {{"kind", front.kind},
          {"requests_in_flight", front.num_in_flight},
          {"requests_waiting", front.num_waiting},
          {"requests_finished", front.num_finished},
          {"requests_failed", front.num_failed},
          {"requests_rejected", front.num_rejected},
          {"prompt_tokens", front.num_prompt_tokens},
          {"generated_tokens", front.num_generated_tokens},
          {"first_token", times_json(front.first_token_seconds)},
          {"between_tokens", times_json(front.inter_token_seconds)}};
}

void add_info(const WorkerInfo& info, Json& out) {
  out["model"] = info.model_name;
  out["attention"] = info.attention;
  out["ranks"] = info.num_ranks;
  out["max_model_len"] = info.max_model_len;
  out["cache_bytes_per_token"] = info.cache_bytes_per_token;
  out["cache_bytes_per_token_replicated"] = info.cache_bytes_per_token_replicated;
}

void add_load(const WorkerLoad& load, Json& out) {
  out["requests_running"] = load.num_requests_running;
  out["requests_waiting"] = load.num_requests_waiting;
  out["queued_prompt_tokens"] = load.num_queued_prompt_tokens;
  out["sequences_limit"] = load.num_sequences_limit;
  out["blocks_total"] = load.num_blocks_total;
  out["blocks_used"] = load.num_blocks_total - load.num_blocks_free;
  out["prompt_tokens"] = load.num_prompt_tokens;
  out["generated_tokens"] = load.num_generated_tokens;
  out["handoffs"] = load.num_handoffs;
  out["handoff_us"] = load.handoff_us;
  out["handoff_bytes"] = load.handoff_bytes;
}

Json worker_json(const WorkerStatus& worker) {
  Json out = {{"role", worker.role},
              {"address", worker.address},
              {"state", worker_state_name(worker.state)},
              {"open_calls", worker.num_open_calls}};
  if (worker.info.has_value()) {
    add_info(*worker.info, out);
  }
  if (worker.load.has_value()) {
    add_load(*worker.load, out);
  }
  return out;
}

}  // namespace

FrontStatus front_status(const RouterMetrics& router) {
  return {.kind = "router",
          .num_in_flight = router.num_requests_in_flight.value(),
          .num_waiting = router.num_requests_waiting.value(),
          .num_finished = router.requests_finished.value(),
          .num_failed = router.requests_failed.value(),
          .num_rejected = router.requests_rejected.value(),
          .num_prompt_tokens = router.prompt_tokens.value(),
          .num_generated_tokens = router.generation_tokens.value(),
          .first_token_seconds = &router.time_to_first_token_seconds,
          .inter_token_seconds = &router.inter_token_seconds};
}

std::string cluster_json(const FrontStatus& front, const std::vector<WorkerStatus>& workers) {
  Json out = {{"front", front_json(front)}, {"workers", Json::array()}};
  for (const WorkerStatus& worker : workers) {
    out["workers"].push_back(worker_json(worker));
  }
  // Names come from other processes: what is not UTF-8 is replaced.
  return out.dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace tessera::router
