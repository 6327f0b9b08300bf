#include "engine/calibration/budget_search.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "engine/base/text.h"

namespace tessera {
namespace {

constexpr double kImpossible = std::numeric_limits<double>::infinity();

/// Costs share large factors (columns come in steps): in units of them the table is small.
int64_t common_factor(const std::vector<std::vector<BudgetCandidate>>& layers) {
  int64_t factor = 0;
  for (const auto& candidates : layers) {
    for (const BudgetCandidate& candidate : candidates) {
      factor = std::gcd(factor, candidate.cost);
    }
  }
  return std::max<int64_t>(1, factor);
}

int64_t least_cost(const std::vector<BudgetCandidate>& candidates) {
  return std::min_element(candidates.begin(),
                          candidates.end(),
                          [](const auto& a, const auto& b) { return a.cost < b.cost; })
      ->cost;
}

/// Dynamic programming over exact sums of cost.
class Knapsack final {
 public:
  Knapsack(int64_t unit, int64_t budget)
      : unit_(unit), harm_(static_cast<size_t>(budget / unit + 1), kImpossible) {
    harm_[0] = 0.0;
  }

  void add(const std::vector<BudgetCandidate>& candidates) {
    std::vector<double> next(harm_.size(), kImpossible);
    std::vector<int32_t> choice(harm_.size(), -1);
    for (size_t index = 0; index < candidates.size(); ++index) {
      const auto cost = static_cast<size_t>(candidates[index].cost / unit_);
      for (size_t sum = cost; sum < harm_.size(); ++sum) {
        const double harm = harm_[sum - cost] + candidates[index].harm;
        if (harm < next[sum]) {
          next[sum] = harm;
          choice[sum] = static_cast<int32_t>(index);
        }
      }
    }
    harm_ = std::move(next);
    choices_.push_back(std::move(choice));
  }

  [[nodiscard]] std::vector<int64_t> best(
      const std::vector<std::vector<BudgetCandidate>>& layers) const {
    auto sum = static_cast<size_t>(std::min_element(harm_.begin(), harm_.end()) - harm_.begin());
    std::vector<int64_t> chosen(layers.size());
    for (size_t layer = layers.size(); layer-- > 0;) {
      chosen[layer] = choices_[layer][sum];
      const BudgetCandidate& candidate = layers[layer][static_cast<size_t>(chosen[layer])];
      sum -= static_cast<size_t>(candidate.cost / unit_);
    }
    return chosen;
  }

 private:
  int64_t unit_;
  std::vector<double> harm_;                   // by sum of costs, in units
  std::vector<std::vector<int32_t>> choices_;  // of each layer so far, by sum of costs
};

}  // namespace

Result<std::vector<int64_t>> search_budget(const std::vector<std::vector<BudgetCandidate>>& layers,
                                           int64_t budget) {
  int64_t least = 0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    if (layers[layer].empty()) {
      return invalid_argument(str_cat("layer ", layer, " has no candidates"));
    }
    least += least_cost(layers[layer]);
  }
  if (least > budget) {
    return invalid_argument(
        str_cat("a budget of ", budget, " is below the least possible cost, ", least));
  }
  Knapsack knapsack(common_factor(layers), budget);
  for (const auto& candidates : layers) {
    knapsack.add(candidates);
  }
  return knapsack.best(layers);
}

}  // namespace tessera
