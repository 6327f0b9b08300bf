// A model split over ranks computes what one rank computes: exactly (to rounding) with replicated
// latents and with striped tokens.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/model_harness.h"
#include "tests/support/parity_reference.h"
#include "tests/support/sharded_harness.h"

namespace tessera::test {
namespace {

/// float32 sums in another order: the issue is a wrong term, not rounding.
constexpr double kTolerance = 2e-3;
constexpr int64_t kNumDecoded = 6;
constexpr int64_t kMaxTokens = 256;

double max_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = difference <= worst ? worst : std::isnan(difference) ? INFINITY : difference;
  }
  return worst;
}

std::string demo_model() {
  return std::string(TESSERA_SOURCE_DIR) + "/configs/demo_model";
}
std::string parity_model(const std::string& name) {
  return std::string(TESSERA_SOURCE_DIR) + "/tests/data/parity/models/" + name;
}

std::unique_ptr<ShardedHarness> load(const ShardedSetup& setup) {
  auto harness = ShardedHarness::load(setup);
  EXPECT_TRUE(harness.is_ok()) << harness.status().to_string();
  return harness.is_ok() ? std::move(harness).value() : nullptr;
}

std::vector<int32_t> make_prompt(int64_t length, int64_t vocab_size) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < length; ++i) {
    ids.push_back(static_cast<int32_t>((i * i * 31 + i * 7 + 3) % vocab_size));
  }
  return ids;
}

/// The last prompt token's logits, then those of each decoded token.
using Trace = std::vector<std::vector<float>>;

/// Greedy tokens behind the prompt: of the first logits on, appended to `ids`.
Trace decode_all(ShardedHarness& model, std::vector<int32_t>& ids, std::vector<float> first) {
  const int64_t vocab = model.config().vocab_size;
  Trace trace = {{first.end() - vocab, first.end()}};
  for (int64_t i = 0; i < kNumDecoded; ++i) {
    ids.push_back(argmax(trace.back().data(), vocab));
    trace.push_back(model.decode(ids));
  }
  return trace;
}

void expect_same(const Trace& actual, const Trace& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_LE(max_difference(actual[i], expected[i]), kTolerance) << what << ", step " << i;
  }
}

struct ExactCase {
  std::string model;  ///< "" is the demo model
  AttentionSharding attention = AttentionSharding::kReplicated;
  int64_t num_ranks = 1;
};

class ExactShardingTest : public ::testing::TestWithParam<ExactCase> {
 protected:
  static std::string folder() {
    return GetParam().model.empty() ? demo_model() : parity_model(GetParam().model);
  }
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

}  // namespace
}  // namespace tessera::test
