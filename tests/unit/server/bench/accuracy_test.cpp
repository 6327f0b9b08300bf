// The client's percentiles against those of a server that plays a known distribution and stamps
// what it really does: when it has each request and when it writes each event, on the same clock.
// So it does not matter how late the machine lets the server be, and what is judged is the client
// alone. A round in which the machine held the client up is measured again, a few times.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/base/text.h"
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
constexpr double kRate = 150.0;
constexpr size_t kTokens = 16;
constexpr int kMaxRounds = 5;

// What the client promises: within this share, or these milliseconds where they are more.
constexpr double kTolerance = 0.01;
constexpr double kToleranceMs = 0.2;

double ms_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

/// First token after 60 ms and an exponential tail of 100 ms, gaps of 10 ms and a tail of 30 ms.
std::vector<double> draw_delays(int64_t index) {
  std::mt19937_64 random(static_cast<uint64_t>(index));
  std::exponential_distribution<double> tail(1.0);
  std::vector<double> delays;
  for (size_t i = 0; i < kTokens; ++i) {
    delays.push_back(i == 0 ? 60.0 + 100.0 * tail(random) : 10.0 + 30.0 * tail(random));
  }
  return delays;
}

/// Samples by the name of their figure, in milliseconds.
using Figures = std::map<std::string, Distribution>;

struct Round {
  Figures client;
  Figures server;
  std::string invalid;  ///< what the client says of the round; "": nothing
};

Figures figures_of(const Summary& summary) {
  return {{"TTFT", summary.ttft_ms},
          {"ITL", summary.itl_ms},
          {"TPOT", summary.tpot_ms},
          {"E2EL", summary.e2el_ms}};
}

/// From the times at which the server got requests and wrote events.
Figures figures_of(const std::vector<FakeWrites>& answers) {
  std::vector<double> ttft, itl, tpot, e2el;
  for (const FakeWrites& answer : answers) {
    if (answer.index < 0) {
      continue;  // the look at the models
    }
    ttft.push_back(ms_between(answer.received, answer.content.front()));
    e2el.push_back(ms_between(answer.received, answer.content.back()));
    tpot.push_back((e2el.back() - ttft.back()) / (kTokens - 1));
    for (size_t i = 1; i < answer.content.size(); ++i) {
      itl.push_back(ms_between(answer.content[i - 1], answer.content[i]));
    }
  }
  return {{"TTFT", make_distribution(std::move(ttft))},
          {"ITL", make_distribution(std::move(itl))},
          {"TPOT", make_distribution(std::move(tpot))},
          {"E2EL", make_distribution(std::move(e2el))}};
}

Round measure() {
  FakeSseServer server(
      [](const FakeRequest& request) { return chat_answer(draw_delays(request.index)); });
  BenchSettings settings = testing::chat_settings(server.url(), kNumRequests);
  settings.arrivals = {.kind = ArrivalKind::kPoisson, .rate = kRate};
  settings.max_concurrency = 0;
  settings.data.output_tokens = kTokens;
  const LoadResult result = testing::run_blocking(settings);
  const Summary summary = summarize(result);
  return {.client = figures_of(summary),
          .server = figures_of(server.stop()),
          .invalid = invalid_reason(result, summary)};
}

/// What a figure of the client's has wrong, a line each.
std::vector<std::string> faults_of(const std::string& name,
                                   const Distribution& client,
                                   const Distribution& server) {
  if (client.count() != server.count()) {
    return {str_cat(name, ": ", client.count(), " samples, not ", server.count())};
  }
  std::vector<std::string> faults;
  for (const double percent : {50.0, 75.0, 90.0, 95.0, 99.0}) {
    const double expected = server.percentile(percent);
    const double measured = client.percentile(percent);
    if (std::abs(measured - expected) > std::max(kTolerance * expected, kToleranceMs)) {
      faults.push_back(
          str_cat(name, " p", percent, ": ", measured, " ms, the server's is ", expected));
    }
  }
  return faults;
}

std::vector<std::string> faults_of(const Round& round) {
  std::vector<std::string> faults;
  for (const auto& [name, server] : round.server) {
    const std::vector<std::string> found = faults_of(name, round.client.at(name), server);
    faults.insert(faults.end(), found.begin(), found.end());
  }
  return faults;
}

Round measure_until_right() {
  Round round = measure();
  for (int number = 1; number < kMaxRounds && !faults_of(round).empty(); ++number) {
    std::printf("round %d: %s\n", number, round.invalid.c_str());
    for (const std::string& fault : faults_of(round)) {
      std::printf("  %s\n", fault.c_str());
    }
    round = measure();
  }
  return round;
}

/// The first round in which the client is right, or else the last of kMaxRounds.
const Round& judged_round() {
  static const Round judged = measure_until_right();
  return judged;
}

TEST(AccuracyTest, ServerPlaysTheKnownDistribution) {
  std::vector<double> ttft, e2el;
  for (int64_t index = 0; index < kNumRequests; ++index) {
    const std::vector<double> delays = draw_delays(index);
    ttft.push_back(delays.front());
    e2el.push_back(std::accumulate(delays.begin(), delays.end(), 0.0));
  }
  const Distribution known_ttft = make_distribution(std::move(ttft));
  const Distribution known_e2el = make_distribution(std::move(e2el));
  for (const double percent : {50.0, 75.0, 90.0, 95.0, 99.0}) {  // a busy machine makes it late
    EXPECT_GE(judged_round().server.at("TTFT").percentile(percent),
              known_ttft.percentile(percent) - kToleranceMs);
    EXPECT_GE(judged_round().server.at("E2EL").percentile(percent),
              known_e2el.percentile(percent) - kToleranceMs);
  }
}

TEST(AccuracyTest, PercentilesAreThoseOfTheServersWrites) {
  EXPECT_EQ(judged_round().server.at("TTFT").count(), kNumRequests);
  EXPECT_EQ(faults_of(judged_round()), std::vector<std::string>())
      << "off in each of " << kMaxRounds << " rounds; the client says: " << judged_round().invalid;
}

/// What this test is worth: the figures of the same round, made wrong.
TEST(AccuracyTest, ClientThatIsOffByAPercentAndHalfAMillisecondIsFound) {
  for (const auto& [name, figure] : judged_round().client) {
    Distribution late = figure;
    Distribution early = figure;
    std::transform(late.sorted.begin(), late.sorted.end(), late.sorted.begin(), [](double sample) {
      return 1.01 * sample + 0.5;
    });
    std::transform(
        early.sorted.begin(), early.sorted.end(), early.sorted.begin(), [](double sample) {
          return 0.99 * sample - 0.5;
        });
    EXPECT_FALSE(faults_of(name, late, judged_round().server.at(name)).empty()) << name;
    EXPECT_FALSE(faults_of(name, early, judged_round().server.at(name)).empty()) << name;
  }
}

TEST(AccuracyTest, LostSampleIsFound) {
  Distribution off = judged_round().client.at("ITL");
  off.sorted.pop_back();
  EXPECT_FALSE(faults_of("ITL", off, judged_round().server.at("ITL")).empty());
}

}  // namespace
}  // namespace tessera::bench
