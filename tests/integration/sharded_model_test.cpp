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
#include "tests/support/tpla_bases.h"
#include "tests/support/tpla_reference.h"

namespace tessera::test {
namespace {

using ::tessera::testing::TplaReference;

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

std::vector<int64_t> shared_columns(const ModelConfig& config, const std::vector<int64_t>& shared) {
  std::vector<int64_t> all;
  for (size_t layer = 0;
       !shared.empty() && all.size() < static_cast<size_t>(config.num_hidden_layers);
       ++layer) {
    all.push_back(shared[layer % shared.size()]);
  }
  return all;
}

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
      : folder_(GetParam().model.empty() ? demo_model() : parity_model(GetParam().model)),
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

/// Rotations fold into the weights; any other basis costs a product, and its inverse folds.
TEST(TplaFoldTest, NoBasisChangesAnythingWhereLatentsAreWhole) {
  for (const char* model : {"", "v2_attention_bias", "v3_no_q_lora", "v3_fp8_blocks"}) {
    const std::string folder = *model == '\0' ? demo_model() : parity_model(model);
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
      : folder_(*GetParam() == '\0' ? demo_model() : parity_model(GetParam())),
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
