#include "server/metrics/stats_line.h"

#include <algorithm>
#include <cmath>

#include "engine/base/log.h"

namespace tessera::metrics {
namespace {

constexpr double kBytesPerMb = 1e6;

double percent_of(int64_t part, int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

/// People read these: one decimal is enough.
double rounded(double value) {
  return std::round(value * 10.0) / 10.0;
}

}  // namespace

StatsReading read_stats(const EngineMetrics& engine, int64_t handoff_bytes) {
  return {.prompt_tokens = engine.prompt_tokens.value(),
          .cached_prompt_tokens = engine.prompt_tokens_cached.value(),
          .generation_tokens = engine.generation_tokens.value(),
          .handoff_bytes = handoff_bytes,
          .num_running = engine.num_requests_running.value(),
          .num_waiting = engine.num_requests_waiting.value(),
          .num_blocks_used = engine.num_blocks_used.value(),
          .num_blocks_total = engine.num_blocks_total.value()};
}

StatsReading read_stats(const router::RouterMetrics& router) {
  const int64_t num_waiting = router.num_requests_waiting.value();
  StatsReading reading;
  reading.prompt_tokens = router.prompt_tokens.value();
  reading.cached_prompt_tokens = router.prompt_tokens_matched.value();
  reading.generation_tokens = router.generation_tokens.value();
  reading.num_running = std::max<int64_t>(router.num_requests_in_flight.value() - num_waiting, 0);
  reading.num_waiting = num_waiting;
  return reading;
}

bool is_idle(const StatsReading& before, const StatsReading& now) noexcept {
  return now.num_running == 0 && now.num_waiting == 0 && before.num_running == 0 &&
         before.num_waiting == 0 && now.prompt_tokens == before.prompt_tokens &&
         now.generation_tokens == before.generation_tokens &&
         now.handoff_bytes == before.handoff_bytes;
}

StatsRates rates_between(const StatsReading& before,
                         const StatsReading& now,
                         double seconds) noexcept {
  const auto per_second = [seconds](int64_t from, int64_t to) {
    return static_cast<double>(to - from) / seconds;
  };
  return {.prompt_tokens_per_s = per_second(before.prompt_tokens, now.prompt_tokens),
          .generation_tokens_per_s = per_second(before.generation_tokens, now.generation_tokens),
          .kv_use_percent = percent_of(now.num_blocks_used, now.num_blocks_total),
          .prefix_hit_percent = percent_of(now.cached_prompt_tokens - before.cached_prompt_tokens,
                                           now.prompt_tokens - before.prompt_tokens),
          .handoff_mb_per_s = per_second(before.handoff_bytes, now.handoff_bytes) / kBytesPerMb};
}

void log_stats(std::string_view part, const StatsReading& now, const StatsRates& rates) {
  log_info("stats",
           "part",
           part,
           "prompt_tokens_per_s",
           rounded(rates.prompt_tokens_per_s),
           "generation_tokens_per_s",
           rounded(rates.generation_tokens_per_s),
           "running",
           now.num_running,
           "waiting",
           now.num_waiting,
           "kv_use_percent",
           rounded(rates.kv_use_percent),
           "prefix_hit_percent",
           rounded(rates.prefix_hit_percent),
           "handoff_mb_per_s",
           rounded(rates.handoff_mb_per_s));
}

}  // namespace tessera::metrics
