#include "engine/calibration/column_choice.h"

#include <algorithm>
#include <cmath>

#include "engine/base/text.h"
#include "engine/calibration/budget_search.h"
#include "engine/calibration/shared_column_grid.h"

namespace tessera {
namespace {

/// Tokens of the context that a window's bytes are spread over.
constexpr double kContext = 1024.0;
/// Of sums of fractions that are meant to be whole.
constexpr double kRounding = 1e-6;

double harm_of(const LayerCandidates& layer, const ColumnCandidate& candidate) {
  const double plain = layer.columns.front().logit_error;
  return plain > 0.0 ? layer.plain_harm * candidate.logit_error / plain : 0.0;
}

/// Elements of a token, the window included; a layer that every rank keeps whole has none.
double elements(const ModelConfig& config, const ColumnBudget& budget, int64_t num_shared) {
  const auto row = static_cast<double>(row_elements(config, budget.num_slices, num_shared));
  return num_shared == config.kv_lora_rank ? row : row + window_elements(config, budget.window);
}

}  // namespace

double window_elements(const ModelConfig& config, const kernels::LatentWindow& window) noexcept {
  const auto tokens = static_cast<double>(window.num_first + window.num_last);
  return tokens / kContext * static_cast<double>(config.latent_row_width());
}

double least_budget(const ModelConfig& config,
                    int64_t num_slices,
                    const kernels::LatentWindow& window) noexcept {
  const auto plain = static_cast<double>(row_elements(config, num_slices, 0));
  return 1.0 + window_elements(config, window) / plain;
}

Status check_budget(const ModelConfig& config, const ColumnBudget& budget) {
  const double least = least_budget(config, budget.num_slices, budget.window);
  if (least <= budget.ratio + kRounding) {
    return Status::ok();
  }
  return invalid_argument(str_cat("an exact window of ",
                                  budget.window.num_first + budget.window.num_last,
                                  " tokens needs a budget of ",
                                  least,
                                  ", given is ",
                                  budget.ratio));
}

Result<ColumnChoice> choose_columns(const ModelConfig& config,
                                    const std::vector<LayerCandidates>& layers,
                                    const ColumnBudget& budget) {
  TESSERA_RETURN_IF_ERROR(check_budget(config, budget));
  const auto plain = static_cast<double>(row_elements(config, budget.num_slices, 0));
  const auto num_layers = static_cast<double>(layers.size());
  const double least = elements(config, budget, 0);  // of a sliced layer
  // What is left when every layer is sliced and has its window, in whole elements; more than all
  // layers can use is of no use.
  const double left =
      std::clamp(std::floor((budget.ratio * plain - least) * num_layers + kRounding),
                 0.0,
                 static_cast<double>(row_elements(config, budget.num_slices, config.kv_lora_rank)) *
                     num_layers);
  std::vector<std::vector<BudgetCandidate>> table;
  for (const LayerCandidates& layer : layers) {
    table.emplace_back();
    for (const ColumnCandidate& candidate : layer.columns) {
      const double extra =
          std::ceil(elements(config, budget, candidate.num_shared) - least - kRounding);
      table.back().push_back(
          {.cost = static_cast<int64_t>(std::max(0.0, extra)), .harm = harm_of(layer, candidate)});
    }
  }
  TESSERA_TRY(const auto chosen, search_budget(table, static_cast<int64_t>(left)));
  ColumnChoice choice;
  choice.bytes_ratio = 0.0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const auto index = static_cast<size_t>(chosen[layer]);
    const int64_t num_shared = layers[layer].columns[index].num_shared;
    const double ratio = elements(config, budget, num_shared) / plain;
    choice.layers.push_back(
        {.num_shared = num_shared, .harm = table[layer][index].harm, .bytes_ratio = ratio});
    choice.bytes_ratio += ratio / num_layers;
  }
  return choice;
}

}  // namespace tessera
