// How the decode groups that a worker's options speak of attend: sharding, and the transform of
// sliced latents. A prefill worker comes to the same choice from the same options and model folder.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/result.h"
#include "engine/config/memory_plan.h"
#include "engine/config/model_config.h"
#include "engine/config/worker_config.h"
#include "engine/serving/model_parts.h"
#include "engine/weights/shard_plan.h"
#include "engine/weights/tpla_transform.h"

namespace tessera {

struct AttentionChoice {
  /// Of a decode group; `num_ranks` is the worker's own.
  ShardOptions sharding;
  TplaTransform transform;
  std::string calibration;  ///< the file that `transform` is of; empty: none
  std::string
      refused;  ///< why `auto` passed over the model folder's calibration; empty: it did not
};

/// `auto` is tpla where a calibration is named or lies in the model's folder (kTplaCalibrationFile)
/// and is for this model and so many slices, else replicated. Errors: those of TplaTransform::load,
/// and INVALID_ARGUMENT for a calibration of other slices; with `auto`, only of one that is named.
[[nodiscard]] Result<AttentionChoice> choose_attention(const WorkerConfig& worker,
                                                       const ModelConfig& config,
                                                       WorkerRole role);

/// The types of a worker's numbers.
struct CacheTypes {
  kernels::DType activations = kernels::DType::kFloat32;
  kernels::DType cache = kernels::DType::kFloat32;
};

/// What the ranks of `own` cache of a token: a decode group's slices, or (`num_images` above 0) all
/// images of a prefill worker that feeds `choice`. Elements are of the activations: of float8 rows
/// as many as take their bytes.
[[nodiscard]] CacheShape cache_shape(const ModelConfig& config,
                                     const AttentionChoice& choice,
                                     const ShardOptions& own,
                                     int64_t num_images,
                                     const CacheTypes& types = {});

/// "tpla, 2 slices on 2 ranks, basis balanced fold, 8 of 256 columns shared on average".
[[nodiscard]] std::string describe(const AttentionChoice& choice,
                                   const ModelConfig& config,
                                   int64_t num_ranks);

/// What `auto` became and why.
void log_auto(const WorkerConfig& worker, const ModelConfig& config, const AttentionChoice& choice);
/// What is known of the loss of sliced attention: the calibration's measurement, or a warning that
/// nothing is.
void log_quality(const WorkerConfig& worker, const AttentionChoice& choice);

}  // namespace tessera
