// Measures what a calibration costs in quality: exact prefill, then teacher-forced decode with
// sliced attention, compared with the exact model. One caller at a time.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/calibration/statistics_run.h"
#include "engine/parallel/rank_group.h"
#include "engine/quality/quality.h"
#include "engine/quality/summary.h"
#include "engine/weights/tpla_calibration.h"

namespace tessera {

class HarmMeter final {
 public:
  /// `model` and what it points to outlive the meter. Errors: those of MeasuredModel::create().
  [[nodiscard]] static Result<std::unique_ptr<HarmMeter>> create(const CalibrationModel& model,
                                                                 const QualityLengths& lengths);

  /// Over windows of at least lengths.window_tokens(); loads the model once more, cut so. Errors:
  /// those of MeasuredModel::create() and measure_quality().
  [[nodiscard]] Result<QualitySummary> measure(const TplaCalibration& calibration,
                                               std::span<const TextWindow> windows,
                                               const QualityProgress& progress);

 private:
  HarmMeter(const CalibrationModel& model, const QualityLengths& lengths);
  [[nodiscard]] MeasuredOptions options() const;

  const CalibrationModel& model_;
  const QualityLengths lengths_;
  std::unique_ptr<MeasuredModel> exact_;
  RankGroup threads_;
};

}  // namespace tessera
