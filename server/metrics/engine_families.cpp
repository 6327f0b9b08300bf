#include "server/metrics/engine_families.h"

#include <utility>

namespace tessera::metrics {
namespace {

void add_shapes(FamilyList& list, const RequestShapeMetrics& shapes) {
  list.histogram(
      "tessera_request_prompt_tokens", "Prompt tokens of a request", shapes.prompt_tokens);
  list.histogram("tessera_request_generation_tokens",
                 "Tokens of each choice of a finished request",
                 shapes.generation_tokens);
  list.histogram("tessera_request_time_per_output_token_seconds",
                 "Mean time between tokens of a finished request",
                 shapes.time_per_output_token_seconds);
}

}  // namespace

void add_engine_families(FamilyList& list, const EngineMetrics& engine) {
  const auto used = static_cast<double>(engine.num_blocks_used.value());
  const auto total = static_cast<double>(engine.num_blocks_total.value());
  list.gauge("tessera_requests_running",
             "Sequences in the running batch",
             static_cast<double>(engine.num_requests_running.value()));
  list.gauge("tessera_requests_waiting",
             "Requests in the queue",
             static_cast<double>(engine.num_requests_waiting.value()));
  list.gauge("tessera_queued_prompt_tokens",
             "Prompt tokens of started and queued requests that are not computed yet",
             static_cast<double>(engine.num_queued_prompt_tokens.value()));
  list.gauge("tessera_cache_blocks", "Blocks of the latent cache", total);
  list.gauge("tessera_cache_blocks_used", "Blocks held by live sequences", used);
  list.gauge("tessera_cache_usage_ratio",
             "Used share of the latent cache, 0 to 1",
             total > 0 ? used / total : 0.0);
  list.counter("tessera_prompt_tokens_total", "Prompt tokens", engine.prompt_tokens);
  list.counter("tessera_prompt_tokens_cached_total",
               "Prompt tokens found in the prefix cache",
               engine.prompt_tokens_cached);
  list.counter("tessera_generation_tokens_total", "Generated tokens", engine.generation_tokens);
  list.counter("tessera_engine_steps_total", "Engine steps", engine.steps);
  list.counter("tessera_preemptions_total", "Sequences put back to recompute", engine.preemptions);
  list.counter("tessera_requests_rejected_total", "Refused: queue full", engine.requests_rejected);
  list.begin_counters("tessera_requests_finished_total", "Requests by their end");
  const std::pair<const char*, const Counter*> ends[] = {
      {"stop", &engine.requests_finished_stop},
      {"length", &engine.requests_finished_length},
      {"cancelled", &engine.requests_cancelled},
      {"error", &engine.requests_failed}};
  for (const auto& [reason, counter] : ends) {
    list.add({{"finished_reason", reason}}, static_cast<double>(counter->value()));
  }
  list.histogram("tessera_queue_seconds", "Wait before the first step", engine.queue_seconds);
  list.histogram("tessera_time_to_first_token_seconds",
                 "From submission to the first token",
                 engine.time_to_first_token_seconds);
  list.histogram(
      "tessera_inter_token_seconds", "Between tokens of one sequence", engine.inter_token_seconds);
  list.histogram("tessera_engine_request_seconds",
                 "From submission to the last token",
                 engine.request_seconds);
  list.histogram("tessera_prefill_seconds",
                 "From the first step of a request to its first token",
                 engine.prefill_seconds);
  list.histogram("tessera_decode_seconds",
                 "From the first token, or the landing of a handed-over prompt, to the end",
                 engine.decode_seconds);
  list.histogram("tessera_engine_step_tokens", "Tokens that one step computed", engine.step_tokens);
  add_shapes(list, engine.shapes);
}

}  // namespace tessera::metrics
