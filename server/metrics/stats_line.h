// The line of rates and queues that each role logs while it works.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/serving/engine_metrics.h"
#include "server/router/router_metrics.h"

namespace tessera::metrics {

/// What a role has done so far, and what it holds now.
struct StatsReading {
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t generation_tokens = 0;
  int64_t handoff_bytes = 0;
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  int64_t num_blocks_used = 0;
  int64_t num_blocks_total = 0;  ///< 0: the role has no cache
};

/// The difference of two readings.
struct StatsRates {
  double prompt_tokens_per_s = 0.0;
  double generation_tokens_per_s = 0.0;
  double kv_use_percent = 0.0;
  double prefix_hit_percent = 0.0;  ///< of the prompt tokens in between
  double handoff_mb_per_s = 0.0;
};

/// `handoff_bytes` went out of the engine, or came in.
[[nodiscard]] StatsReading read_stats(const EngineMetrics& engine, int64_t handoff_bytes);
/// Running are the requests that wait for no worker.
[[nodiscard]] StatsReading read_stats(const router::RouterMetrics& router);

/// Nothing runs or waits, and nothing did in between.
[[nodiscard]] bool is_idle(const StatsReading& before, const StatsReading& now) noexcept;
/// `seconds` is more than 0.
[[nodiscard]] StatsRates rates_between(const StatsReading& before,
                                       const StatsReading& now,
                                       double seconds) noexcept;
/// `part` of the process: "prefill", "decode" and so on.
void log_stats(std::string_view part, const StatsReading& now, const StatsRates& rates);

}  // namespace tessera::metrics
