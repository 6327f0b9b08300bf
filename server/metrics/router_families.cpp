#include "server/metrics/router_families.h"

#include <string>

namespace tessera::metrics {
namespace {

void add_requests(FamilyList& list, const router::RouterMetrics& router) {
  list.gauge("tessera_router_requests_in_flight",
             "Requests that the router has taken",
             static_cast<double>(router.num_requests_in_flight.value()));
  list.gauge("tessera_router_requests_waiting",
             "Of them, those that wait for a ready worker",
             static_cast<double>(router.num_requests_waiting.value()));
  list.counter("tessera_router_requests_total", "Requests taken", router.requests);
  list.counter("tessera_router_requests_finished_total",
               "Requests answered to the end",
               router.requests_finished);
  list.counter("tessera_router_requests_finished_length_total",
               "Of them, those with a choice cut by length",
               router.requests_finished_length);
  list.counter("tessera_router_requests_cancelled_total",
               "Requests cancelled by the client",
               router.requests_cancelled);
  list.counter("tessera_router_requests_failed_total",
               "Requests ended with an error",
               router.requests_failed);
  list.counter("tessera_router_requests_rejected_total",
               "Requests refused by admission",
               router.requests_rejected);
  list.counter("tessera_router_prompt_tokens_total", "Prompt tokens", router.prompt_tokens);
  list.counter(
      "tessera_router_generation_tokens_total", "Generated tokens", router.generation_tokens);
  list.histogram("tessera_router_queue_seconds",
                 "From submission to the first accepted attempt",
                 router.queue_seconds);
  list.histogram("tessera_router_time_to_first_token_seconds",
                 "From submission to the first token",
                 router.time_to_first_token_seconds);
  list.histogram("tessera_router_inter_token_seconds",
                 "Between tokens of one choice",
                 router.inter_token_seconds);
  list.histogram("tessera_router_request_seconds",
                 "From submission to the last token",
                 router.request_seconds);
  list.histogram("tessera_router_time_per_output_token_seconds",
                 "Mean time between tokens of a finished request",
                 router.shapes.time_per_output_token_seconds);
  list.histogram("tessera_router_request_prompt_tokens",
                 "Prompt tokens of a request",
                 router.shapes.prompt_tokens);
  list.histogram("tessera_router_request_generation_tokens",
                 "Tokens of each choice of a finished request",
                 router.shapes.generation_tokens);
}

void add_attempts(FamilyList& list, const router::RouterMetrics& router) {
  list.counter("tessera_router_attempts_total", "Attempts of requests", router.attempts);
  list.counter("tessera_router_attempts_local_total",
               "Of them, those prefilled by a decode group itself",
               router.attempts_local);
  list.counter("tessera_router_attempts_busy_total",
               "Of them, those refused by a full worker and repeated",
               router.attempts_busy);
  list.begin_counters("tessera_router_replays_total",
                      "Attempts that had to be repeated, by reason");
  for (size_t reason = 0; reason < router::kNumReplayReasons; ++reason) {
    const auto name = router::replay_reason_name(static_cast<router::ReplayReason>(reason));
    list.add({{"reason", std::string(name)}}, static_cast<double>(router.replays[reason].value()));
  }
  list.counter("tessera_router_affinity_hits_total",
               "Attempts sent where a prefix of theirs had been",
               router.affinity_hits);
  list.counter("tessera_router_affinity_misses_total",
               "Attempts whose prompt was new to the chosen worker",
               router.affinity_misses);
  list.counter("tessera_router_prompt_tokens_matched_total",
               "Prompt tokens in the matched prefixes; an estimate",
               router.prompt_tokens_matched);
}

void add_workers(FamilyList& list, const router::RouterMetrics& router) {
  list.begin_gauges("tessera_router_ready_workers", "Workers that take requests, by role");
  list.add({{"role", "prefill"}}, static_cast<double>(router.num_ready_prefill_workers.value()));
  list.add({{"role", "decode"}}, static_cast<double>(router.num_ready_decode_workers.value()));
  list.counter("tessera_router_workers_lost_total",
               "Workers lost: gone otherwise than by a stop after a whole drain",
               router.workers_lost);
  list.counter("tessera_router_workers_refused_total",
               "Workers of another model refused",
               router.workers_refused);
  list.counter("tessera_router_no_worker_waits_total",
               "Requests that had to wait for a ready worker",
               router.no_worker_waits);
}

}  // namespace

void add_router_families(FamilyList& list, const router::RouterMetrics& router) {
  add_requests(list, router);
  add_attempts(list, router);
  add_workers(list, router);
}

}  // namespace tessera::metrics
