#include "engine/calibration/statistics_collector.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/weights/float_convert.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;

constexpr int64_t kObservedRows = 64;

/// Bytes from the first element of a view to behind its last.
int64_t spanned_bytes(const ConstTensorView& view) {
  int64_t last = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    last += (view.dim(axis) - 1) * view.stride[static_cast<size_t>(axis)];
  }
  return (last + 1) * kernels::dtype_bytes(view.dtype);
}

/// Columns whose weight is 0 never reach a query: they count as 0.
void divide_columns(const std::vector<float>& weights, FloatMatrix& rows) {
  const Eigen::Map<const Eigen::VectorXf> norm(weights.data(), rows.cols());
  const Eigen::VectorXf factors =
      (norm.array() != 0.0F).select(norm.array().inverse(), 0.0F).matrix();
  rows *= factors.asDiagonal();
}

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

FloatMatrix StatisticsCollector::download(const ConstTensorView& view) {
  bytes_.resize(static_cast<size_t>(spanned_bytes(view)));
  device_.copy_to_host(bytes_.data(), view.data, static_cast<int64_t>(bytes_.size()), {});
  device_.synchronize_blocking({});
  ConstTensorView host = view;
  host.data = bytes_.data();
  const int64_t num_groups = view.rank == 3 ? view.dim(1) : 1;
  const int64_t width = view.dim(view.rank - 1);
  FloatMatrix rows(view.dim(0), num_groups * width);
  float* out = rows.data();
  for (int64_t row = 0; row < view.dim(0); ++row) {
    const ConstTensorView whole = host.slice(0, row, 1);
    for (int64_t group = 0; group < num_groups; ++group) {
      const ConstTensorView part = view.rank == 3 ? whole.slice(1, group, 1) : whole;
      convert_to_float({part.data, part.dtype, {width}}, out);
      out += width;
    }
  }
  return rows;
}

void StatisticsCollector::observe(const ObservedLatents& latents, kernels::StreamView stream) {
  device_.synchronize_blocking(stream);
  TESSERA_CHECK(latents.query.dim(1) == config_.num_attention_heads, "one rank has all heads");
  FloatMatrix rows = download(latents.latent);
  divide_columns(layers_[static_cast<size_t>(latents.layer)].norm, rows);
  statistics_.add_latents(latents.layer, rows);
  if (is_attention_observed_) {
    observe_attention(latents, rows);
  }
}

void StatisticsCollector::observe_attention(const ObservedLatents& step,
                                            const FloatMatrix& latents) {
  const std::vector<int64_t> positions = observed_rows(latents.rows());
  const FloatMatrix queries = download(step.query)(positions, Eigen::all);
  const FloatMatrix rope = download(step.rope);
  const ObservedLayer& layer = layers_[static_cast<size_t>(step.layer)];
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
        step.layer, head, {.latents = latents, .weights = weights, .queries = content});
  }
}

}  // namespace tessera
