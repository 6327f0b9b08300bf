#include "engine/calibration/statistics_run.h"

#include <algorithm>
#include <numeric>
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

Result<std::vector<std::vector<float>>> read_norms(const ModelFactory& model) {
  TESSERA_TRY(const auto source, model.open_source());
  std::vector<std::vector<float>> norms;
  for (int64_t layer = 0; layer < model.config.num_hidden_layers; ++layer) {
    norms.push_back(read_latent_norm(*source, layer));
  }
  return norms;
}

Result<std::unique_ptr<ParallelRunner>> make_runner(const ModelFactory& model,
                                                    int64_t window,
                                                    std::unique_ptr<kernels::Backend> backend,
                                                    LatentObserver& observer) {
  std::vector<std::unique_ptr<kernels::Backend>> backends;
  backends.push_back(std::move(backend));
  ParallelSetup setup{.config = model.config,
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
  setup.load_weights = model.load_weights;
  return ParallelRunner::create(setup, std::move(backends));
}

}  // namespace

Result<LatentStatistics> gather_statistics(const ModelFactory& model, const StatisticsJob& job) {
  LatentStatistics statistics(model.config);
  const auto total = static_cast<int64_t>(job.windows.size());
  int64_t done = resume(job, statistics);
  job.progress(done, total);
  if (done == total) {
    return statistics;
  }
  TESSERA_TRY(const auto norms, read_norms(model));
  auto backend = model.make_backend();
  StatisticsCollector collector(model.config, backend->device(), norms, statistics);
  TESSERA_TRY(const auto runner,
              make_runner(model, longest(job.windows), std::move(backend), collector));
  ModelInput input;
  while (done < total) {
    fill_step(job.windows[static_cast<size_t>(done)], input);
    static_cast<void>(runner->forward_blocking(input));
    ++done;
    job.progress(done, total);
    if (!job.path.empty() && (done == total || done % job.windows_between_saves == 0)) {
      TESSERA_RETURN_IF_ERROR(save_statistics(job.path, job.key, done, statistics));
    }
  }
  return statistics;
}

}  // namespace tessera
