// Settings of a router. Plain data, immutable after start.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "engine/base/status.h"

namespace tessera::router {

enum class PolicyKind : uint8_t { kPrefixAffinity, kLeastLoad, kRoundRobin };

/// Parses "prefix_affinity", "least_load", "round_robin"; false when `name` is none of them.
[[nodiscard]] bool parse_policy(const std::string& name, PolicyKind& policy);

struct RouterOptions {
  /// "host:port,…"; an entry "dns:name:port" stands for every address of that name.
  std::string prefill_workers;
  std::string decode_workers;
  std::chrono::milliseconds resolve_period{3000};
  std::chrono::milliseconds reconnect_first{100};  ///< doubles up to reconnect_last
  std::chrono::milliseconds reconnect_last{5000};

  std::chrono::milliseconds board_period{100};  ///< between loads shown on the ClusterBoard
  std::chrono::milliseconds suspicion{500};     ///< of a worker whose call failed with UNAVAILABLE

  /// The model that this router serves; workers of another one are refused.
  std::string model_fingerprint;
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;

  PolicyKind policy = PolicyKind::kPrefixAffinity;
  int64_t max_prefix_blocks = 131'072;  ///< of 64 tokens, remembered for affinity
  int32_t max_decode_candidates = 4;    ///< offered to a prefill worker, best first
  /// Prompts up to this length go to a decode group that takes them itself. 0: none.
  int64_t local_prefill_max_tokens = 0;

  int64_t max_in_flight_requests = 1024;
  int64_t max_queued_prompt_tokens = int64_t{1} << 20;  ///< of requests without a token yet
  int64_t max_waiting_requests = 256;  ///< while no worker is ready; above: RESOURCE_EXHAUSTED
  std::chrono::milliseconds worker_wait{10'000};  ///< for a ready worker; then UNAVAILABLE

  int32_t max_replays = 2;
  std::chrono::milliseconds backoff_first{20};  ///< doubles up to backoff_last, with jitter
  std::chrono::milliseconds backoff_last{1000};
  double retry_ratio = 0.1;            ///< replays a request earns for all
  double retry_burst = 64;             ///< replays that may start at once
  double retry_floor_per_second = 16;  ///< earned without any request; a replay waits, never fails
  /// No event of an attempt before commit. A queued or computing prefill is silent by design, for
  /// as long as the prompt or a full decode takes; lost connections are found by other means.
  std::chrono::milliseconds prefill_stall{3'600'000};
  std::chrono::milliseconds decode_stall{30'000};  ///< no token after commit
  std::chrono::milliseconds commit_grace{1000};    ///< for decode's word when prefill failed last

  /// Errors: INVALID_ARGUMENT naming the option.
  [[nodiscard]] Status validate() const;
};

}  // namespace tessera::router
