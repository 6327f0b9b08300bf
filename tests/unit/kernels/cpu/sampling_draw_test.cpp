// What random draws yield: the right set, the right distribution, and the same token again.

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cpu/cpu_backend.h"
#include "tests/unit/kernels/cpu/sampling_fixture.h"

namespace tessera::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class SamplingDrawTest : public SamplingTest {
 protected:
  /// Draws `kDraws` tokens: none outside of the reference's set, every one inside it, in numbers
  /// that fit its probabilities.
  void check_distribution(const Array& logits, const reference::Sampling& params) {
    const auto expected = reference::sampling_probabilities(logits.rows(0, 1).values, params);
    std::vector<int64_t> counts(expected.size(), 0);
    for (const double token : draw(logits, params, kDraws).token_ids.values) {
      ++counts[static_cast<size_t>(token)];
    }
    double chi_square = 0.0;
    double num_cells = 0.0;
    for (size_t i = 0; i < expected.size(); ++i) {
      if (expected[i] == 0.0) {
        EXPECT_EQ(counts[i], 0) << "token " << i << " is outside of the set";
        continue;
      }
      const double mean = expected[i] * kDraws;
      ASSERT_GT(mean, 10.0) << "the test wants probabilities that show in the draws";
      EXPECT_GT(counts[i], 0) << "token " << i << " is inside the set";
      chi_square +=
          (static_cast<double>(counts[i]) - mean) * (static_cast<double>(counts[i]) - mean) / mean;
      num_cells += 1.0;
    }
    // Mean f and variance 2 f with f degrees of freedom: five standard deviations, and room for
    // the tail when f is small.
    const double freedom = num_cells - 1.0;
    EXPECT_LE(chi_square, freedom + 5.0 * std::sqrt(2.0 * freedom) + 5.0);
  }

  static constexpr uint32_t kDraws = 10'000;
  /// Twelve tokens with clearly different probabilities, out of order.
  const Array logits_{{1, 12}, {0.0, 1.3, -0.7, 2.0, 0.4, -1.1, 1.7, -0.4, 0.9, -1.9, 0.6, -1.5}};
};

TEST_P(SamplingDrawTest, FollowsTheSoftmax) {
  check_distribution(logits_, {});
}

TEST_P(SamplingDrawTest, FollowsTheTemperature) {
  check_distribution(logits_, {.temperature = 2.0});
  check_distribution(logits_, {.temperature = 0.7});
}

TEST_P(SamplingDrawTest, TopKKeepsTheBestK) {
  for (const int64_t top_k : {1, 2, 5, 11, 12, 500}) {
    check_distribution(logits_, {.top_k = top_k});
  }
}

TEST_P(SamplingDrawTest, TopPKeepsTheSmallestSetThatReachesIt) {
  for (const double top_p : {1e-6, 0.2, 0.31, 0.5, 0.77, 0.93, 0.999}) {
    check_distribution(logits_, {.top_p = top_p});
  }
}

TEST_P(SamplingDrawTest, MinPKeepsWhatIsNearTheBest) {
  for (const double min_p : {0.05, 0.3, 0.72, 0.8, 1.0}) {
    check_distribution(logits_, {.min_p = min_p});
  }
}

TEST_P(SamplingDrawTest, LimitsActInOrder) {
  check_distribution(logits_, {.temperature = 0.8, .top_k = 8, .top_p = 0.8, .min_p = 0.1});
  check_distribution(logits_, {.top_k = 4, .top_p = 0.6});
}

TEST_P(SamplingDrawTest, MinPDoesNotChangeWhatTopPKeeps) {
  // Probabilities 0.50, 0.16, 0.14, 0.10, 0.10. Top-p 0.79 keeps three; min-p 0.25 alone would keep
  // three. Were min-p first, top-p would act on 0.80 and keep two.
  const Array logits(
      {1, 5}, {std::log(0.50), std::log(0.16), std::log(0.14), std::log(0.10), std::log(0.10)});
  check_distribution(logits, {.top_p = 0.79, .min_p = 0.25});
}

TEST_P(SamplingDrawTest, PenaltiesAndBiasComeFirst) {
  check_distribution(logits_,
                     {.top_k = 6,
                      .repetition_penalty = 1.3,
                      .presence_penalty = 0.4,
                      .frequency_penalty = 0.2,
                      .history_ids = {3, 6, 9},
                      .history_counts = {2, 0, 1},
                      .bias_ids = {1, 4},
                      .bias_values = {-kInfinity, 1.0}});
}

TEST_P(SamplingDrawTest, DrawsFromALargeVocabulary) {
  // 3000 tokens of which top-p keeps more than the 256 that are sorted first.
  Array logits({1, 3000});
  for (size_t i = 0; i < 3000; ++i) {
    logits.values[i] = static_cast<float>(static_cast<double>(i * 7919 % 3000) * -1e-3);
  }
  const reference::Sampling params = {.top_p = 0.5};
  const auto expected = reference::sampling_probabilities(logits.values, params);
  for (const double token : draw(logits, params, 300).token_ids.values) {
    ASSERT_GT(expected[static_cast<size_t>(token)], 0.0);
  }
}

TEST_P(SamplingDrawTest, TinyTemperatureIsNearlyGreedy) {
  for (const double temperature : {1e-3, 1e-10, 1e-38, 1e-44}) {
    for (const double token : draw(logits_, {.temperature = temperature}, 20).token_ids.values) {
      ASSERT_EQ(token, 3.0) << "temperature " << temperature;
    }
  }
}

TEST_P(SamplingDrawTest, HugeLogitsStayInTheVocabulary) {
  const Array logits({1, 4}, {3e38, -3e38, 3e38, -kInfinity});
  for (const double token : draw(logits, {.temperature = 0.5}, 200).token_ids.values) {
    ASSERT_TRUE(token == 0.0 || token == 2.0) << token;
  }
}

TEST_P(SamplingDrawTest, AChoiceDoesNotDependOnItsBatch) {
  const Array logits = random_.array({3, 100}, 3.0);
  std::vector<SampleRequest> requests;
  for (uint32_t i = 0; i < 60; ++i) {
    requests.push_back({.params = {.top_k = static_cast<int64_t>(i % 3) * 10, .top_p = 0.95},
                        .logits_row = static_cast<int32_t>(i % 3),
                        .seed = i / 7,
                        .choice = i % 4,
                        .position = i});
  }
  const SampleResult together = sample(logits, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(sample(logits, {requests[i]}).token_ids.at(0), together.token_ids.at(i));
  }
}

TEST_P(SamplingDrawTest, ChoicesOfOnePromptDiffer) {
  std::vector<SampleRequest> requests;
  for (uint32_t choice = 0; choice < 40; ++choice) {
    requests.push_back({.choice = choice});
  }
  const auto tokens = sample(logits_, requests).token_ids.values;
  EXPECT_NE(tokens, std::vector<double>(40, tokens[0]));
}

TEST_P(SamplingDrawTest, EveryThreadCountDrawsTheSameTokens) {
  const auto mine = draw(logits_, {.top_p = 0.9}, 300).token_ids.values;
  backend_ = kernels::cpu::create_cpu_backend(1);
  EXPECT_EQ(draw(logits_, {.top_p = 0.9}, 300).token_ids.values, mine);
}

TEST_P(SamplingDrawTest, NothingToSample) {
  EXPECT_TRUE(sample(logits_, {}).token_ids.values.empty());
}

TESSERA_TEST_THREADS(SamplingDrawTest);

}  // namespace
}  // namespace tessera::testing
