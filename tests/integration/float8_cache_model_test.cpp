// A model with float8 latents in its cache: what a prefill worker stores is, byte by byte, what the
// ranks of a decode group would have stored, so that a handoff changes nothing; and what the model
// says stays near what it says with whole ones.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/latent_row.h"
#include "tests/integration/sharded_fixture.h"
#include "tests/support/tpla_bases.h"

namespace tessera::test {
namespace {

using kernels::DType;

constexpr int64_t kPromptTokens = 100;
/// Nats. Latents are wrong by 2^-5 of themselves on average.
constexpr double kMaxDivergence = 0.02;

struct Case {
  std::string model = {};  ///< "" is the demo model
  AttentionSharding attention = AttentionSharding::kReplicated;
  int64_t num_ranks = 1;
  int64_t num_slices = 1;
  int64_t num_shared = 0;
  DType dtype = DType::kFloat32;
  kernels::LatentWindow window = {};
};

/// Sum over the vocabulary of p log(p / q), of softmaxes.
double divergence(const float* p_logits, const float* q_logits, int64_t count) {
  const auto log_sum = [count](const float* logits) {
    const double largest = *std::max_element(logits, logits + count);
    double sum = 0.0;
    for (int64_t i = 0; i < count; ++i) {
      sum += std::exp(static_cast<double>(logits[i]) - largest);
    }
    return largest + std::log(sum);
  };
  const double p_sum = log_sum(p_logits), q_sum = log_sum(q_logits);
  double result = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const double p = static_cast<double>(p_logits[i]) - p_sum;
    result += std::exp(p) * (p - (static_cast<double>(q_logits[i]) - q_sum));
  }
  return result;
}

class Float8CacheModelTest : public ::testing::TestWithParam<Case> {
 protected:
  Float8CacheModelTest()
      : config_(ModelConfig::load(model_folder(GetParam().model)).value()),
        ids_(make_prompt(kPromptTokens + kNumDecoded, config_.vocab_size)),
        prompt_(ids_.begin(), ids_.begin() + kPromptTokens) {
    if (GetParam().num_slices > 1) {
      const std::vector<int64_t> shared(static_cast<size_t>(config_.num_hidden_layers),
                                        GetParam().num_shared);
      transform_ = TplaTransform::create(config_,
                                         make_calibration(config_,
                                                          {.num_slices = GetParam().num_slices,
                                                           .basis = BasisKind::kOrthogonal,
                                                           .shared_columns = shared}));
    }
  }

  [[nodiscard]] ShardedSetup setup(std::optional<DType> cache_dtype) const {
    return {.folder = model_folder(GetParam().model),
            .max_tokens = kMaxTokens,
            .dtype = GetParam().dtype,
            .transform = &transform_,
            .cache_dtype = cache_dtype};
  }
  [[nodiscard]] std::unique_ptr<ShardedHarness> load_group(std::optional<DType> cache_dtype) const {
    ShardedSetup group = setup(cache_dtype);
    group.sharding = {.attention = GetParam().attention,
                      .num_ranks = GetParam().num_ranks,
                      .num_slices = GetParam().num_slices,
                      .shared_columns = transform_.shared_columns(),
                      .window = GetParam().window};
    return load(group);
  }
  /// Of as many ranks, which add up in the same order.
  [[nodiscard]] std::unique_ptr<ShardedHarness> load_prefill_worker() const {
    ShardedSetup worker = setup(DType::kFloat8E4M3);
    worker.sharding = {.num_ranks = GetParam().num_ranks};
    worker.prefill_slices = GetParam().num_slices;
    worker.prefill_shared_columns = transform_.shared_columns();
    return load(worker);
  }
  static std::unique_ptr<ShardedHarness> load(const ShardedSetup& setup) {
    auto harness = ShardedHarness::load(setup);
    EXPECT_TRUE(harness.is_ok()) << harness.status().to_string();
    return harness.is_ok() ? std::move(harness).value() : nullptr;
  }

  /// Logits of the tokens behind the prompt, whatever the model would choose, one after the other.
  [[nodiscard]] std::vector<float> decode_all(ShardedHarness& group) const {
    std::vector<float> logits;
    for (int64_t i = 1; i <= kNumDecoded; ++i) {
      const auto row = group.decode({ids_.begin(), ids_.begin() + kPromptTokens + i});
      logits.insert(logits.end(), row.begin(), row.end());
    }
    return logits;
  }

  const ModelConfig config_;
  const std::vector<int32_t> ids_;
  const std::vector<int32_t> prompt_;
  TplaTransform transform_;
};

TEST_P(Float8CacheModelTest, DisaggregatedAndOwnPrefillStoreTheSameBytesAndSayTheSame) {
  const auto prefill_worker = load_prefill_worker();
  const auto group = load_group(DType::kFloat8E4M3);
  ASSERT_TRUE(prefill_worker && group);
  const std::vector<float> own_prefill = group->prefill(prompt_);
  const bool is_striped = GetParam().attention == AttentionSharding::kDcp;
  EXPECT_EQ(prefill_worker->prefill(prompt_), own_prefill);
  for (int rank = 0; rank < group->runner().num_ranks() && !is_striped; ++rank) {
    const int64_t slice = group->runner().weights(rank).plan.slice;
    EXPECT_EQ(group->image_bytes(rank, 0, kPromptTokens),
              prefill_worker->image_bytes(0, slice, kPromptTokens))
        << "rank " << rank;
  }
  if (!GetParam().window.is_empty()) {
    return;  // its prompt tokens arrive as float8 rounds them, those of the own prefill are whole
  }
  const std::vector<float> own = decode_all(*group);
  group->poison();
  group->take_cache(*prefill_worker, kPromptTokens);
  EXPECT_EQ(decode_all(*group), own);
}

TEST_P(Float8CacheModelTest, ABlockHasTheBytesOfItsRows) {
  const auto group = load_group(DType::kFloat8E4M3);
  ASSERT_TRUE(group);
  const int64_t shared = GetParam().num_shared;
  const int64_t width = shared + (config_.kv_lora_rank - shared) / GetParam().num_slices;
  const auto row =
      kernels::latent_row_layout(DType::kFloat8E4M3, width, config_.qk_rope_head_dim).row_bytes;
  EXPECT_EQ(group->runner().cache(0).block_bytes(), 64 * config_.num_hidden_layers * row);
}

TEST_P(Float8CacheModelTest, AnswersStayNearThoseOfAWholeCache) {
  const auto whole = load_group(std::nullopt);
  const auto group = load_group(DType::kFloat8E4M3);
  ASSERT_TRUE(whole && group);
  static_cast<void>(whole->prefill(prompt_));
  static_cast<void>(group->prefill(prompt_));
  const std::vector<float> expected = decode_all(*whole);
  const std::vector<float> actual = decode_all(*group);
  ASSERT_EQ(expected.size(), actual.size());
  double mean = 0.0;
  for (int64_t i = 0; i < kNumDecoded; ++i) {
    const int64_t row = i * config_.vocab_size;
    mean += divergence(expected.data() + row, actual.data() + row, config_.vocab_size) /
            static_cast<double>(kNumDecoded);
  }
  EXPECT_LT(mean, kMaxDivergence);
  EXPECT_GT(mean, 0.0) << "the test would show nothing";
  RecordProperty("mean_divergence", std::to_string(mean));
}

std::vector<Case> cases() {
  using enum AttentionSharding;
  return {{.num_ranks = 1},
          {.attention = kDcp, .num_ranks = 2},
          {.attention = kTpla, .num_ranks = 2, .num_slices = 2, .window = {4, 33}},
          {.model = "v2_attention_bias", .attention = kReplicated, .num_ranks = 2},
          {.model = "v2_attention_bias",
           .attention = kTpla,
           .num_ranks = 4,
           .num_slices = 2,
           .num_shared = 8},
          {.model = "v2_attention_bias", .attention = kTpla, .num_ranks = 4, .num_slices = 4},
          {.model = "v3_no_q_lora", .attention = kTpla, .num_ranks = 2, .num_slices = 2},
          {.model = "v3_odd_sizes", .num_ranks = 1}};
}

std::string name_of(const Case& test) {
  return (test.model.empty() ? "demo" : test.model) + "_" +
         std::string(attention_sharding_name(test.attention)) + "_" +
         std::to_string(test.num_ranks) + "ranks_" + std::to_string(test.num_slices) + "slices_" +
         std::to_string(test.num_shared) + "shared" + (test.window.is_empty() ? "" : "_window");
}

INSTANTIATE_TEST_SUITE_P(Models,
                         Float8CacheModelTest,
                         ::testing::ValuesIn(cases()),
                         [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace tessera::test
