// A model split over ranks computes what one rank computes: exactly (to rounding) with replicated
// latents and with striped tokens; with sliced latents what a double-precision reference of the
// same approximation computes.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/model_harness.h"
#include "tests/support/parity_reference.h"
#include "tests/support/sharded_harness.h"
#include "tests/support/tpla_reference.h"

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

struct TplaCase {
  std::string model;  ///< "" is the demo model
  int64_t num_ranks = 2;
  int64_t num_slices = 2;
  bool has_hadamard = false;
};

TplaTransform make_transform(const ModelConfig& config, bool has_hadamard) {
  return has_hadamard ? TplaTransform::hadamard(config, 5).value() : TplaTransform();
}

std::vector<::tessera::testing::Array> bases_of(const TplaTransform& transform,
                                                const ModelConfig& config) {
  std::vector<::tessera::testing::Array> bases;
  for (int64_t layer = 0; layer < config.num_hidden_layers && !transform.is_identity(); ++layer) {
    const auto basis = transform.basis(layer);
    bases.emplace_back(std::vector<int64_t>{config.kv_lora_rank, config.kv_lora_rank},
                       std::vector<double>(basis.begin(), basis.end()));
  }
  return bases;
}

class TplaShardingTest : public ::testing::TestWithParam<TplaCase> {
 protected:
  TplaShardingTest()
      : folder_(GetParam().model.empty() ? demo_model() : parity_model(GetParam().model)),
        config_(ModelConfig::load(folder_).value()),
        checkpoint_(Checkpoint::open(folder_).value()),
        transform_(make_transform(config_, GetParam().has_hadamard)) {}

  /// Logits of the last prompt token and of every token behind it.
  [[nodiscard]] Trace expected(const std::vector<int32_t>& ids, int64_t num_prompt) const {
    const auto logits = ::tessera::testing::tpla_reference_logits(
        config_,
        checkpoint_,
        ids,
        {.num_slices = GetParam().num_slices,
         .logit_factor = static_cast<double>(GetParam().num_slices),
         .bases = bases_of(transform_, config_),
         .num_prompt_tokens = num_prompt});
    Trace trace;
    for (auto t = num_prompt - 1; t < static_cast<int64_t>(ids.size()); ++t) {
      trace.emplace_back(logits.row(t), logits.row(t) + config_.vocab_size);
    }
    return trace;
  }

  /// The decode rows of the tokens behind the prompt, whatever the model would choose.
  [[nodiscard]] Trace decode_forced(ShardedHarness& group,
                                    const std::vector<int32_t>& ids,
                                    const std::vector<float>& first) const {
    const auto num_decoded = static_cast<int64_t>(ids.size()) - num_prompt_;
    Trace trace = {{first.end() - config_.vocab_size, first.end()}};
    for (int64_t i = 1; i <= num_decoded; ++i) {
      trace.push_back(group.decode({ids.begin(), ids.begin() + num_prompt_ + i}));
    }
    return trace;
  }

  const std::string folder_;
  const ModelConfig config_;
  const Checkpoint checkpoint_;
  const TplaTransform transform_;
  int64_t num_prompt_ = 0;
};

TEST_P(TplaShardingTest, EqualsTheReferenceOfTheApproximation) {
  const int64_t slices = GetParam().num_slices;
  const auto prefill_worker = load({.folder = folder_,
                                    .max_tokens = kMaxTokens,
                                    .transform = &transform_,
                                    .prefill_slices = slices});
  const auto group = load({.folder = folder_,
                           .sharding = {.attention = AttentionSharding::kTpla,
                                        .num_ranks = GetParam().num_ranks,
                                        .num_slices = slices},
                           .max_tokens = kMaxTokens,
                           .transform = &transform_});
  ASSERT_TRUE(prefill_worker && group);
  // A decode rank holds (R / g + dr) / (R + dr) of the latents' bytes.
  const int64_t row = (config_.kv_lora_rank / slices + config_.qk_rope_head_dim) *
                      static_cast<int64_t>(sizeof(float));
  EXPECT_EQ(group->runner().cache(0).block_bytes(), 64 * config_.num_hidden_layers * row);
  const auto lengths = GetParam().model.empty() ? std::vector<int64_t>{65}
                                                : std::vector<int64_t>{1, 63, 64, 65, 130};
  for (const int64_t length : lengths) {
    num_prompt_ = length;
    const std::vector<int32_t> ids = make_prompt(length + 4, config_.vocab_size);
    const std::vector<int32_t> prompt(ids.begin(), ids.begin() + length);
    const Trace reference = expected(ids, length);
    const std::string what = std::to_string(length) + " tokens";
    prefill_worker->poison();
    const std::vector<float> first = prefill_worker->prefill(prompt);
    group->poison();
    group->take_cache(*prefill_worker, length);
    expect_same(decode_forced(*group, ids, first), reference, "taken over, " + what);
    group->poison();
    expect_same(decode_forced(*group, ids, group->prefill(prompt)), reference, "local, " + what);
  }
}

TEST_P(TplaShardingTest, DiffersFromExactAttention) {
  num_prompt_ = 65;
  const std::vector<int32_t> ids = make_prompt(67, config_.vocab_size);
  const auto group = load({.folder = folder_,
                           .sharding = {.attention = AttentionSharding::kTpla,
                                        .num_ranks = GetParam().num_ranks,
                                        .num_slices = GetParam().num_slices},
                           .max_tokens = kMaxTokens,
                           .transform = &transform_});
  const auto one = load({.folder = folder_, .max_tokens = kMaxTokens});
  ASSERT_TRUE(group && one);
  const std::vector<int32_t> prompt(ids.begin(), ids.begin() + num_prompt_);
  const Trace sliced = decode_forced(*group, ids, group->prefill(prompt));
  const Trace exact = decode_forced(*one, ids, one->prefill(prompt));
  EXPECT_LE(max_difference(sliced[0], exact[0]), kTolerance) << "prefill is exact";
  EXPECT_GT(max_difference(sliced[1], exact[1]), kTolerance) << "the test would show nothing";
}

std::vector<TplaCase> tpla_cases() {
  std::vector<TplaCase> cases;
  for (const char* model : {"v2_attention_bias", "v3_no_q_lora", "v3_dense_tied"}) {
    for (const bool has_hadamard : {false, true}) {
      cases.push_back({model, 2, 2, has_hadamard});
      cases.push_back({model, 4, 2, has_hadamard});
    }
  }
  cases.push_back({"v2_group_limited", 4, 4, false});
  cases.push_back({"v2_group_limited", 4, 4, true});
  cases.push_back({"", 2, 2, true});
  cases.push_back({"", 4, 4, false});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(
    Models, TplaShardingTest, ::testing::ValuesIn(tpla_cases()), [](const auto& test) {
      const TplaCase& c = test.param;
      return (c.model.empty() ? "demo" : c.model) + "_" + std::to_string(c.num_ranks) + "ranks_" +
             std::to_string(c.num_slices) + "slices_" + (c.has_hadamard ? "hadamard" : "none");
    });

TEST(TplaFoldTest, ARotationChangesNothingWhereLatentsAreWhole) {
  for (const char* model : {"", "v2_attention_bias", "v3_no_q_lora", "v3_fp8_blocks"}) {
    const std::string folder = *model == '\0' ? demo_model() : parity_model(model);
    const ModelConfig config = ModelConfig::load(folder).value();
    const TplaTransform transform = TplaTransform::hadamard(config, 11).value();
    const auto plain = load({.folder = folder, .max_tokens = kMaxTokens});
    const auto rotated =
        load({.folder = folder, .max_tokens = kMaxTokens, .transform = &transform});
    ASSERT_TRUE(plain && rotated);
    std::vector<int32_t> ids = make_prompt(100, config.vocab_size);
    EXPECT_LE(max_difference(rotated->prefill(ids), plain->prefill(ids)), kTolerance) << model;
    ids.push_back(1);
    EXPECT_LE(max_difference(rotated->decode(ids), plain->decode(ids)), kTolerance) << model;
  }
}

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

TEST(PrefillImagesTest, ChunksReadTheImagesOfAllSlices) {
  const std::string folder = demo_model();
  const auto whole = load({.folder = folder, .max_tokens = kMaxTokens});
  for (const int64_t num_ranks : {1, 2}) {
    const auto sliced = load({.folder = folder,
                              .sharding = {.num_ranks = num_ranks},
                              .max_tokens = kMaxTokens,
                              .prefill_slices = 4});
    ASSERT_TRUE(whole && sliced);
    const std::vector<int32_t> ids = make_prompt(200, whole->config().vocab_size);
    const std::vector<float> expected = whole->prefill(ids);
    std::vector<float> logits = sliced->prefill({ids.begin(), ids.begin() + 90});
    const std::vector<float> rest = sliced->prefill(ids, 90);
    logits.insert(logits.end(), rest.begin(), rest.end());
    EXPECT_LE(max_difference(logits, expected), kTolerance) << num_ranks << " ranks";
  }
}

}  // namespace
}  // namespace tessera::test
