#include "engine/calibration/attention_samples.h"

#include <algorithm>
#include <random>

#include "engine/calibration/observed_step.h"

namespace tessera {
namespace {

constexpr int64_t kSampledRows = 128;

}  // namespace

int64_t sample_bytes(const ModelConfig& config, int64_t num_tokens) noexcept {
  const int64_t queries =
      std::min(kSampledRows, num_tokens) * config.num_attention_heads * config.qk_head_dim();
  const auto element = static_cast<int64_t>(sizeof(float));
  return (num_tokens * config.latent_row_width() + queries) * element;
}

std::vector<int64_t> sampled_rows(int64_t num_tokens, int64_t window) {
  const int64_t first = num_tokens / 16;
  const int64_t count = std::min(kSampledRows, num_tokens - first);
  std::mt19937_64 engine(static_cast<uint64_t>(window));
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = first + i * (num_tokens - first) / count;
    const int64_t end = first + (i + 1) * (num_tokens - first) / count;
    rows.push_back(begin + static_cast<int64_t>(engine() % static_cast<uint64_t>(end - begin)));
  }
  return rows;
}

SampleCollector::SampleCollector(kernels::Device& device,
                                 const std::vector<ObservedLayer>& layers,
                                 int64_t begin,
                                 int64_t end)
    : device_(device), layers_(layers), begin_(begin), samples_(static_cast<size_t>(end - begin)) {}

void SampleCollector::observe(const ObservedLatents& latents, kernels::StreamView stream) {
  const int64_t index = latents.layer - begin_;
  if (index < 0 || index >= static_cast<int64_t>(samples_.size())) {
    return;
  }
  auto& samples = samples_[static_cast<size_t>(index)];
  ObservedStep step(latents, device_, stream);
  AttentionSample sample;
  sample.latents = step.latents(layers_[static_cast<size_t>(latents.layer)].norm);
  sample.rope = step.rope();
  sample.positions = sampled_rows(sample.latents.rows(), static_cast<int64_t>(samples.size()));
  sample.queries = step.queries()(sample.positions, Eigen::all);
  samples.push_back(std::move(sample));
}

}  // namespace tessera
