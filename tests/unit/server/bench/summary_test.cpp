#include "server/bench/summary.h"

#include <gtest/gtest.h>

namespace tessera::bench {
namespace {

using std::chrono::milliseconds;

const Clock::time_point kStart = Clock::time_point() + std::chrono::hours(1);

/// Due and sent at `at_ms`, first text 100 ms later, then one token every 10 ms.
RequestRecord completed(int64_t index, int at_ms, int num_tokens) {
  RequestRecord record;
  record.index = index;
  record.outcome = Outcome::kCompleted;
  record.scheduled = record.sent = kStart + milliseconds(at_ms);
  record.first_byte = record.sent + milliseconds(99);
  record.first_content = record.sent + milliseconds(100);
  record.last_content = record.done = record.first_content + milliseconds(10) * (num_tokens - 1);
  record.gaps_ms.assign(static_cast<size_t>(num_tokens - 1), 10.0F);
  record.num_content_events = record.completion_tokens = num_tokens;
  record.prompt_tokens = 50;
  return record;
}

LoadResult result_of(std::vector<RequestRecord> records) {
  LoadResult result;
  result.records = std::move(records);
  result.start = kStart;
  result.wall_s = 1.0;
  result.lags.loop_ms = {0.01F, 0.02F};
  return result;
}

TEST(SummaryTest, LatenciesFollowTheirDefinitions) {
  RequestRecord late = completed(0, 40, 11);
  late.scheduled = kStart;
  const Summary summary = summarize(result_of({late}));
  EXPECT_DOUBLE_EQ(summary.ttft_ms.max(), 100.0);
  EXPECT_DOUBLE_EQ(summary.e2el_ms.max(), 200.0);
  EXPECT_DOUBLE_EQ(summary.tpot_ms.max(), 10.0);
  EXPECT_DOUBLE_EQ(summary.itl_ms.max(), 10.0);
  EXPECT_EQ(summary.itl_ms.count(), 10);
  EXPECT_DOUBLE_EQ(summary.first_byte_ms.max(), 99.0);
  EXPECT_DOUBLE_EQ(summary.ttft_scheduled_ms.max(), 140.0);
  EXPECT_DOUBLE_EQ(summary.e2el_scheduled_ms.max(), 240.0);
}

TEST(SummaryTest, ThroughputIsOverTheTimeFromFirstRequestToLastEnd) {
  // 0 to 200 ms, and 300 to 500 ms.
  const Summary summary = summarize(result_of({completed(0, 0, 11), completed(1, 300, 11)}));
  EXPECT_DOUBLE_EQ(summary.duration_s, 0.5);
  EXPECT_DOUBLE_EQ(summary.request_throughput, 4.0);
  EXPECT_DOUBLE_EQ(summary.output_throughput, 44.0);
  EXPECT_EQ(summary.input_tokens, 100);
  EXPECT_EQ(summary.max_concurrent_requests, 1);
  EXPECT_DOUBLE_EQ(summary.max_output_tokens_per_s, 22.0);
  EXPECT_DOUBLE_EQ(summary.tokens_per_event, 1.0);
}

TEST(SummaryTest, WaitingForWhatIsCutOffIsNoPartOfTheDuration) {
  RequestRecord cut_off = completed(1, 100, 11);
  cut_off.outcome = Outcome::kUnfinished;
  cut_off.gaps_ms.assign(1000, 10.0F);
  cut_off.num_content_events = 1001;
  cut_off.done = kStart + milliseconds(30'000);  // the grace
  LoadResult result = result_of({completed(0, 0, 11), cut_off});
  Summary summary = summarize(result);
  EXPECT_DOUBLE_EQ(summary.duration_s, 0.2);
  EXPECT_DOUBLE_EQ(summary.request_throughput, 5.0);
  EXPECT_DOUBLE_EQ(summary.output_throughput, 55.0);
  // Its text at 200 ms is in, what came after that is not.
  EXPECT_DOUBLE_EQ(summary.max_output_tokens_per_s, 12.0);
  result.records.erase(result.records.begin());
  summary = summarize(result);
  EXPECT_DOUBLE_EQ(summary.duration_s, 29.9);
}

TEST(SummaryTest, RequestsNeverSentMakeTheRunAnotherOne) {
  LoadResult result = result_of(std::vector<RequestRecord>(99, completed(0, 0, 2)));
  result.num_unsent = 1;
  EXPECT_EQ(summarize(result).unsent, 1);
  EXPECT_FALSE(summarize(result).is_held_back);
  result.num_unsent = 2;
  EXPECT_TRUE(summarize(result).is_held_back);
}

TEST(SummaryTest, OnlyCompletedRequestsHaveLatencies) {
  RequestRecord failed = completed(1, 0, 5);
  failed.outcome = Outcome::kFailed;
  failed.error = "timeout";
  RequestRecord cancelled = completed(2, 0, 5);
  cancelled.outcome = Outcome::kCancelled;
  RequestRecord warmup = completed(3, 0, 5);
  warmup.is_warmup = true;
  RequestRecord unfinished = completed(4, 0, 5);
  unfinished.outcome = Outcome::kUnfinished;
  const Summary summary =
      summarize(result_of({completed(0, 0, 5), failed, cancelled, warmup, unfinished}));
  EXPECT_EQ(summary.completed, 1);
  EXPECT_EQ(summary.failed, 1);
  EXPECT_EQ(summary.cancelled, 1);
  EXPECT_EQ(summary.unfinished, 1);
  EXPECT_EQ(summary.warmup, 1);
  EXPECT_EQ(summary.ttft_ms.count(), 1);
  ASSERT_EQ(summary.errors.size(), 1U);
  EXPECT_EQ(summary.errors[0].error, "timeout");
  EXPECT_EQ(summary.max_concurrent_requests, 4);
}

TEST(SummaryTest, ErrorsAreCountedMostFrequentFirst) {
  std::vector<RequestRecord> records;
  for (int i = 0; i < 5; ++i) {
    records.push_back(completed(i, 0, 2));
    records.back().outcome = Outcome::kFailed;
    records.back().error = i < 2 ? "a" : "b";
  }
  const Summary summary = summarize(result_of(records));
  ASSERT_EQ(summary.errors.size(), 2U);
  EXPECT_EQ(summary.errors[0].error, "b");
  EXPECT_EQ(summary.errors[0].count, 3);
}

TEST(SummaryTest, GoodRequestsMeetEveryLimit) {
  LoadResult result = result_of({completed(0, 0, 11), completed(1, 0, 31)});
  result.settings.goodput = {.ttft_ms = 100.0, .tpot_ms = 10.0, .e2el_ms = 300.0};
  const Summary summary = summarize(result);
  EXPECT_EQ(summary.num_good, 1);  // the other takes 400 ms
  EXPECT_EQ(summary.num_good_tokens, 11);
  EXPECT_DOUBLE_EQ(summary.request_goodput, 1.0 / 0.4);
}

TEST(SummaryTest, LagAboveAPartOfTheGapMakesTheRunInvalid) {
  LoadResult result = result_of({completed(0, 0, 11)});  // gaps of 10 ms
  result.lags.send_ms.assign(100, 0.3F);
  EXPECT_DOUBLE_EQ(summarize(result).max_lag_ms, 0.5);
  EXPECT_FALSE(summarize(result).is_saturated);
  result.lags.send_ms.assign(100, 0.6F);
  EXPECT_TRUE(summarize(result).is_saturated);
  result.lags.send_ms.clear();
  result.lags.loop_ms.assign(100, 0.6F);
  EXPECT_TRUE(summarize(result).is_saturated);
  result.lags.loop_ms.assign(100, 0.1F);
  EXPECT_FALSE(summarize(result).is_saturated);
  result.lags.receive_ms.assign(100, 0.6F);
  EXPECT_TRUE(summarize(result).is_saturated);
}

TEST(SummaryTest, SlicesAddUpToTheRun) {
  std::vector<RequestRecord> records;
  records.reserve(100);
  for (int i = 0; i < 100; ++i) {
    records.push_back(completed(i, 1000 * i, 11));
  }
  const Summary summary = summarize(result_of(records));
  ASSERT_FALSE(summary.slices.empty());
  ASSERT_LE(summary.slices.size(), 61U);
  double tokens = 0.0;
  double open_s = 0.0;
  int64_t num_completed = 0;
  for (const TimeSlice& slice : summary.slices) {
    tokens += slice.tokens_per_s * slice.length_s;
    open_s += slice.open * slice.length_s;
    num_completed += slice.num_completed;
  }
  EXPECT_NEAR(tokens, 1100.0, 1e-6);
  EXPECT_NEAR(open_s, 100 * 0.2, 1e-6);
  EXPECT_EQ(num_completed, 100);
}

TEST(SummaryTest, NothingMeasuredIsAllZeros) {
  const Summary summary = summarize(result_of({}));
  EXPECT_EQ(summary.completed, 0);
  EXPECT_EQ(summary.duration_s, 0.0);
  EXPECT_EQ(summary.request_throughput, 0.0);
  EXPECT_TRUE(summary.slices.empty());
}

}  // namespace
}  // namespace tessera::bench
