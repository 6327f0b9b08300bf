#include "engine/serving/worker_load.h"

#include <algorithm>

namespace tessera {

WorkerLoad worker_load(const Engine& engine) {
  const EngineMetrics& metrics = engine.metrics();
  const int64_t num_blocks = metrics.num_blocks_total.value();
  return {.num_requests_running = metrics.num_requests_running.value(),
          .num_requests_waiting = metrics.num_requests_waiting.value(),
          .num_queued_prompt_tokens = metrics.num_queued_prompt_tokens.value(),
          .num_blocks_total = num_blocks,
          .num_blocks_free = std::max<int64_t>(num_blocks - metrics.num_blocks_used.value(), 0),
          .num_sequences_limit = engine.options().max_num_seqs,
          .is_draining = !engine.readiness().is_ok(),
          .num_prompt_tokens = metrics.prompt_tokens.value(),
          .num_generated_tokens = metrics.generation_tokens.value(),
          .num_handoffs = 0,
          .handoff_us = 0,
          .handoff_bytes = 0};
}

void add_handoffs(const Histogram& seconds, const Counter* bytes, WorkerLoad& load) {
  constexpr double kMicroseconds = 1e6;
  load.num_handoffs = seconds.count();
  load.handoff_us = static_cast<int64_t>(seconds.sum() * kMicroseconds);
  load.handoff_bytes = bytes == nullptr ? 0 : bytes->value();
}

}  // namespace tessera
