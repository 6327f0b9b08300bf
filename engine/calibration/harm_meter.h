// Measures what calibrations cost in quality: exact prefill, then teacher-forced decode with sliced
// attention, compared with the exact model. One caller at a time.
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

  /// Of several calibrations that one measure() may take: their models are in memory side by side.
  [[nodiscard]] int64_t max_calibrations() const;
  /// By calibration, over windows of at least lengths.window_tokens(): the model is loaded once for
  /// each. Errors: those of MeasuredModel::create() and measure_quality().
  [[nodiscard]] Result<std::vector<QualitySummary>> measure(
      std::span<const TplaCalibration> calibrations,
      std::span<const TextWindow> windows,
      const QualityProgress& progress);

 private:
  HarmMeter(const CalibrationModel& model, const QualityLengths& lengths);
  [[nodiscard]] MeasuredOptions options() const;
  [[nodiscard]] Result<std::unique_ptr<MeasuredModel>> load(const TplaCalibration& calibration);

  const CalibrationModel& model_;
  const QualityLengths lengths_;
  std::unique_ptr<MeasuredModel> exact_;
  RankGroup threads_;
};

}  // namespace tessera
