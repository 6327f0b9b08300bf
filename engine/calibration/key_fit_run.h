// Fits the keys of all sliced layers of a calibration to the attention of a model on a text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "engine/base/result.h"
#include "engine/calibration/key_fit.h"
#include "engine/calibration/statistics_run.h"
#include "engine/weights/tpla_calibration.h"

namespace tessera {

struct KeyFitJob {
  const CalibrationModel& model;
  const std::vector<std::vector<int32_t>>&
      windows;  ///< at most 40 of them, evenly spaced, are used
  std::function<void(int64_t done, int64_t total)> progress;
};

/// fit_keys() of every layer that is sliced, as many side by side as the model has threads. Runs
/// the model once over the windows for as many layers as have room for their samples (1 GiB).
/// Returns by layer; nothing for those that are whole. Errors: those of gather_samples().
[[nodiscard]] Result<std::vector<std::optional<KeyFitResult>>> fit_calibration(
    const KeyFitJob& job, TplaCalibration& calibration);

}  // namespace tessera
