// Runs a model over windows of tokens and gathers what its attention sees: statistics of it, or
// some of it as it is.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/calibration/attention_samples.h"
#include "engine/calibration/latent_statistics.h"
#include "engine/quality/measured_model.h"
#include "engine/weights/tensor_source.h"

namespace tessera {

/// Where a model comes from and where it runs.
struct CalibrationModel {
  const MeasuredParts& parts;  ///< outlives its use
  kernels::DType dtype = kernels::DType::kFloat32;
  int num_threads = 1;
  /// The tensors as the checkpoint has them; may be called, and each tensor read, more than once.
  std::function<Result<std::unique_ptr<TensorSource>>()> open_source;
};

struct StatisticsJob {
  const std::vector<std::vector<int32_t>>& windows;  ///< each a sequence of its own, not empty
  std::string path;                                  ///< of the file to go on from; "": none
  std::string key;                                   ///< of that file: statistics_file.h
  int64_t windows_between_saves = 32;
  /// Of so many windows, evenly spaced, the attention is looked at too.
  int64_t attention_windows = 40;
  /// Windows that are in the statistics, of all.
  std::function<void(int64_t done, int64_t total)> progress;
};

/// One exact forward pass over every window; bounded memory. Goes on from the file where there is
/// one of the same key, with the same bits as if it had never stopped; any other file is
/// overwritten, and logged. Errors: those of loading the weights and of save_statistics();
/// INVALID_ARGUMENT when the model computes numbers that are not finite.
[[nodiscard]] Result<LatentStatistics> gather_statistics(const CalibrationModel& model,
                                                         const StatisticsJob& job);

struct SamplesJob {
  const std::vector<std::vector<int32_t>>& windows;  ///< each a sequence of its own, not empty
  int64_t max_windows = 40;                          ///< so many of them, evenly spaced
  int64_t first_layer = 0;
  int64_t num_layers = 1;
  std::function<void(int64_t done, int64_t total)> progress;
};

/// [num_layers][windows]: one exact forward pass over the chosen windows, none of it saved. Errors:
/// those of loading the weights.
[[nodiscard]] Result<std::vector<std::vector<AttentionSample>>> gather_samples(
    const CalibrationModel& model, const SamplesJob& job);

}  // namespace tessera
