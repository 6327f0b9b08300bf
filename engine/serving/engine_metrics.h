// What an operator asks of one engine. Written by the engine thread, read by /metrics.
#pragma once

#include "engine/base/metrics.h"
#include "engine/request/request_metrics.h"

namespace tessera {

struct EngineMetrics {
  Gauge num_requests_running;
  Gauge num_requests_waiting;
  Gauge num_queued_prompt_tokens;  ///< of started and queued requests, not computed yet
  Gauge num_blocks_total;
  Gauge num_blocks_used;  ///< held by live sequences; cached but evictable blocks are not used
  Counter prompt_tokens;
  Counter prompt_tokens_cached;
  Counter generation_tokens;
  Counter steps;
  Counter preemptions;
  Counter requests_finished_stop;
  Counter requests_finished_length;
  Counter requests_cancelled;
  Counter requests_failed;
  Counter requests_rejected;  ///< queue full
  LatencyHistogram queue_seconds;
  LatencyHistogram time_to_first_token_seconds;
  LatencyHistogram inter_token_seconds;
  LatencyHistogram request_seconds;
  LatencyHistogram prefill_seconds;  ///< first step to first token
  LatencyHistogram decode_seconds;   ///< first token, or landing here, to the end; of finished ones
  CountHistogram step_tokens;        ///< computed by one step
  RequestShapeMetrics shapes;
};

}  // namespace tessera
