#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/moe_params.h"
#include "tests/support/reference_ops.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::MoeScoring;
using kernels::MoeTopk;

class MoeTest : public CpuOpsTest {
 protected:
  reference::MoeChoice gate(const Array& logits,
                            const Array& bias,
                            const reference::MoeGate& params) {
    const HostTensor input(DType::kFloat32, logits, 3);
    const HostTensor correction(DType::kFloat32, bias);
    const bool has_bias = !bias.values.empty();
    HostTensor ids(DType::kInt32, std::vector<int64_t>{logits.dim(0), params.top_k}, 2);
    HostTensor weights(DType::kFloat32, std::vector<int64_t>{logits.dim(0), params.top_k}, 1);
    ops().moe_gate({.logits = input.view(),
                    .bias = has_bias ? correction.view() : kernels::ConstTensorView(),
                    .scoring = params.scoring,
                    .topk = params.topk,
                    .num_groups = params.num_groups,
                    .num_kept_groups = params.num_kept_groups,
                    .normalize = params.normalize,
                    .scale = static_cast<float>(params.scale),
                    .expert_ids = ids.view(),
                    .expert_weights = weights.view()},
                   {});
    EXPECT_TRUE(ids.is_padding_untouched());
    EXPECT_TRUE(weights.is_padding_untouched());
    return {ids.to_array(), weights.to_array()};
  }

  void check_gate(int64_t num_experts, const reference::MoeGate& params, bool has_bias) {
    // Distinct scores that stay distinct after float32 rounding, so that ids can be compared.
    Array logits({37, num_experts});
    for (int64_t t = 0; t < 37; ++t) {
      const auto order = random_.permutation(num_experts);
      for (int64_t e = 0; e < num_experts; ++e) {
        logits.at(t, e) = static_cast<float>(order[static_cast<size_t>(e)]) * 0.03F - 1.0F;
      }
    }
    Array bias;
    if (has_bias) {
      bias = HostTensor(DType::kFloat32, random_.array({num_experts}, 0.3)).to_array();
    }
    const auto actual = gate(logits, bias, params);
    const auto expected = reference::moe_gate(logits, bias, params);
    EXPECT_EQ(actual.expert_ids.values, expected.expert_ids.values);
    // exp, a sum of E scores, a sum of k weights and three more roundings.
    expect_close(
        actual.expert_weights,
        expected.expert_weights,
        {.relative = static_cast<double>(num_experts + params.top_k + 8) * kFloat32Rounding});
  }
};

TEST_P(MoeTest, GreedyTakesTheBestScores) {
  for (const MoeScoring scoring : {MoeScoring::kSoftmax, MoeScoring::kSigmoid}) {
    check_gate(1, {.scoring = scoring, .top_k = 1}, false);
    check_gate(7, {.scoring = scoring, .top_k = 3, .scale = 2.5}, false);
    check_gate(64, {.scoring = scoring, .top_k = 6, .normalize = true, .scale = 16.0}, false);
    check_gate(64, {.scoring = scoring, .top_k = 64, .normalize = true}, false);
  }
}

TEST_P(MoeTest, GreedyIgnoresGroups) {
  check_gate(16, {.top_k = 9, .num_groups = 4, .num_kept_groups = 1}, false);
}

TEST_P(MoeTest, GroupLimitedRanksGroupsByTheirBest) {
  const reference::MoeGate params = {.topk = MoeTopk::kGroupLimitedGreedy,
                                     .top_k = 6,
                                     .num_groups = 8,
                                     .num_kept_groups = 3,
                                     .scale = 16.0};
  check_gate(64, params, false);
}

TEST_P(MoeTest, NoauxRanksGroupsByTheirTwoBestAndChoosesWithBias) {
  reference::MoeGate params = {.scoring = MoeScoring::kSigmoid,
                               .topk = MoeTopk::kNoauxTc,
                               .top_k = 8,
                               .num_groups = 8,
                               .num_kept_groups = 4,
                               .normalize = true,
                               .scale = 2.5};
  check_gate(64, params, true);
  params.num_groups = 1;
  params.num_kept_groups = 1;
  check_gate(64, params, true);
  params.num_groups = 8;  // groups of one expert
  params.num_kept_groups = 5;
  params.top_k = 5;
  check_gate(8, params, true);
}

TEST_P(MoeTest, BiasChoosesButDoesNotWeigh) {
  const auto result = gate(Array({1, 3}, {0.0, 0.0, 5.0}),
                           Array({3}, {0.0, 1.0, -1.0}),
                           {.scoring = MoeScoring::kSigmoid, .topk = MoeTopk::kNoauxTc});
  EXPECT_EQ(result.expert_ids.values, std::vector<double>{1.0});
  EXPECT_EQ(result.expert_weights.values, std::vector<double>{0.5});  // sigmoid(0), without bias
}

TEST_P(MoeTest, NegativeBiasDoesNotEmptyAKeptGroup) {
  // Every choice value is negative; experts of dropped groups must still not be chosen.
  const auto result = gate(Array({1, 4}),
                           Array({4}, {-9.0, -8.0, -3.0, -2.0}),
                           {.scoring = MoeScoring::kSigmoid,
                            .topk = MoeTopk::kNoauxTc,
                            .top_k = 2,
                            .num_groups = 2,
                            .num_kept_groups = 1});
  EXPECT_EQ(result.expert_ids.values, (std::vector<double>{3.0, 2.0}));
}

TEST_P(MoeTest, TiesGoToTheLowerId) {
  for (const MoeTopk topk : {MoeTopk::kGreedy, MoeTopk::kGroupLimitedGreedy, MoeTopk::kNoauxTc}) {
    const auto result =
        gate(Array({2, 8}), {}, {.topk = topk, .top_k = 3, .num_groups = 4, .num_kept_groups = 2});
    EXPECT_EQ(result.expert_ids.values, (std::vector<double>{0, 1, 2, 0, 1, 2}));
  }
}

TEST_P(MoeTest, GateSurvivesLargeLogits) {
  const Array logits({1, 3}, {3e38, -3e38, 1e38});
  for (const MoeScoring scoring : {MoeScoring::kSoftmax, MoeScoring::kSigmoid}) {
    const auto result = gate(logits, {}, {.scoring = scoring, .top_k = 1, .normalize = true});
    EXPECT_EQ(result.expert_ids.values, std::vector<double>{0.0});
    EXPECT_EQ(result.expert_weights.values, std::vector<double>{1.0});
  }
}

TEST_P(MoeTest, NormalisedWeightsAddUpToTheScale) {
  const auto result =
      gate(random_.array({20, 16}, 3.0),
           {},
           {.scoring = MoeScoring::kSigmoid, .top_k = 4, .normalize = true, .scale = 2.5});
  for (int64_t t = 0; t < 20; ++t) {
    double sum = 0.0;
    for (int64_t k = 0; k < 4; ++k) {
      sum += result.expert_weights.at(t, k);
    }
    EXPECT_NEAR(sum, 2.5, 2.5 * 8.0 * kFloat32Rounding);
  }
}

TEST_P(MoeTest, PermuteSortsPairsByExpert) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int64_t tokens : {0, 1, 5, 300}) {
      constexpr int64_t kExperts = 9, kTopK = 3, kWidth = 70;
      const HostTensor x(dtype, random_.array({tokens, kWidth}), 2);
      Array choice({tokens, kTopK});
      for (int64_t t = 0; t < tokens; ++t) {
        const auto order = random_.permutation(kExperts - 1);  // the last expert gets no token
        std::copy_n(order.begin(), kTopK, choice.values.begin() + t * kTopK);
      }
      const HostTensor ids(DType::kInt32, choice);
      HostTensor permuted(dtype, std::vector<int64_t>{tokens * kTopK, kWidth});
      HostTensor offsets(DType::kInt32, std::vector<int64_t>{kExperts + 1});
      HostTensor rows(DType::kInt32, std::vector<int64_t>{tokens, kTopK});
      ops().moe_permute({.x = x.view(),
                         .expert_ids = ids.view(),
                         .permuted = permuted.view(),
                         .offsets = offsets.view(),
                         .row_of_pair = rows.view()},
                        {});
      const Array bounds = offsets.to_array();
      EXPECT_EQ(bounds.at(0), 0.0);
      for (int64_t e = 0; e < kExperts; ++e) {
        EXPECT_EQ(bounds.at(e + 1) - bounds.at(e),
                  std::count(choice.values.begin(), choice.values.end(), static_cast<double>(e)));
      }
      std::vector<bool> is_taken(static_cast<size_t>(tokens * kTopK), false);
      std::vector<int32_t> tokens_of_rows(static_cast<size_t>(tokens * kTopK), -1);
      for (int64_t pair = 0; pair < tokens * kTopK; ++pair) {
        const double row = rows.to_array().values[static_cast<size_t>(pair)];
        const double expert = choice.values[static_cast<size_t>(pair)];
        ASSERT_GE(row, bounds.at(expert));
        ASSERT_LT(row, bounds.at(expert + 1));
        ASSERT_FALSE(is_taken[static_cast<size_t>(row)]);
        is_taken[static_cast<size_t>(row)] = true;
        tokens_of_rows[static_cast<size_t>(row)] = static_cast<int32_t>(pair / kTopK);
      }
      EXPECT_EQ(permuted.to_array().values,
                reference::gather_rows(x.to_array(), tokens_of_rows).values);
    }
  }
}

TEST_P(MoeTest, CombineWeighsAndAccumulates) {
  for (const bool accumulate : {false, true}) {
    for (const int64_t tokens : {1, 90}) {
      constexpr int64_t kTopK = 4, kWidth = 75;
      const HostTensor expert_out(DType::kFloat32, random_.array({tokens * kTopK, kWidth}), 1);
      const auto order = random_.permutation(tokens * kTopK);
      const HostTensor rows(
          DType::kInt32, Array({tokens, kTopK}, std::vector<double>(order.begin(), order.end())));
      const HostTensor weights(DType::kFloat32, random_.array({tokens, kTopK}));
      HostTensor out(DType::kFloat32, random_.array({tokens, kWidth}), 3);
      const Array base = accumulate ? out.to_array() : Array({tokens, kWidth});
      if (!accumulate) {
        out = HostTensor(DType::kFloat32, std::vector<int64_t>{tokens, kWidth}, 3);
      }
      ops().moe_combine({.expert_out = expert_out.view(),
                         .row_of_pair = rows.view(),
                         .expert_weights = weights.view(),
                         .accumulate = accumulate,
                         .out = out.view()},
                        {});
      const Array magnitude = reference::moe_combine(
          base.abs(), expert_out.to_array().abs(), rows.to_array(), weights.to_array().abs());
      expect_close(
          out.to_array(),
          reference::moe_combine(base, expert_out.to_array(), rows.to_array(), weights.to_array()),
          {.slack = (kTopK + 1) * kFloat32Rounding, .magnitude = magnitude});
      EXPECT_TRUE(out.is_padding_untouched());
    }
  }
}

TEST_P(MoeTest, CombineSkipsThePairsOfOtherRanks) {
  // Rows 0 to 9 in order of experts; this rank computed rows [3, 7), the others are poisoned.
  constexpr int64_t kTokens = 5, kTopK = 2, kWidth = 33;
  HostTensor expert_out(DType::kFloat32, std::vector<int64_t>{kTokens * kTopK, kWidth});
  const Array computed = random_.array({kTokens * kTopK, kWidth});
  Array known({kTokens * kTopK, kWidth});
  for (int64_t row = 3; row < 7; ++row) {
    for (int64_t j = 0; j < kWidth; ++j) {
      expert_out.view().as<float>()[row * kWidth + j] = static_cast<float>(computed.at(row, j));
      known.at(row, j) = static_cast<double>(static_cast<float>(computed.at(row, j)));
    }
  }
  const auto order = random_.permutation(kTokens * kTopK);
  const HostTensor rows(DType::kInt32,
                        Array({kTokens, kTopK}, std::vector<double>(order.begin(), order.end())));
  const HostTensor weights(DType::kFloat32, random_.array({kTokens, kTopK}));
  const HostTensor offsets(std::vector<int32_t>{0, 3, 3, 7, 10});
  HostTensor out(DType::kFloat32, std::vector<int64_t>{kTokens, kWidth});
  ops().moe_combine({.expert_out = expert_out.view(),
                     .row_of_pair = rows.view(),
                     .expert_weights = weights.view(),
                     .offsets = offsets.view().slice(0, 1, 3),
                     .accumulate = false,
                     .out = out.view()},
                    {});
  const Array none({kTokens, kWidth});
  expect_close(out.to_array(),
               reference::moe_combine(none, known, rows.to_array(), weights.to_array()),
               {.slack = (kTopK + 1) * kFloat32Rounding,
                .magnitude = reference::moe_combine(
                    none, known.abs(), rows.to_array(), weights.to_array().abs())});
}

TESSERA_TEST_THREADS(MoeTest);

}  // namespace
}  // namespace tessera::testing
