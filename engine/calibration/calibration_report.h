// What a calibration says of itself: JSON inside its file, and a table for people.
#pragma once

#include <string>

#include "engine/calibration/calibrator.h"

namespace tessera {

/// TplaCalibration::report.
[[nodiscard]] std::string calibration_report(const CalibrationJob& job,
                                             const CalibrationResult& result);

}  // namespace tessera
