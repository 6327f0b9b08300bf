#include "server/metrics/vllm_families.h"

#include <string>

namespace tessera::metrics {
namespace {

/// Adds single series with the label that vLLM gives to all of them.
class VllmList final {
 public:
  explicit VllmList(FamilyList& list) : list_(list) {}

  void gauge(const char* name, const char* help, double value) {
    list_.begin_gauges(name, help);
    list_.add(labels(), value);
  }
  void counter(const char* name, const char* help, int64_t value) {
    list_.begin_counters(name, help);
    list_.add(labels(), static_cast<double>(value));
  }
  void histogram(const char* name, const char* help, const Histogram& value) {
    list_.begin_histograms(name, help);
    list_.add(labels(), value);
  }
  void add(const char* label, std::string value_of_label, int64_t value) {
    auto all = labels();
    all.emplace_back(label, std::move(value_of_label));
    list_.add(all, static_cast<double>(value));
  }
  [[nodiscard]] static FamilyList::Labels labels() { return {{"engine", "0"}}; }

 private:
  FamilyList& list_;
};

struct Ends {
  int64_t stop = 0;
  int64_t length = 0;
  int64_t abort = 0;
  int64_t error = 0;
};

void add_ends(FamilyList& families, const Ends& ends) {
  VllmList list(families);
  families.begin_counters("vllm:request_success_total", "Requests by their end");
  list.add("finished_reason", "stop", ends.stop);
  list.add("finished_reason", "length", ends.length);
  list.add("finished_reason", "abort", ends.abort);
  list.add("finished_reason", "error", ends.error);
}

/// `Metrics` of a router or an engine, which call alike what they have in common.
template <typename Metrics>
void add_latencies(FamilyList& families, const Metrics& metrics) {
  VllmList list(families);
  list.histogram("vllm:time_to_first_token_seconds",
                 "From submission to the first token",
                 metrics.time_to_first_token_seconds);
  list.histogram("vllm:inter_token_latency_seconds",
                 "Between tokens of one sequence",
                 metrics.inter_token_seconds);
  list.histogram("vllm:e2e_request_latency_seconds",
                 "From submission to the last token",
                 metrics.request_seconds);
  const RequestShapeMetrics& shapes = metrics.shapes;
  list.histogram("vllm:request_time_per_output_token_seconds",
                 "Mean time between tokens of a finished request",
                 shapes.time_per_output_token_seconds);
  list.histogram("vllm:request_prompt_tokens", "Prompt tokens", shapes.prompt_tokens);
  list.histogram("vllm:request_generation_tokens",
                 "Tokens of each choice of a finished request",
                 shapes.generation_tokens);
  list.histogram("vllm:request_max_num_generation_tokens",
                 "Tokens of the longest choice of a finished request",
                 shapes.longest_generation_tokens);
  list.histogram("vllm:request_params_n", "The parameter n", shapes.num_choices);
  list.histogram("vllm:request_params_max_tokens", "The parameter max_tokens", shapes.max_tokens);
}

void add_queue(FamilyList& families, const EngineMetrics& engine, const HandoffMetrics* handoff) {
  VllmList list(families);
  const int64_t capacity = engine.num_requests_waiting.value();
  const int64_t deferred = handoff == nullptr ? 0 : handoff->reservations.value();
  list.gauge("vllm:num_requests_running",
             "Sequences in the running batch",
             static_cast<double>(engine.num_requests_running.value()));
  list.gauge("vllm:num_requests_waiting",
             "Requests in the queue, or waiting for their cache",
             static_cast<double>(capacity + deferred));
  families.begin_gauges("vllm:num_requests_waiting_by_reason", "Waiting requests by reason");
  list.add("reason", "capacity", capacity);
  list.add("reason", "deferred", deferred);
}

void add_cache(FamilyList& families, const EngineMetrics& engine, int64_t block_tokens) {
  VllmList list(families);
  const int64_t total = engine.num_blocks_total.value();
  const auto used = static_cast<double>(engine.num_blocks_used.value());
  list.gauge("vllm:kv_cache_usage_perc",
             "Used share of the latent cache, 0 to 1",
             total > 0 ? used / static_cast<double>(total) : 0.0);
  families.begin_gauges("vllm:cache_config_info", "Shape of the latent cache");
  auto labels = VllmList::labels();
  labels.emplace_back("block_size", std::to_string(block_tokens));
  labels.emplace_back("num_gpu_blocks", std::to_string(total));
  families.add(labels, 1.0);
  list.counter("vllm:prefix_cache_queries_total",
               "Prompt tokens looked up in the prefix cache",
               engine.prompt_tokens.value());
  list.counter("vllm:prefix_cache_hits_total",
               "Prompt tokens found in the prefix cache",
               engine.prompt_tokens_cached.value());
}

void add_work(FamilyList& families, const EngineMetrics& engine) {
  VllmList list(families);
  list.counter("vllm:prompt_tokens_total", "Prompt tokens", engine.prompt_tokens.value());
  list.counter("vllm:prompt_tokens_cached_total",
               "Prompt tokens found in the prefix cache",
               engine.prompt_tokens_cached.value());
  list.counter(
      "vllm:generation_tokens_total", "Generated tokens", engine.generation_tokens.value());
  list.counter("vllm:num_preemptions_total", "Preemptions", engine.preemptions.value());
  list.histogram(
      "vllm:iteration_tokens_total", "Tokens that one step computed", engine.step_tokens);
  list.histogram("vllm:request_queue_time_seconds", "Wait in the queue", engine.queue_seconds);
  list.histogram("vllm:request_prefill_time_seconds",
                 "From the first step to the first token",
                 engine.prefill_seconds);
  list.histogram(
      "vllm:request_decode_time_seconds", "From the first token to the end", engine.decode_seconds);
}

void add_transfer(FamilyList& families, const HandoffMetrics& handoff) {
  VllmList list(families);
  list.histogram("vllm:nixl_xfer_time_seconds",
                 "From the end of prefill to the last acknowledgement of its cache",
                 handoff.transfer_seconds);
  list.histogram("vllm:nixl_bytes_transferred", "Bytes of one handoff", handoff.handoff_bytes);
  list.histogram("vllm:nixl_num_descriptors", "Parcels of one handoff", handoff.handoff_parcels);
  list.counter("vllm:nixl_num_failed_transfers_total",
               "Parcels refused too often",
               handoff.failed_parcels.value());
  list.counter(
      "vllm:nixl_num_kv_expired_reqs_total", "Leases expired", handoff.leases_expired.value());
}

}  // namespace

void add_vllm_request_families(FamilyList& list, const EngineMetrics& engine) {
  if (!list.has_vllm_names()) {
    return;
  }
  add_latencies(list, engine);
  add_ends(list,
           {.stop = engine.requests_finished_stop.value(),
            .length = engine.requests_finished_length.value(),
            .abort = engine.requests_cancelled.value(),
            .error = engine.requests_failed.value()});
}

void add_vllm_request_families(FamilyList& list, const router::RouterMetrics& router) {
  if (!list.has_vllm_names()) {
    return;
  }
  const int64_t length = router.requests_finished_length.value();
  add_latencies(list, router);
  add_ends(list,
           {.stop = router.requests_finished.value() - length,
            .length = length,
            .abort = router.requests_cancelled.value(),
            .error = router.requests_failed.value()});
}

void add_vllm_engine_families(FamilyList& list,
                              const EngineMetrics& engine,
                              const HandoffMetrics* handoff,
                              int64_t block_tokens) {
  if (!list.has_vllm_names()) {
    return;
  }
  add_queue(list, engine, handoff);
  add_cache(list, engine, block_tokens);
  add_work(list, engine);
  if (handoff != nullptr) {
    add_transfer(list, *handoff);
  }
}

}  // namespace tessera::metrics
