// Makes the calibration file of a model from a text (engine/calibration). Main thread only.
#pragma once

#include "engine/base/status.h"
#include "server/cli/option_sources.h"

namespace tessera {

[[nodiscard]] Status run_calibrate(const cli::ResolvedOptions& resolved);

}  // namespace tessera
