// Cuts the tokens of texts into what calibration looks at and what it is judged on.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/calibration/calibrator.h"

namespace tessera {

struct CalibrationTextOptions {
  int64_t num_tokens = 200'000;  ///< of all texts together, at most: what statistics are of
  int64_t window_tokens = 1024;
  int64_t num_quality_windows = 8;  ///< for the harm of layers, and as many held out
  QualityLengths lengths;
};

/// Each text's first nine tenths are for statistics (in windows, evenly spaced, equally many of
/// every text) and for the harm of layers; its last tenth is held out. `texts` are without special
/// tokens. Errors: INVALID_ARGUMENT naming the text that is too short.
[[nodiscard]] Result<CalibrationText> cut_calibration_text(
    const std::vector<std::vector<int32_t>>& texts,
    std::optional<int32_t> bos_id,
    const CalibrationTextOptions& options);

}  // namespace tessera
