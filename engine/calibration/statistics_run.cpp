#include "engine/calibration/statistics_run.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include "engine/base/log.h"
#include "engine/cache/latent_layout.h"
#include "engine/calibration/layer_weights.h"
#include "engine/calibration/statistics_collector.h"
#include "engine/calibration/statistics_file.h"
#include "engine/runner/parallel_runner.h"

namespace tessera {
namespace {

int64_t longest(const std::vector<std::vector<int32_t>>& windows) {
  size_t length = 1;
  for (const auto& window : windows) {
    length = std::max(length, window.size());
  }
  return static_cast<int64_t>(length);
}

/// The whole window as one chunk; no logits are asked for, so the head does not run.
void fill_step(const std::vector<int32_t>& tokens, ModelInput& input) {
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  input.clear();
  input.token_ids = tokens;
  input.positions.resize(tokens.size());
  std::iota(input.positions.begin(), input.positions.end(), 0);
  input.slots.resize(tokens.size());
  std::iota(input.slots.begin(), input.slots.end(), 0);
  input.chunks.push_back({.num_tokens = num_tokens});
  input.max_blocks_per_sequence = blocks_for_tokens(num_tokens);
  input.block_tables.resize(static_cast<size_t>(input.max_blocks_per_sequence));
  std::iota(input.block_tables.begin(), input.block_tables.end(), 0);
}

/// Windows that the file already has.
int64_t resume(const StatisticsJob& job, LatentStatistics& statistics) {
  if (job.path.empty()) {
    return 0;
  }
  const Result<int64_t> done = load_statistics(job.path, job.key, statistics);
  if (done.is_ok()) {
    log_info("statistics_resumed", "path", job.path, "windows", done.value());
    return std::min(done.value(), static_cast<int64_t>(job.windows.size()));
  }
  if (done.status().code() != StatusCode::kNotFound) {
    log_warning("statistics_start_anew", "reason", done.status().message());
  }
  return 0;
}

Result<std::vector<ObservedLayer>> read_layers(const CalibrationModel& model) {
  TESSERA_TRY(const auto source, model.open_source());
  const ModelConfig& config = model.parts.config;
  std::vector<ObservedLayer> layers;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    layers.push_back({.norm = read_latent_norm(*source, layer), .keys = {}});
    for (const Matrix& keys : read_head_weights(config, *source, layer).keys) {
      layers.back().keys.emplace_back(keys.transpose().cast<float>());
    }
  }
  return layers;
}

/// Window `index` of `total` is one of `count` evenly spaced ones.
bool is_chosen(int64_t index, int64_t total, int64_t count) {
  return (index + 1) * count / total != index * count / total;
}

bool are_finite(std::span<const double> values) {
  return std::all_of(
      values.begin(), values.end(), [](double value) { return std::isfinite(value); });
}

Result<std::unique_ptr<ParallelRunner>> make_runner(const CalibrationModel& model,
                                                    int64_t window,
                                                    std::unique_ptr<kernels::Backend> backend,
                                                    LatentObserver& observer) {
  std::vector<std::unique_ptr<kernels::Backend>> backends;
  backends.push_back(std::move(backend));
  ParallelSetup setup{.config = model.parts.config,
                      .sharding = {},
                      .limits = {.max_tokens = window,
                                 .max_sequences = 1,
                                 .max_logits_rows = 1,
                                 .max_model_len = window},
                      .num_blocks = blocks_for_tokens(window),
                      .observer = &observer,
                      .load = {},
                      .load_weights = {}};
  setup.load.dtype = model.dtype;
  setup.load_weights = model.parts.load_weights;
  return ParallelRunner::create(setup, std::move(backends));
}

}  // namespace

Result<LatentStatistics> gather_statistics(const CalibrationModel& model,
                                           const StatisticsJob& job) {
  LatentStatistics statistics(model.parts.config);
  const auto total = static_cast<int64_t>(job.windows.size());
  int64_t done = resume(job, statistics);
  job.progress(done, total);
  if (done == total) {
    return statistics;
  }
  TESSERA_TRY(const auto layers, read_layers(model));
  auto backend = model.parts.make_backend(0, model.num_threads);
  StatisticsCollector collector(model.parts.config, backend->device(), layers, statistics);
  TESSERA_TRY(const auto runner,
              make_runner(model, longest(job.windows), std::move(backend), collector));
  ModelInput input;
  while (done < total) {
    collector.set_attention_observed(is_chosen(done, total, job.attention_windows));
    fill_step(job.windows[static_cast<size_t>(done)], input);
    static_cast<void>(runner->forward_blocking(input));
    ++done;
    job.progress(done, total);
    if (!job.path.empty() && (done == total || done % job.windows_between_saves == 0)) {
      TESSERA_RETURN_IF_ERROR(save_statistics(job.path, job.key, done, statistics));
    }
  }
  if (!are_finite(statistics.sums())) {
    return invalid_argument("the model computes numbers that are not finite on this text");
  }
  return statistics;
}

Result<std::vector<std::vector<AttentionSample>>> gather_samples(const CalibrationModel& model,
                                                                 const SamplesJob& job) {
  const auto total = static_cast<int64_t>(job.windows.size());
  const int64_t wanted = std::min(total, job.max_windows);
  TESSERA_TRY(const auto layers, read_layers(model));
  auto backend = model.parts.make_backend(0, model.num_threads);
  SampleCollector collector(
      backend->device(), layers, job.first_layer, job.first_layer + job.num_layers);
  TESSERA_TRY(const auto runner,
              make_runner(model, longest(job.windows), std::move(backend), collector));
  ModelInput input;
  int64_t done = 0;
  for (int64_t index = 0; index < total; ++index) {
    if (is_chosen(index, total, wanted)) {
      fill_step(job.windows[static_cast<size_t>(index)], input);
      static_cast<void>(runner->forward_blocking(input));
      job.progress(++done, wanted);
    }
  }
  return std::move(collector).take();
}

}  // namespace tessera
