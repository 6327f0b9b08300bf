#include "engine/calibration/statistics_collector.h"

#include <algorithm>

#include "engine/base/check.h"

namespace tessera {
namespace {

constexpr int64_t kObservedRows = 64;

/// Rows become their softmax over [0, positions[row]], and 0 behind.
void causal_softmax(const std::vector<int64_t>& positions, FloatMatrix& logits) {
  for (Eigen::Index row = 0; row < logits.rows(); ++row) {
    const int64_t length = positions[static_cast<size_t>(row)] + 1;
    auto seen = logits.row(row).head(length);
    seen = (seen.array() - seen.maxCoeff()).exp();
    seen /= seen.sum();
    logits.row(row).tail(logits.cols() - length).setZero();
  }
}

}  // namespace

std::vector<int64_t> observed_rows(int64_t num_tokens) {
  const int64_t first = num_tokens / 16;
  const int64_t count = std::min(kObservedRows, num_tokens - first);
  std::vector<int64_t> rows;
  for (int64_t i = 1; i <= count; ++i) {
    rows.push_back(first + i * (num_tokens - first) / count - 1);
  }
  return rows;
}

StatisticsCollector::StatisticsCollector(const ModelConfig& config,
                                         kernels::Device& device,
                                         const std::vector<ObservedLayer>& layers,
                                         LatentStatistics& statistics)
    : config_(config), device_(device), layers_(layers), statistics_(statistics) {}

void StatisticsCollector::observe(const ObservedLatents& latents, kernels::StreamView stream) {
  TESSERA_CHECK(latents.query.dim(1) == config_.num_attention_heads, "one rank has all heads");
  ObservedStep step(latents, device_, stream);
  const FloatMatrix rows = step.latents(layers_[static_cast<size_t>(latents.layer)].norm);
  statistics_.add_latents(latents.layer, rows);
  if (is_attention_observed_) {
    observe_attention(latents.layer, step, rows);
  }
}

void StatisticsCollector::observe_attention(int64_t index,
                                            ObservedStep& step,
                                            const FloatMatrix& latents) {
  const std::vector<int64_t> positions = observed_rows(latents.rows());
  const FloatMatrix queries = step.queries()(positions, Eigen::all);
  const FloatMatrix rope = step.rope();
  const ObservedLayer& layer = layers_[static_cast<size_t>(index)];
  const int64_t key_dim = config_.qk_nope_head_dim;
  const int64_t head_dim = config_.qk_head_dim();
  for (int64_t head = 0; head < config_.num_attention_heads; ++head) {
    const FloatMatrix content = queries.middleCols(head * head_dim, key_dim);
    const FloatMatrix absorbed = content * layer.keys[static_cast<size_t>(head)];
    FloatMatrix weights = absorbed * latents.transpose();
    weights += queries.middleCols(head * head_dim + key_dim, head_dim - key_dim) * rope.transpose();
    weights *= config_.softmax_scale();
    causal_softmax(positions, weights);
    statistics_.add_attention(
        index, head, {.latents = latents, .weights = weights, .queries = content});
  }
}

}  // namespace tessera
