#include "engine/runner/model_runner.h"

namespace tessera {
namespace {

/// History and bias entries that fit without growing: a full step of sequences with a few hundred
/// distinct tokens each.
constexpr int64_t kEntriesPerRow = 512;

}  // namespace

ModelRunner::ModelRunner(const ModelConfig& config,
                         const ModelWeights& weights,
                         const StepLimits& limits,
                         const Caches& caches,
                         const RankContext& ranks)
    : device_(ranks.backend->device()),
      ops_(ranks.backend->ops()),
      cache_(*caches.paged),
      window_cache_(caches.window),
      model_(config, weights, limits, ranks),
      cache_views_(cache_.views()),
      graphs_(model_, {cache_views_, window_cache_}, limits, device_),
      buffers_(limits.max_sequences, limits.max_sequences * kEntriesPerRow, device_) {}

void ModelRunner::run_blocking(const ModelInput& input,
                               const SamplingInput& sampling,
                               StepOutput& output) {
  const kernels::TensorView logits = forward(input);
  sample(logits, sampling, output);
}

kernels::TensorView ModelRunner::forward_blocking(const ModelInput& input) {
  const kernels::TensorView logits = forward(input);
  device_.synchronize_blocking({});
  return logits;
}

kernels::TensorView ModelRunner::forward(const ModelInput& input) {
  return graphs_.can_run(input) ? graphs_.run(input, {})
                                : model_.forward(input, {cache_views_, window_cache_}, {});
}

void ModelRunner::sample(const kernels::TensorView& logits,
                         const SamplingInput& sampling,
                         StepOutput& output) {
  const kernels::SampleParams params = buffers_.upload(sampling, logits, {});
  if (!sampling.rows.empty()) {
    ops_.sample(params, {});
  }
  buffers_.download_blocking(output, {});
}

void ModelRunner::copy_block(int32_t source, int32_t destination) {
  cache_.copy_block(source, destination, {});
}

}  // namespace tessera
