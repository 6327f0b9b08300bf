// What an operator asks of a router. Written by the router thread (refusals: by the caller), read
// by /metrics.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/base/metrics.h"
#include "engine/request/request_metrics.h"

namespace tessera::router {

/// Why an attempt had to be repeated.
enum class ReplayReason : uint8_t {
  kWorkerLost,   ///< the connection to a worker of the attempt went away
  kUnavailable,  ///< a draining worker refused it or gave it up, or its stream broke
  kAborted,      ///< preempted, or a handoff was given up
  kTimeout,      ///< no event for too long
  kBadStream,    ///< a gap or a repeat in the tokens
  kOther,
};
constexpr size_t kNumReplayReasons = 6;

/// "worker_lost" and so on: the label's value.
[[nodiscard]] constexpr std::string_view replay_reason_name(ReplayReason reason) noexcept {
  constexpr std::array<std::string_view, kNumReplayReasons> names = {
      "worker_lost", "unavailable", "aborted", "timeout", "bad_stream", "other"};
  return names[static_cast<size_t>(reason)];
}

struct RouterMetrics {
  Gauge num_requests_in_flight;
  Gauge num_requests_waiting;  ///< for a ready worker
  Gauge num_ready_prefill_workers;
  Gauge num_ready_decode_workers;
  Counter requests;
  Counter requests_finished;
  Counter requests_finished_length;  ///< of them, those with a choice cut by length
  Counter requests_cancelled;
  Counter requests_failed;
  Counter requests_rejected;  ///< by admission
  Counter attempts;
  Counter attempts_local;  ///< of them prefilled by a decode group itself
  Counter attempts_busy;   ///< of them refused by a full worker, and repeated elsewhere or later
  std::array<Counter, kNumReplayReasons> replays;
  Counter no_worker_waits;
  Counter affinity_hits;    ///< attempts sent where a prefix of theirs had been
  Counter affinity_misses;  ///< attempts whose prompt was new to the chosen worker
  Counter prompt_tokens;
  Counter prompt_tokens_matched;  ///< of them in the matched prefixes; an estimate
  Counter generation_tokens;
  Counter workers_lost;  ///< gone without having drained to the end
  Counter workers_refused;
  LatencyHistogram queue_seconds;  ///< from submission to the first accepted attempt
  LatencyHistogram time_to_first_token_seconds;
  LatencyHistogram inter_token_seconds;
  LatencyHistogram request_seconds;
  RequestShapeMetrics shapes;
};

}  // namespace tessera::router
