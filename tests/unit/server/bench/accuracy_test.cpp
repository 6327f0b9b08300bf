// The client's percentiles against those of a server that plays a known distribution and stamps
// what it really does: when it has each request and when it writes each event, on the same clock.
// So it does not matter how late the machine lets the server be, and what is judged is the client
// alone. A round in which the machine held the client up is measured again, a few times.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
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
  const Summary summary = summarize(testing::run_blocking(settings));
  return {.client = figures_of(summary),
          .server = figures_of(server.stop()),
          .invalid = summary.is_saturated ? invalid_reason(summary) : ""};
}

/// What the client has wrong, a line each.
std::vector<std::string> faults_of(const Figures& client, const Figures& server) {
  std::vector<std::string> faults;
  for (const auto& [name, truth] : server) {
    const Distribution& found = client.at(name);
    if (found.count() != truth.count()) {
      faults.push_back(str_cat(name, ": ", found.count(), " samples, not ", truth.count()));
      continue;
    }
    for (const double percent : {50.0, 75.0, 90.0, 95.0, 99.0}) {
      const double expected = truth.percentile(percent);
      const double measured = found.percentile(percent);
      if (std::abs(measured - expected) > std::max(kTolerance * expected, kToleranceMs)) {
        faults.push_back(
            str_cat(name, " p", percent, ": ", measured, " ms, the server's is ", expected));
      }
    }
  }
  return faults;
}

/// Rounds are measured until the client is right in one, and no more than kMaxRounds.
class AccuracyTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    for (int number = 1; number <= kMaxRounds; ++number) {
      round_ = std::make_unique<Round>(measure());
      const std::vector<std::string> faults = faults_of(round_->client, round_->server);
      if (faults.empty()) {
        return;
      }
      std::printf("round %d: %s\n", number, round_->invalid.c_str());
      for (const std::string& fault : faults) {
        std::printf("  %s\n", fault.c_str());
      }
    }
  }
  static void TearDownTestSuite() { round_.reset(); }

  static inline std::unique_ptr<Round> round_;
};

TEST_F(AccuracyTest, PercentilesAreThoseOfTheServersWrites) {
  EXPECT_EQ(round_->server.at("TTFT").count(), kNumRequests);
  EXPECT_EQ(faults_of(round_->client, round_->server), std::vector<std::string>())
      << "off in each of " << kMaxRounds << " rounds";
}

/// What this test is worth: of the same round, one figure is made wrong at a time.
TEST_F(AccuracyTest, ClientThatIsOffByAPercentAndHalfAMillisecondIsFound) {
  for (const auto& [name, figure] : round_->client) {
    for (const double sign : {1.0, -1.0}) {
      Figures off = round_->client;
      for (double& sample : off.at(name).sorted) {
        sample += sign * (0.01 * sample + 0.5);
      }
      const std::vector<std::string> faults = faults_of(off, round_->server);
      ASSERT_FALSE(faults.empty()) << name << ", direction " << sign;
      EXPECT_TRUE(faults.front().starts_with(name)) << faults.front();
    }
  }
}

TEST_F(AccuracyTest, LostSampleIsFound) {
  Figures off = round_->client;
  off.at("ITL").sorted.pop_back();
  EXPECT_FALSE(faults_of(off, round_->server).empty());
}

}  // namespace
}  // namespace tessera::bench
