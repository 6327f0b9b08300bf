// What a calibration of sliced latents must not change: bases where latents are whole, columns that
// all slices share, turns inside a slice, exact windows.

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/integration/sharded_fixture.h"
#include "tests/support/tpla_bases.h"

namespace tessera::test {
namespace {

/// Rotations fold into the weights; any other basis costs a product, and its inverse folds.
TEST(TplaFoldTest, NoBasisChangesAnythingWhereLatentsAreWhole) {
  for (const char* model : {"", "v2_attention_bias", "v3_no_q_lora", "v3_fp8_blocks"}) {
    const std::string folder = model_folder(model);
    const ModelConfig config = ModelConfig::load(folder).value();
    ShardedSetup setup{.folder = folder, .max_tokens = kMaxTokens};
    const auto plain = load(setup);
    ASSERT_TRUE(plain);
    std::vector<int32_t> ids = make_prompt(100, config.vocab_size);
    const std::vector<float> prefilled = plain->prefill(ids);
    ids.push_back(1);
    const std::vector<float> decoded = plain->decode(ids);
    const TplaTransform transforms[] = {
        TplaTransform::hadamard(config, 11).value(),
        TplaTransform::create(config, make_calibration(config, {.basis = BasisKind::kOrthogonal})),
        TplaTransform::create(config, make_calibration(config, {.basis = BasisKind::kInvertible}))};
    for (const TplaTransform& transform : transforms) {
      for (const auto attention : {AttentionSharding::kReplicated, AttentionSharding::kTpla}) {
        setup.transform = &transform;
        setup.sharding.attention = attention;
        const auto changed = load(setup);
        ASSERT_TRUE(changed);
        const std::string what = std::string(model) + " " + transform.name();
        const std::vector<int32_t> prompt(ids.begin(), ids.end() - 1);
        EXPECT_LE(max_difference(changed->prefill(prompt), prefilled), kTolerance) << what;
        EXPECT_LE(max_difference(changed->decode(ids), decoded), kTolerance) << what;
      }
    }
  }
}

/// Tokens behind a prompt, on a group of some calibration, by the group's own prefill and by a
/// prefill worker's cache.
class CalibratedTest : public ::testing::TestWithParam<const char*> {
 protected:
  CalibratedTest()
      : folder_(model_folder(GetParam())),
        config_(ModelConfig::load(folder_).value()),
        prompt_(make_prompt(90, config_.vocab_size)) {}

  [[nodiscard]] Trace decode_behind_prompt(ShardedHarness& model, std::vector<float> first) const {
    const int64_t vocab = config_.vocab_size;
    Trace trace = {{first.end() - vocab, first.end()}};
    std::vector<int32_t> ids = prompt_;
    for (const int32_t id : {5, 3, 8}) {
      ids.push_back(id);
      trace.push_back(model.decode(ids));
    }
    return trace;
  }
  [[nodiscard]] std::unique_ptr<ShardedHarness> load_group(
      const TplaTransform& transform,
      int64_t num_ranks,
      const kernels::LatentWindow& window = {}) const {
    return load({.folder = folder_,
                 .sharding = {.attention = AttentionSharding::kTpla,
                              .num_ranks = num_ranks,
                              .num_slices = 2,
                              .shared_columns = transform.shared_columns(),
                              .window = window},
                 .max_tokens = kMaxTokens,
                 .transform = &transform});
  }

  const std::string folder_;
  const ModelConfig config_;
  const std::vector<int32_t> prompt_;
};

TEST_P(CalibratedTest, SharingAllColumnsEqualsReplicated) {
  const TplaTransform transform = TplaTransform::create(
      config_,
      make_calibration(config_,
                       {.shared_columns = shared_columns(config_, {config_.kv_lora_rank})}));
  ShardedSetup setup{.folder = folder_, .max_tokens = kMaxTokens};
  const auto one = load(setup);
  setup.transform = &transform;
  setup.prefill_slices = 2;
  setup.prefill_shared_columns = transform.shared_columns();
  const auto prefill_worker = load(setup);
  ASSERT_TRUE(one && prefill_worker);
  const Trace expected = decode_behind_prompt(*one, one->prefill(prompt_));
  for (const int64_t num_ranks : {2, 4}) {
    const auto group = load_group(transform, num_ranks);
    ASSERT_TRUE(group);
    EXPECT_EQ(group->runner().cache(0).block_bytes(), one->runner().cache(0).block_bytes());
    expect_same(decode_behind_prompt(*group, group->prefill(prompt_)), expected, "local");
    group->poison();
    const std::vector<float> first = prefill_worker->prefill(prompt_);
    group->take_cache(*prefill_worker, static_cast<int64_t>(prompt_.size()));
    expect_same(decode_behind_prompt(*group, first), expected, "taken over");
  }
}

TEST_P(CalibratedTest, TurningASlicesColumnsAmongThemselvesChangesNothing) {
  for (const BasisKind basis : {BasisKind::kOrthogonal, BasisKind::kInvertible}) {
    TplaCalibration calibration = make_calibration(
        config_, {.basis = basis, .shared_columns = shared_columns(config_, {16, 0})});
    const TplaTransform plain = TplaTransform::create(config_, calibration);
    rotate_inside_slices(config_, calibration, 3);
    const TplaTransform turned = TplaTransform::create(config_, calibration);
    const auto group = load_group(plain, 2);
    const auto other = load_group(turned, 2);
    ASSERT_TRUE(group && other);
    expect_same(decode_behind_prompt(*other, other->prefill(prompt_)),
                decode_behind_prompt(*group, group->prefill(prompt_)),
                plain.name());
  }
}

TEST_P(CalibratedTest, AWindowLongerThanTheContextEqualsReplicated) {
  const TplaTransform transform =
      TplaTransform::create(config_,
                            make_calibration(config_,
                                             {.basis = BasisKind::kInvertible,
                                              .shared_columns = shared_columns(config_, {16, 0}),
                                              .has_keys = true}));
  ShardedSetup setup{.folder = folder_, .max_tokens = kMaxTokens};
  const auto one = load(setup);
  setup.transform = &transform;
  setup.prefill_slices = 2;
  setup.prefill_shared_columns = transform.shared_columns();
  const auto prefill_worker = load(setup);
  ASSERT_TRUE(one && prefill_worker);
  const Trace expected = decode_behind_prompt(*one, one->prefill(prompt_));
  for (const kernels::LatentWindow window : {kernels::LatentWindow{0, 100}, {200, 0}, {8, 85}}) {
    for (const int64_t num_ranks : {2, 4}) {
      const auto group = load_group(transform, num_ranks, window);
      ASSERT_TRUE(group);
      expect_same(decode_behind_prompt(*group, group->prefill(prompt_)), expected, "local");
      group->poison();
      const std::vector<float> first = prefill_worker->prefill(prompt_);
      group->take_cache(*prefill_worker, static_cast<int64_t>(prompt_.size()));
      expect_same(decode_behind_prompt(*group, first), expected, "taken over");
    }
  }
}

TEST_P(CalibratedTest, AWindowOfLayersThatShareEverythingChangesNothing) {
  const TplaTransform transform = TplaTransform::create(
      config_,
      make_calibration(config_,
                       {.shared_columns = shared_columns(config_, {config_.kv_lora_rank})}));
  const auto plain = load_group(transform, 2);
  const auto group = load_group(transform, 2, {.num_first = 4, .num_last = 16});
  ASSERT_TRUE(plain && group);
  EXPECT_EQ(decode_behind_prompt(*group, group->prefill(prompt_)),
            decode_behind_prompt(*plain, plain->prefill(prompt_)));
}

INSTANTIATE_TEST_SUITE_P(Models,
                         CalibratedTest,
                         ::testing::Values("", "v2_attention_bias", "v3_no_q_lora"),
                         [](const auto& test) {
                           return std::string(*test.param == '\0' ? "demo" : test.param);
                         });

}  // namespace
}  // namespace tessera::test
