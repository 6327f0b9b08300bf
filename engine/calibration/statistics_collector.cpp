#include "engine/calibration/statistics_collector.h"

#include "engine/base/check.h"
#include "engine/weights/float_convert.h"

namespace tessera {
namespace {

using kernels::ConstTensorView;

/// Bytes from the first element of a view to behind its last.
int64_t spanned_bytes(const ConstTensorView& view) {
  int64_t last = 0;
  for (int axis = 0; axis < view.rank; ++axis) {
    last += (view.dim(axis) - 1) * view.stride[static_cast<size_t>(axis)];
  }
  return (last + 1) * kernels::dtype_bytes(view.dtype);
}

}  // namespace

StatisticsCollector::StatisticsCollector(const ModelConfig& config,
                                         kernels::Device& device,
                                         const std::vector<std::vector<float>>& norms,
                                         LatentStatistics& statistics)
    : config_(config), device_(device), norms_(norms), statistics_(statistics) {}

void StatisticsCollector::download(const ConstTensorView& view, std::vector<float>& rows) {
  bytes_.resize(static_cast<size_t>(spanned_bytes(view)));
  device_.copy_to_host(bytes_.data(), view.data, static_cast<int64_t>(bytes_.size()), {});
  device_.synchronize_blocking({});
  ConstTensorView host = view;
  host.data = bytes_.data();
  rows.resize(static_cast<size_t>(view.num_elements()));
  const int64_t num_groups = view.rank == 3 ? view.dim(1) : 1;
  const int64_t width = view.dim(view.rank - 1);
  float* out = rows.data();
  for (int64_t row = 0; row < view.dim(0); ++row) {
    const ConstTensorView whole = host.slice(0, row, 1);
    for (int64_t group = 0; group < num_groups; ++group) {
      const ConstTensorView part = view.rank == 3 ? whole.slice(1, group, 1) : whole;
      convert_to_float({part.data, part.dtype, {width}}, out);
      out += width;
    }
  }
}

void StatisticsCollector::observe(const ObservedLatents& latents, kernels::StreamView stream) {
  device_.synchronize_blocking(stream);
  const int64_t num_tokens = latents.latent.dim(0);
  const int64_t width = config_.kv_lora_rank;
  const int64_t key_dim = config_.qk_nope_head_dim;
  TESSERA_CHECK(latents.query.dim(1) == config_.num_attention_heads, "one rank has all heads");
  download(latents.latent, latents_);
  download(latents.query.slice(2, 0, key_dim), queries_);
  const std::vector<float>& norm = norms_[static_cast<size_t>(latents.layer)];
  for (int64_t i = 0; i < num_tokens * width; ++i) {
    const float weight = norm[static_cast<size_t>(i % width)];
    float& value = latents_[static_cast<size_t>(i)];
    value = weight == 0.0F ? 0.0F : value / weight;
  }
  statistics_.add(latents.layer,
                  FloatRows(latents_.data(), num_tokens, width),
                  FloatRows(queries_.data(), num_tokens, config_.num_attention_heads * key_dim));
}

}  // namespace tessera
