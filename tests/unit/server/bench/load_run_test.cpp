#include "server/bench/load_run.h"

#include <algorithm>
#include <atomic>
#include <set>

#include <gtest/gtest.h>

#include "server/bench/summary.h"
#include "tests/support/fake_sse_server.h"
#include "tests/unit/server/bench/load_support.h"

namespace tessera::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using tessera::testing::chat_answer;
using tessera::testing::FakeAnswer;
using tessera::testing::FakeRequest;
using tessera::testing::FakeSseServer;
using testing::chat_settings;
using testing::run_blocking;

FakeAnswer answer_as_asked(const FakeRequest& request) {
  return chat_answer(std::vector<double>(static_cast<size_t>(request.wanted_tokens), 0.0));
}

/// Answers once and then says nothing.
FakeAnswer answer_without_end(const FakeRequest&) {
  FakeAnswer answer = chat_answer({0.0, 600'000.0});
  return answer;
}

int64_t count(const LoadResult& result, Outcome outcome) {
  return std::count_if(result.records.begin(), result.records.end(), [&](const auto& record) {
    return record.outcome == outcome;
  });
}

TEST(LoadRunTest, EachRequestIsSentOnceByOneOfTheThreads) {
  std::multiset<int64_t> seen;
  FakeSseServer server([&](const FakeRequest& request) {
    seen.insert(request.index);
    return answer_as_asked(request);
  });
  BenchSettings settings = chat_settings(server.url(), 50);
  settings.num_threads = 3;
  const LoadResult result = run_blocking(settings);
  (void)server.stop();
  ASSERT_EQ(result.records.size(), 50U);
  for (int64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(result.records[static_cast<size_t>(i)].index, i);
    EXPECT_EQ(seen.count(i), 1U) << i;
  }
  EXPECT_EQ(count(result, Outcome::kCompleted), 50);
  EXPECT_EQ(result.settings.model, "fake");
}

TEST(LoadRunTest, ClosedLoopHasNoMoreOpenThanItsConcurrency) {
  FakeSseServer server(answer_as_asked);
  BenchSettings settings = chat_settings(server.url(), 60);
  settings.max_concurrency = 3;
  const Summary summary = summarize(run_blocking(settings));
  EXPECT_EQ(summary.completed, 60);
  EXPECT_EQ(summary.max_concurrent_requests, 3);
  EXPECT_EQ(summary.send_lag_ms.count(), 0);
}

TEST(LoadRunTest, OpenLoopSendsAtItsTimesWhateverTheServerDoes) {
  FakeSseServer server(answer_without_end);
  BenchSettings settings = chat_settings(server.url(), 30);
  settings.arrivals = {.kind = ArrivalKind::kConstant, .rate = 200.0};
  settings.max_concurrency = 0;
  settings.duration = seconds(1);
  settings.grace = milliseconds(50);
  const LoadResult result = run_blocking(settings);
  ASSERT_EQ(result.records.size(), 30U);
  EXPECT_EQ(count(result, Outcome::kUnfinished), 30);
  for (size_t i = 0; i < 30; ++i) {
    EXPECT_EQ(result.records[i].scheduled, result.start + milliseconds(5) * i) << i;
    EXPECT_GE(result.records[i].sent, result.records[i].scheduled) << i;
  }
  EXPECT_EQ(result.lags.send_ms.size(), 30U);
}

TEST(LoadRunTest, CapHoldsBackAndLatencyFromScheduleShowsIt) {
  FakeSseServer server([](const FakeRequest&) { return chat_answer({30.0, 0.0}); });
  BenchSettings settings = chat_settings(server.url(), 12);
  settings.arrivals = {.kind = ArrivalKind::kConstant, .rate = 1000.0};
  settings.max_concurrency = 2;
  const Summary summary = summarize(run_blocking(settings));
  EXPECT_EQ(summary.completed, 12);
  EXPECT_EQ(summary.max_concurrent_requests, 2);
  // Six rounds of at least 30 ms: the last requests waited for five of them.
  EXPECT_GE(summary.ttft_scheduled_ms.max(), 5 * 30.0);
  EXPECT_GE(summary.ttft_scheduled_ms.max(), summary.ttft_ms.percentile(50.0) * 2.0);
}

TEST(LoadRunTest, RequestsThatWereDueAndNeverSentAreCounted) {
  FakeSseServer server(answer_without_end);
  BenchSettings settings = chat_settings(server.url(), 0);
  settings.arrivals = {.kind = ArrivalKind::kConstant, .rate = 200.0};
  settings.max_concurrency = 3;
  settings.duration = milliseconds(100);  // due: 0, 5, ... 95 ms
  settings.grace = milliseconds(10);
  for (const int64_t num_threads : {1, 3}) {
    settings.num_threads = num_threads;
    const LoadResult result = run_blocking(settings);
    EXPECT_EQ(result.records.size(), 3U) << num_threads;
    EXPECT_EQ(result.num_unsent, 17) << num_threads;
  }
  settings.num_requests = 10;
  settings.num_warmup = 5;  // two of them are held back, and are not counted
  const LoadResult result = run_blocking(settings);
  EXPECT_EQ(result.num_unsent, 5);
  EXPECT_TRUE(summarize(result).is_held_back);
}

TEST(LoadRunTest, RunThatSendsAllHasNothingUnsent) {
  FakeSseServer server(answer_as_asked);
  BenchSettings settings = chat_settings(server.url(), 20);
  settings.arrivals = {.kind = ArrivalKind::kPoisson, .rate = 500.0};
  EXPECT_EQ(run_blocking(settings).num_unsent, 0);
}

TEST(LoadRunTest, DurationEndsAClosedLoop) {
  FakeSseServer server(answer_as_asked);
  BenchSettings settings = chat_settings(server.url(), 0);
  settings.duration = milliseconds(200);
  const LoadResult result = run_blocking(settings);
  EXPECT_GT(result.records.size(), 0U);
  EXPECT_EQ(count(result, Outcome::kCompleted), static_cast<int64_t>(result.records.size()));
  for (const RequestRecord& record : result.records) {
    EXPECT_LT(record.scheduled, result.start + seconds(30));
  }
}

TEST(LoadRunTest, CancelShareLeavesInTheMiddle) {
  FakeSseServer server([](const FakeRequest&) {
    return chat_answer({0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 50.0});
  });
  BenchSettings settings = chat_settings(server.url(), 100);
  settings.data.output_tokens = 10;
  settings.cancel_share = 0.5;
  const LoadResult result = run_blocking(settings);
  const int64_t num_cancelled = count(result, Outcome::kCancelled);
  EXPECT_GT(num_cancelled, 20);
  EXPECT_LT(num_cancelled, 80);
  EXPECT_EQ(num_cancelled + count(result, Outcome::kCompleted), 100);
  for (const RequestRecord& record : result.records) {
    if (record.outcome == Outcome::kCancelled) {
      EXPECT_GE(record.num_content_events, 1);
    }
  }
}

TEST(LoadRunTest, WarmupIsMarked) {
  FakeSseServer server(answer_as_asked);
  BenchSettings settings = chat_settings(server.url(), 10);
  settings.num_warmup = 4;
  const LoadResult result = run_blocking(settings);
  for (const RequestRecord& record : result.records) {
    EXPECT_EQ(record.is_warmup, record.index < 4) << record.index;
  }
  EXPECT_EQ(summarize(result).completed, 6);
}

TEST(LoadRunTest, StopEndsOpenRequestsAsUnfinished) {
  FakeSseServer server(answer_without_end);
  auto run = LoadRun::create(chat_settings(server.url(), 100)).value();
  ASSERT_TRUE(run->start().is_ok());
  const Deadline patience = Deadline::after(seconds(20));
  while (run->progress().events < 4 && !patience.is_expired()) {
    ASSERT_FALSE(run->wait_blocking(Deadline::after(milliseconds(5))));
  }
  run->stop();
  ASSERT_TRUE(run->wait_blocking(Deadline::after(seconds(20))));
  const LoadResult result = run->take_result();
  EXPECT_TRUE(result.is_stopped);
  EXPECT_EQ(result.records.size(), 4U);
  EXPECT_EQ(count(result, Outcome::kUnfinished), 4);
}

TEST(LoadRunTest, TooManyErrorsEndTheRun) {
  FakeSseServer server([](const FakeRequest&) {
    return FakeAnswer{
        .pieces = {{.bytes = std::make_shared<const std::string>(
                        tessera::testing::plain_response("500 No", "text/plain", "no"))}}};
  });
  BenchSettings settings = chat_settings(server.url(), 0);
  settings.duration = seconds(60);
  settings.max_errors = 5;
  const LoadResult result = run_blocking(settings);
  EXPECT_TRUE(result.has_too_many_errors);
  EXPECT_GT(count(result, Outcome::kFailed), 5);
}

TEST(LoadRunTest, NobodyThereIsSaidAtOnce) {
  uint16_t port = 0;
  { port = FakeSseServer(answer_as_asked).port(); }
  const Status status =
      LoadRun::create(chat_settings("http://127.0.0.1:" + std::to_string(port), 1)).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("127.0.0.1:" + std::to_string(port) + " cannot be reached"),
            std::string::npos)
      << status.message();
}

TEST(LoadRunTest, UnusedRunEndsCleanly) {
  FakeSseServer server(answer_without_end);
  auto run = LoadRun::create(chat_settings(server.url(), 100)).value();
  ASSERT_TRUE(run->start().is_ok());
  run.reset();  // its lanes are stopped and joined
  EXPECT_EQ(run, nullptr);
}

}  // namespace
}  // namespace tessera::bench
