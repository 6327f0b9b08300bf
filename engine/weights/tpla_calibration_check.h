// Whether the numbers of a calibration agree with the model and with each other: asked by whoever
// writes one and by whoever reads one.
#pragma once

#include "engine/config/model_config.h"
#include "engine/weights/fault_list.h"
#include "engine/weights/tpla_calibration.h"

namespace tessera {

/// Slices, shared columns, names, the report; true when they are right: only then do the sizes of a
/// layer mean anything.
[[nodiscard]] bool check_calibration_header(const ModelConfig& config,
                                            const TplaCalibration& calibration,
                                            FaultList& faults);

/// Elements of a layer's fitted keys: g H w dn.
[[nodiscard]] int64_t num_calibration_keys(const ModelConfig& config,
                                           int64_t num_slices,
                                           int64_t num_shared);

/// Sizes, finite values, the inverse, of one layer under a right header.
void check_calibration_layer(const ModelConfig& config,
                             const TplaCalibration& calibration,
                             int64_t layer,
                             FaultList& faults);

}  // namespace tessera
