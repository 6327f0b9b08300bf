#include "engine/handoff/probe_check.h"

#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/engine/handoff/decode_fixture.h"

namespace tessera::testing {
namespace {

using kernels::ProbeSum;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(ProbeCheckTest, ComparesEachRankAlone) {
  const DecodeLayout layout{.num_ranks = 4, .num_images = 2};
  const std::vector<double> expected = {3.0, -5.0};
  const std::vector<ProbeSum> right = {{3.0, 1e3}, {-5.0, 1e3}, {3.0, 1e3}, {-5.0, 1e3}};
  EXPECT_TRUE(compare_probes(layout, expected, right).is_ok());
  std::vector<ProbeSum> wrong = right;
  wrong[2].sum = -5.0;
  const Status status = compare_probes(layout, expected, wrong);
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("rank 2 is -5, prefill expects 3"), std::string::npos)
      << status.message();
}

TEST(ProbeCheckTest, FaultsThatCancelOutAreFoundAllTheSame) {
  const DecodeLayout layout{.num_ranks = 2, .num_images = 2};
  const std::vector<ProbeSum> swapped = {{-5.0, 1e3}, {3.0, 1e3}};
  EXPECT_FALSE(compare_probes(layout, std::vector<double>{3.0, -5.0}, swapped).is_ok());
}

TEST(ProbeCheckTest, AddsUpRanksThatShareOutBlocks) {
  const DecodeLayout layout{.dealing = DecodeLayout::Dealing::kBlocks, .num_ranks = 2};
  const std::vector<double> expected = {3.0};
  EXPECT_TRUE(
      compare_probes(layout, expected, std::vector<ProbeSum>{{1.0, 9.0}, {2.0, 9.0}}).is_ok());
  const Status status =
      compare_probes(layout, expected, std::vector<ProbeSum>{{1.0, 9.0}, {1.0, 9.0}});
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("ranks 0 to 1 is 2, prefill expects 3"), std::string::npos)
      << status.message();
}

TEST(ProbeCheckTest, ToleratesAnotherOrderOfSummationAndNoMore) {
  const std::vector<double> expected = {1.0};
  EXPECT_TRUE(compare_probes({}, expected, std::vector<ProbeSum>{{1.0 + 1e-6, 1e6}}).is_ok());
  EXPECT_FALSE(compare_probes({}, expected, std::vector<ProbeSum>{{1.0 + 1e-3, 1e6}}).is_ok());
  EXPECT_FALSE(compare_probes({}, expected, std::vector<ProbeSum>{{kNan, kNan}}).is_ok());
  EXPECT_TRUE(compare_probes({}, std::vector<double>{0.0}, std::vector<ProbeSum>{{}}).is_ok());
}

TEST(ProbeCheckTest, OneProbeASliceIsExpected) {
  EXPECT_EQ(
      compare_probes({}, std::vector<double>{1.0, 2.0}, std::vector<ProbeSum>{{1.0, 1.0}}).code(),
      StatusCode::kDataLoss);
}

TEST(ProbeCheckTest, AMismatchEndsTheHandoffOnBothSides) {
  std::vector<int64_t> asked;
  DecodeFixture fixture(
      16, {}, [&](const std::vector<double>& expected, const LandedTokens& landed) {
        asked = {static_cast<int64_t>(landed.block_ids.size()), landed.begin, landed.end};
        return compare_probes({}, expected, std::vector<ProbeSum>{{7.0, 10.0}});
      });
  const auto worker = fixture.greet();
  for (const bool is_right : {true, false}) {
    const HandoffKey key = make_key(is_right ? 1 : 2);
    fixture.hear(worker, DecodeFixture::make_reserve(key));
    const auto sink = fixture.attach(key);
    Seal seal = DecodeFixture::make_seal(key);
    seal.probes = {is_right ? 7.0 : 8.0};
    fixture.hear(worker, std::move(seal));
    fixture.land(key);
    EXPECT_EQ(asked, (std::vector<int64_t>{3, 0, 130}));
    EXPECT_EQ(worker.link->all<Committed>().size(), 1U);
    EXPECT_EQ(sink->num_ends, is_right ? 0 : 1);
    EXPECT_EQ(fixture.metrics.probe_mismatches.value(), is_right ? 0 : 1);
    if (is_right) {
      fixture.host.end_group(*fixture.host.find(key));
      continue;
    }
    EXPECT_EQ(sink->error.code(), StatusCode::kDataLoss);
    ASSERT_EQ(worker.link->all<Aborted>().size(), 1U);
    EXPECT_EQ(worker.link->all<Aborted>()[0].status.code(), StatusCode::kDataLoss);
  }
  EXPECT_TRUE(fixture.is_clean());
}

}  // namespace
}  // namespace tessera::testing
