// The client's percentiles against the times at which a server really wrote, over loopback and from
// thread to thread. Not a timed test: both sides stamp the same events on one clock, however late
// the machine makes them; what can go wrong is that the client itself is late, and then it has to
// say so.
#include <algorithm>
#include <cstdio>
#include <map>
#include <random>

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include "server/bench/report/reports.h"
#include "server/bench/summary.h"
#include "tests/support/fake_sse_server.h"
#include "tests/unit/server/bench/load_support.h"

namespace tessera::bench {
namespace {

using tessera::testing::chat_answer;
using tessera::testing::FakeRequest;
using tessera::testing::FakeSseServer;
using tessera::testing::FakeWrites;

constexpr int64_t kNumRequests = 300;
constexpr size_t kTokens = 16;
constexpr int kMaxAttempts = 5;

double ms_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

/// First token after 60 ms and an exponential tail of 100 ms, gaps of 25 ms and a tail of 25 ms.
std::vector<double> draw_delays(int64_t index) {
  std::mt19937_64 random(static_cast<uint64_t>(index));
  std::exponential_distribution<double> tail(1.0);
  std::vector<double> delays;
  for (size_t i = 0; i < kTokens; ++i) {
    delays.push_back(i == 0 ? 60.0 + 100.0 * tail(random) : 25.0 + 25.0 * tail(random));
  }
  return delays;
}

struct Measured {
  LoadResult result;
  std::vector<FakeWrites> writes;
};

Measured measure() {
  FakeSseServer server(
      [](const FakeRequest& request) { return chat_answer(draw_delays(request.index)); });
  BenchSettings settings = testing::chat_settings(server.url(), kNumRequests);
  settings.arrivals = {.kind = ArrivalKind::kPoisson, .rate = 150.0};
  settings.max_concurrency = 0;
  settings.data.output_tokens = kTokens;
  Measured measured;
  measured.result = testing::run_blocking(settings);
  measured.writes = server.stop();
  return measured;
}

/// What the server knows: the same figures from the times of its writes.
struct Truth {
  std::vector<double> ttft, itl, e2el, tpot;
};

Truth truth_of(const Measured& measured) {
  std::map<int64_t, const RequestRecord*> records;
  for (const RequestRecord& record : measured.result.records) {
    records[record.index] = &record;
  }
  Truth truth;
  for (const FakeWrites& writes : measured.writes) {
    if (writes.index < 0) {
      continue;  // the look at the models
    }
    const Clock::time_point sent = records.at(writes.index)->sent;
    truth.ttft.push_back(ms_between(sent, writes.content.front()));
    truth.e2el.push_back(ms_between(sent, writes.content.back()));
    truth.tpot.push_back((truth.e2el.back() - truth.ttft.back()) / (kTokens - 1));
    for (size_t i = 1; i < writes.content.size(); ++i) {
      truth.itl.push_back(ms_between(writes.content[i - 1], writes.content[i]));
    }
  }
  return truth;
}

void expect_same(const char* name, std::vector<double> truth, const Distribution& client) {
  const Distribution server = make_distribution(std::move(truth));
  ASSERT_EQ(client.count(), server.count()) << name;
  for (const double percent : {50.0, 75.0, 90.0, 95.0, 99.0}) {
    const double expected = server.percentile(percent);
    EXPECT_NEAR(client.percentile(percent), expected, std::max(0.01 * expected, 0.2))
        << name << " p" << percent;
  }
}

/// Where it is allowed, the threads of this test go before all others of the machine: they need a
/// hundredth of a processor, and on a busy one every run would be invalid.
class FirstInLine final {
 public:
  FirstInLine() {
    const sched_param first{.sched_priority = 1};
    pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
  }
  ~FirstInLine() {
    const sched_param plain{.sched_priority = 0};
    pthread_setschedparam(pthread_self(), SCHED_OTHER, &plain);
  }
  FirstInLine(const FirstInLine&) = delete;
  FirstInLine& operator=(const FirstInLine&) = delete;
};

TEST(AccuracyTest, PercentilesAreThoseOfTheServersWrites) {
  const FirstInLine priority;  // inherited by the threads of client and server
  for (int attempt = 1; attempt <= kMaxAttempts; ++attempt) {
    const Measured measured = measure();
    const Summary summary = summarize(measured.result);
    ASSERT_EQ(summary.completed, kNumRequests);
    if (summary.is_saturated) {
      std::printf("attempt %d: %s\n", attempt, invalid_reason(summary).c_str());
      continue;
    }
    Truth truth = truth_of(measured);
    expect_same("TTFT", std::move(truth.ttft), summary.ttft_ms);
    expect_same("ITL", std::move(truth.itl), summary.itl_ms);
    expect_same("TPOT", std::move(truth.tpot), summary.tpot_ms);
    expect_same("E2EL", std::move(truth.e2el), summary.e2el_ms);
    return;
  }
  GTEST_SKIP() << "the client declared every run invalid: this machine is too busy to measure on";
}

}  // namespace
}  // namespace tessera::bench
