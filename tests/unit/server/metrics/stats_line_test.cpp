#include "server/metrics/stats_line.h"

#include <gtest/gtest.h>

namespace tessera::metrics {
namespace {

TEST(StatsLineTest, GivesRatesOfWhatHappenedInBetween) {
  StatsReading before;
  before.prompt_tokens = 1000;
  before.cached_prompt_tokens = 900;
  before.generation_tokens = 50;
  before.handoff_bytes = 7'000'000;
  StatsReading now = before;
  now.prompt_tokens += 400;
  now.cached_prompt_tokens += 100;
  now.generation_tokens += 30;
  now.handoff_bytes += 5'000'000;
  now.num_blocks_used = 3;
  now.num_blocks_total = 12;
  const StatsRates rates = rates_between(before, now, 10.0);
  EXPECT_DOUBLE_EQ(rates.prompt_tokens_per_s, 40.0);
  EXPECT_DOUBLE_EQ(rates.generation_tokens_per_s, 3.0);
  EXPECT_DOUBLE_EQ(rates.prefix_hit_percent, 25.0);
  EXPECT_DOUBLE_EQ(rates.kv_use_percent, 25.0);
  EXPECT_DOUBLE_EQ(rates.handoff_mb_per_s, 0.5);
}

TEST(StatsLineTest, HasZerosWhereThereIsNothingToDivideBy) {
  const StatsRates rates = rates_between({}, {}, 10.0);
  EXPECT_EQ(rates.prefix_hit_percent, 0.0);
  EXPECT_EQ(rates.kv_use_percent, 0.0);
}

TEST(StatsLineTest, IsIdleOnlyWhenNothingRunsWaitsOrHappened) {
  const StatsReading rest;
  EXPECT_TRUE(is_idle(rest, rest));
  const auto differs_by = [](auto member) {
    StatsReading reading;
    reading.*member = 1;
    return reading;
  };
  for (const auto member : {&StatsReading::prompt_tokens,
                            &StatsReading::generation_tokens,
                            &StatsReading::handoff_bytes,
                            &StatsReading::num_running,
                            &StatsReading::num_waiting}) {
    EXPECT_FALSE(is_idle(rest, differs_by(member)));
  }
  // The last line of a burst still comes; what was counted long ago does not matter.
  EXPECT_FALSE(is_idle(differs_by(&StatsReading::num_running), rest));
  const StatsReading counted = differs_by(&StatsReading::prompt_tokens);
  EXPECT_TRUE(is_idle(counted, counted));
}

TEST(StatsLineTest, ReadsAnEngine) {
  EngineMetrics engine;
  engine.prompt_tokens.add(5);
  engine.num_requests_running.set(2);
  engine.num_requests_waiting.set(1);
  engine.num_blocks_total.set(8);
  const StatsReading reading = read_stats(engine, 77);
  EXPECT_EQ(reading.prompt_tokens, 5);
  EXPECT_EQ(reading.handoff_bytes, 77);
  EXPECT_EQ(reading.num_running, 2);
  EXPECT_EQ(reading.num_waiting, 1);
  EXPECT_EQ(reading.num_blocks_total, 8);
}

TEST(StatsLineTest, ReadsARouterWhoseWaitingRequestsDoNotRun) {
  router::RouterMetrics router;
  router.num_requests_in_flight.set(7);
  router.num_requests_waiting.set(3);
  router.generation_tokens.add(9);
  const StatsReading reading = read_stats(router);
  EXPECT_EQ(reading.num_running, 4);
  EXPECT_EQ(reading.num_waiting, 3);
  EXPECT_EQ(reading.generation_tokens, 9);
  EXPECT_EQ(reading.num_blocks_total, 0);
}

}  // namespace
}  // namespace tessera::metrics
