// Which candidate of every layer gives the least harm within a budget. A pure function.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/result.h"

namespace tessera {

struct BudgetCandidate {
  int64_t cost = 0;   ///< not negative; any unit, the same for all
  double harm = 0.0;  ///< harms of layers add up
};

/// The index of the chosen candidate of each layer: least sum of harms with a sum of costs of at
/// most `budget`; of equal harms the cheaper. Exact; time and memory are layers x budget. Errors:
/// INVALID_ARGUMENT when a layer has no candidates, or the cheapest exceed the budget.
[[nodiscard]] Result<std::vector<int64_t>> search_budget(
    const std::vector<std::vector<BudgetCandidate>>& layers, int64_t budget);

}  // namespace tessera
