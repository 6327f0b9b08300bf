#include "engine/calibration/budget_search.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tessera {
namespace {

using Layers = std::vector<std::vector<BudgetCandidate>>;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Total {
  int64_t cost = 0;
  double harm = 0.0;
};

Total total_of(const Layers& layers, const std::vector<int64_t>& choice) {
  Total total;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const BudgetCandidate& candidate = layers[layer][static_cast<size_t>(choice[layer])];
    total.cost += candidate.cost;
    total.harm += candidate.harm;
  }
  return total;
}

/// Least harm over all combinations within the budget; negative when there is none.
double brute_force(const Layers& layers, int64_t budget) {
  std::vector<int64_t> choice(layers.size(), 0);
  double best = -1.0;
  while (true) {
    const Total total = total_of(layers, choice);
    if (total.cost <= budget && (best < 0.0 || total.harm < best)) {
      best = total.harm;
    }
    size_t layer = 0;
    while (layer < layers.size() && ++choice[layer] == static_cast<int64_t>(layers[layer].size())) {
      choice[layer++] = 0;
    }
    if (layer == layers.size()) {
      return best;
    }
  }
}

TEST(BudgetSearchTest, FindsWhatBruteForceFinds) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 engine(seed);
  const auto draw = [&engine](uint64_t end) { return static_cast<int64_t>(engine() % end); };
  for (int round = 0; round < 50; ++round) {
    Layers layers(static_cast<size_t>(1 + draw(5)));
    for (auto& candidates : layers) {
      candidates.resize(static_cast<size_t>(1 + draw(4)));
      for (BudgetCandidate& candidate : candidates) {
        candidate = {.cost = 4 * draw(12), .harm = static_cast<double>(draw(1000)) / 16.0};
      }
    }
    const int64_t budget = draw(160);
    const double expected = brute_force(layers, budget);
    const auto found = search_budget(layers, budget);
    ASSERT_EQ(found.is_ok(), expected >= 0.0);
    if (found.is_ok()) {
      const Total total = total_of(layers, found.value());
      EXPECT_DOUBLE_EQ(total.harm, expected);
      EXPECT_LE(total.cost, budget);
    }
  }
}

TEST(BudgetSearchTest, PrefersTheCheaperOfEqualHarms) {
  const Layers layers = {{{.cost = 8, .harm = 1.0}, {.cost = 4, .harm = 1.0}}};
  EXPECT_THAT(search_budget(layers, 100).value(), ElementsAre(1));
}

TEST(BudgetSearchTest, RefusesABudgetBelowTheCheapest) {
  const auto result = search_budget({{{.cost = 8, .harm = 1.0}}, {{.cost = 3, .harm = 1.0}}}, 10);
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(result.status().message(), HasSubstr("10 is below the least possible cost, 11"));
}

TEST(BudgetSearchTest, RefusesALayerWithoutCandidates) {
  EXPECT_THAT(search_budget({{{}}, {}}, 10).status().message(), HasSubstr("layer 1"));
}

}  // namespace
}  // namespace tessera
