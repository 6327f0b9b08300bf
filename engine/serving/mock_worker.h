// What a worker with --engine mock has instead of a model: a cache of a few numbers a token and a
// runner that waits. It reads config.json and nothing else of the model's folder.
#pragma once

#include <cstdint>

#include "engine/config/model_config.h"
#include "engine/config/worker_config.h"
#include "engine/runner/mock_runner.h"

namespace tessera {

/// The worker's options as far as they mean something without weights: `auto` is replicated, there
/// is no calibration.
[[nodiscard]] WorkerConfig mock_options(const WorkerConfig& worker);

/// `config` with a cache of one layer and as few columns as can be cut into `num_slices`.
[[nodiscard]] ModelConfig mock_model(const ModelConfig& config, int64_t num_slices);

/// --mock-*.
[[nodiscard]] MockSpeed mock_speed(const WorkerConfig& worker);

}  // namespace tessera
