// A model split over ranks computes what one rank computes, to rounding, with replicated latents
// and with striped tokens; in bfloat16 it stays near float32 in every mode.

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/sharded_fixture.h"

namespace tessera::test {
namespace {

struct ExactCase {
  std::string model;  ///< "" is the demo model
  AttentionSharding attention = AttentionSharding::kReplicated;
  int64_t num_ranks = 1;
};

class ExactShardingTest : public ::testing::TestWithParam<ExactCase> {
 protected:
  static std::string folder() { return model_folder(GetParam().model); }
};

TEST_P(ExactShardingTest, EqualsOneRank) {
  const ShardOptions sharding{.attention = GetParam().attention, .num_ranks = GetParam().num_ranks};
  const auto one = load({.folder = folder(), .max_tokens = kMaxTokens});
  const auto local = load({.folder = folder(), .sharding = sharding, .max_tokens = kMaxTokens});
  ASSERT_TRUE(one && local);
  for (const int64_t length : {1, 63, 64, 65, 200}) {
    const std::string what = std::to_string(length) + " tokens";
    const std::vector<int32_t> prompt = make_prompt(length, one->config().vocab_size);
    one->poison();
    std::vector<int32_t> expected_ids = prompt;
    const Trace expected = decode_all(*one, expected_ids, one->prefill(prompt));

    local->poison();
    std::vector<int32_t> ids = prompt;
    expect_same(decode_all(*local, ids, local->prefill(prompt)), expected, "local, " + what);
    EXPECT_EQ(ids, expected_ids) << "local, " << what;

    // The same with the cache of a prefill worker.
    one->poison();
    const std::vector<float> first = one->prefill(prompt);
    local->poison();
    local->take_cache(*one, length);
    ids = prompt;
    expect_same(decode_all(*local, ids, first), expected, "taken over, " + what);
    EXPECT_EQ(ids, expected_ids) << "taken over, " << what;
  }
}

std::vector<ExactCase> exact_cases() {
  std::vector<ExactCase> cases;
  for (const char* model : {"", "v2_attention_bias", "v2_lite", "v3_no_q_lora", "v3_dense_tied"}) {
    for (const int64_t num_ranks : {2, 4}) {
      for (const auto attention : {AttentionSharding::kReplicated, AttentionSharding::kDcp}) {
        cases.push_back({model, attention, num_ranks});
      }
    }
  }
  cases.push_back({"v3_fp8_blocks", AttentionSharding::kDcp, 3});
  cases.push_back({"v3_odd_sizes", AttentionSharding::kReplicated, 5});
  cases.push_back({"", AttentionSharding::kTpla, 2});  // one slice: heads split, nothing else
  cases.push_back({"", AttentionSharding::kDcp, 1});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Models,
                         ExactShardingTest,
                         ::testing::ValuesIn(exact_cases()),
                         [](const auto& test) {
                           const ExactCase& c = test.param;
                           return (c.model.empty() ? "demo" : c.model) + "_" +
                                  std::string(attention_sharding_name(c.attention)) + "_" +
                                  std::to_string(c.num_ranks) + "ranks";
                         });

/// |a - b| / |b|, Euclidean.
double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    error += difference * difference;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(error / norm);
}

TEST(Bfloat16ShardingTest, StaysNearFloat32) {
  for (const ShardOptions& sharding :
       {ShardOptions{.num_ranks = 2},
        ShardOptions{.attention = AttentionSharding::kDcp, .num_ranks = 2},
        ShardOptions{.attention = AttentionSharding::kTpla, .num_ranks = 2, .num_slices = 2}}) {
    const ShardedSetup setup{
        .folder = demo_model(), .sharding = sharding, .max_tokens = kMaxTokens};
    ShardedSetup rounded = setup;
    rounded.dtype = kernels::DType::kBFloat16;
    const auto exact = load(setup);
    const auto half = load(rounded);
    ASSERT_TRUE(exact && half);
    std::vector<int32_t> ids = make_prompt(100, exact->config().vocab_size);
    // The bound of a whole model in tests/data/parity.
    const auto name = attention_sharding_name(sharding.attention);
    EXPECT_LE(relative_difference(half->prefill(ids), exact->prefill(ids)), 0.02) << name;
    for (int i = 0; i < 3; ++i) {
      ids.push_back(7 * i + 2);
      EXPECT_LE(relative_difference(half->decode(ids), exact->decode(ids)), 0.02) << name;
    }
  }
}

}  // namespace
}  // namespace tessera::test
