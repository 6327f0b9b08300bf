// With sliced latents a model split over ranks computes what a double-precision reference of the
// same approximation computes; a prefill worker stores the slices that its ranks would.

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/sharded_fixture.h"
#include "tests/support/tpla_bases.h"
#include "tests/support/tpla_reference.h"

namespace tessera::test {
namespace {

using ::tessera::testing::TplaReference;

enum class Basis { kNone, kHadamard, kOrthogonal, kInvertible };

struct TplaCase {
  std::string model;  ///< "" is the demo model
  int64_t num_ranks = 2;
  int64_t num_slices = 2;
  Basis basis = Basis::kNone;
  /// s of the layers, again from the front where there are more of them; empty: none.
  std::vector<int64_t> shared = {};
  bool has_keys = false;
  kernels::LatentWindow window = {};
};

/// A transform, and what the reference is told of it.
struct Transformed {
  TplaTransform transform;
  std::vector<TplaReference::Layer> reference;
};

Transformed transformed_by(const ModelConfig& config, const TplaCalibration& calibration) {
  return {TplaTransform::create(config, calibration), reference_layers(config, calibration)};
}

Transformed make_transform(const ModelConfig& config, const TplaCase& tpla) {
  if (tpla.basis == Basis::kOrthogonal || tpla.basis == Basis::kInvertible) {
    return transformed_by(
        config,
        make_calibration(config,
                         {.num_slices = tpla.num_slices,
                          .basis = tpla.basis == Basis::kOrthogonal ? BasisKind::kOrthogonal
                                                                    : BasisKind::kInvertible,
                          .shared_columns = shared_columns(config, tpla.shared),
                          .has_keys = tpla.has_keys}));
  }
  Transformed made;
  if (tpla.basis == Basis::kHadamard) {
    made.transform = TplaTransform::hadamard(config, 5).value();
  }
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const auto basis = made.transform.basis(layer);
    TplaReference::Layer& own = made.reference.emplace_back();
    own.logit_factor = static_cast<double>(tpla.num_slices);
    if (!basis.empty()) {
      own.basis = ::tessera::testing::Array({config.kv_lora_rank, config.kv_lora_rank},
                                            std::vector<double>(basis.begin(), basis.end()));
    }
  }
  return made;
}

class TplaShardingTest : public ::testing::TestWithParam<TplaCase> {
 protected:
  TplaShardingTest()
      : folder_(model_folder(GetParam().model)),
        config_(ModelConfig::load(folder_).value()),
        checkpoint_(Checkpoint::open(folder_).value()),
        transformed_(make_transform(config_, GetParam())) {}

  [[nodiscard]] std::unique_ptr<ShardedHarness> load_group(const TplaTransform& transform) const {
    return load({.folder = folder_,
                 .sharding = {.attention = AttentionSharding::kTpla,
                              .num_ranks = GetParam().num_ranks,
                              .num_slices = GetParam().num_slices,
                              .shared_columns = transform.shared_columns(),
                              .window = GetParam().window},
                 .max_tokens = kMaxTokens,
                 .transform = &transform});
  }
  [[nodiscard]] std::unique_ptr<ShardedHarness> load_prefill_worker(int64_t num_ranks) const {
    const ShardOptions sharding{.num_ranks = num_ranks};
    return load({.folder = folder_,
                 .sharding = sharding,
                 .max_tokens = kMaxTokens,
                 .transform = &transformed_.transform,
                 .prefill_slices = GetParam().num_slices,
                 .prefill_shared_columns = transformed_.transform.shared_columns()});
  }

  /// Logits of the last prompt token and of every token behind it.
  [[nodiscard]] Trace expected(const std::vector<int32_t>& ids, int64_t num_prompt) const {
    const auto logits =
        ::tessera::testing::tpla_reference_logits(config_,
                                                  checkpoint_,
                                                  ids,
                                                  {.num_slices = GetParam().num_slices,
                                                   .layers = transformed_.reference,
                                                   .num_prompt_tokens = num_prompt,
                                                   .window = GetParam().window});
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
  const Transformed transformed_;
  int64_t num_prompt_ = 0;
};

TEST_P(TplaShardingTest, EqualsTheReferenceOfTheApproximation) {
  const int64_t slices = GetParam().num_slices;
  const auto prefill_worker = load_prefill_worker(1);
  const auto group = load_group(transformed_.transform);
  ASSERT_TRUE(prefill_worker && group);
  // A decode rank holds s + (R - s) / g latent columns of a layer, and the rope part.
  int64_t row = 0;
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    const int64_t shared = transformed_.reference[static_cast<size_t>(layer)].num_shared;
    row += shared + (config_.kv_lora_rank - shared) / slices + config_.qk_rope_head_dim;
  }
  EXPECT_EQ(group->runner().cache(0).block_bytes(), 64 * row * static_cast<int64_t>(sizeof(float)));
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

// The group's own prefill adds up in the order of its ranks, as a prefill worker of as many does:
// nothing is left to rounding.
TEST_P(TplaShardingTest, APrefillWorkersImagesAreTheRanksOwnBytes) {
  const auto prefill_worker = load_prefill_worker(GetParam().num_ranks);
  const auto group = load_group(transformed_.transform);
  ASSERT_TRUE(prefill_worker && group);
  const std::vector<int32_t> prompt = make_prompt(100, config_.vocab_size);
  static_cast<void>(prefill_worker->prefill(prompt));
  static_cast<void>(group->prefill(prompt));
  for (int rank = 0; rank < group->runner().num_ranks(); ++rank) {
    const int64_t slice = group->runner().weights(rank).plan.slice;
    EXPECT_EQ(group->image_bytes(rank, 0, 100), prefill_worker->image_bytes(0, slice, 100))
        << "rank " << rank;
  }
}

TEST_P(TplaShardingTest, DiffersFromExactAttention) {
  num_prompt_ = 65;
  const std::vector<int32_t> ids = make_prompt(67, config_.vocab_size);
  const auto group = load_group(transformed_.transform);
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
    for (const Basis basis : {Basis::kNone, Basis::kHadamard}) {
      cases.push_back({model, 2, 2, basis});
      cases.push_back({model, 4, 2, basis});
    }
    cases.push_back({model, 2, 2, Basis::kInvertible, {16, 0}});
    cases.push_back({model, 4, 4, Basis::kInvertible, {16, 0}, true});
  }
  // A layer of shared columns and one that is whole on every rank.
  cases.push_back({"v2_attention_bias", 4, 2, Basis::kOrthogonal, {8, 32}});
  cases.push_back({"v3_no_q_lora", 4, 2, Basis::kOrthogonal, {8, 48}});
  cases.push_back({"v2_group_limited", 4, 4, Basis::kNone});
  cases.push_back({"v2_group_limited", 4, 4, Basis::kHadamard});
  cases.push_back({"v2_group_limited", 2, 2, Basis::kInvertible, {32, 0, 24}, true});
  cases.push_back({"", 2, 2, Basis::kHadamard});
  cases.push_back({"", 4, 4, Basis::kNone});
  cases.push_back({"", 2, 2, Basis::kInvertible, {0, 16, 256}, true});
  cases.push_back({"", 4, 4, Basis::kOrthogonal, {32}});
  // Exact windows: last tokens, first and last ones, first ones alone.
  cases.push_back({"v2_attention_bias", 2, 2, Basis::kNone, {}, false, {0, 16}});
  cases.push_back({"v2_attention_bias", 4, 4, Basis::kInvertible, {16, 0}, true, {3, 2}});
  cases.push_back({"v3_no_q_lora", 4, 2, Basis::kOrthogonal, {8, 48}, false, {4, 33}});
  cases.push_back({"v3_dense_tied", 2, 2, Basis::kHadamard, {}, false, {2, 0}});
  cases.push_back({"v2_group_limited", 2, 2, Basis::kInvertible, {32, 0, 24}, true, {0, 1}});
  cases.push_back({"", 2, 2, Basis::kInvertible, {0, 16, 256}, true, {1, 16}});
  return cases;
}

std::string name_of(const TplaCase& c) {
  constexpr const char* kBases[] = {"none", "hadamard", "orthogonal", "invertible"};
  std::string name = (c.model.empty() ? "demo" : c.model) + "_" + std::to_string(c.num_ranks) +
                     "ranks_" + std::to_string(c.num_slices) + "slices_" +
                     kBases[static_cast<int>(c.basis)];
  for (const int64_t shared : c.shared) {
    name += "_" + std::to_string(shared);
  }
  if (!c.window.is_empty()) {
    name +=
        "_window_" + std::to_string(c.window.num_first) + "_" + std::to_string(c.window.num_last);
  }
  return name + (c.has_keys ? "_keys" : "");
}

INSTANTIATE_TEST_SUITE_P(Models,
                         TplaShardingTest,
                         ::testing::ValuesIn(tpla_cases()),
                         [](const auto& test) { return name_of(test.param); });

TEST(PrefillImagesTest, ChunksReadTheImagesOfAllSlices) {
  const std::string folder = demo_model();
  const auto whole = load({.folder = folder, .max_tokens = kMaxTokens});
  ASSERT_TRUE(whole);
  const ModelConfig& config = whole->config();
  const std::vector<int32_t> ids = make_prompt(200, config.vocab_size);
  const std::vector<float> expected = whole->prefill(ids);
  const TplaTransform none;
  const TplaTransform shared = TplaTransform::create(
      config,
      make_calibration(config,
                       {.num_slices = 4, .shared_columns = shared_columns(config, {32, 0, 256})}));
  for (const TplaTransform* transform : {&none, &shared}) {
    for (const int64_t num_ranks : {1, 2}) {
      const ShardOptions sharding{.num_ranks = num_ranks};
      const auto sliced = load({.folder = folder,
                                .sharding = sharding,
                                .max_tokens = kMaxTokens,
                                .transform = transform,
                                .prefill_slices = 4,
                                .prefill_shared_columns = transform->shared_columns()});
      ASSERT_TRUE(sliced);
      std::vector<float> logits = sliced->prefill({ids.begin(), ids.begin() + 90});
      const std::vector<float> rest = sliced->prefill(ids, 90);
      logits.insert(logits.end(), rest.begin(), rest.end());
      EXPECT_LE(max_difference(logits, expected), kTolerance)
          << num_ranks << " ranks, " << transform->name();
    }
  }
}

}  // namespace
}  // namespace tessera::test
