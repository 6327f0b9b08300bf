// One decode mode as people write it: "replicated:2", "dcp:2", "tpla:2", "tpla:2/4:none@16",
// "tpla:4:calibration.safetensors".
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "engine/quality/quality.h"
#include "engine/weights/shard_plan.h"
#include "engine/weights/tpla_transform.h"

namespace tessera {

struct DecodeMode {
  std::string text;  ///< as it was written
  ShardOptions sharding;
  /// tpla: "none", "hadamard", the path of a calibration file, or "auto": settle_basis().
  std::string basis = "none";
  /// The exact window that was written; nothing: the calibration file's, or none.
  std::optional<kernels::LatentWindow> window = {};

  /// `text` with a calibration's file name in place of its path.
  [[nodiscard]] std::string label() const;
};

/// replicated:RANKS, dcp:RANKS or tpla:SLICES[/RANKS][:BASIS][@[FIRST+]LAST]; without a basis
/// "auto". Errors: INVALID_ARGUMENT naming the part.
[[nodiscard]] Result<DecodeMode> parse_decode_mode(std::string_view text);

/// Each element one mode or several, separated by commas. Errors: those of parse_decode_mode(); a
/// mode given twice.
[[nodiscard]] Result<std::vector<DecodeMode>> parse_decode_modes(
    const std::vector<std::string>& texts);

/// "256:256": prefilled and decoded tokens; each element one pair or several, separated by commas.
/// Errors: INVALID_ARGUMENT.
[[nodiscard]] Result<std::vector<QualityLengths>> parse_quality_lengths(
    const std::vector<std::string>& texts);

/// Makes of "auto" what serving makes of it: the calibration in the model's folder
/// (kTplaCalibrationFile) where there is one for so many slices, else hadamard; the mode's text
/// then says which. Errors: those of TplaTransform::load().
[[nodiscard]] Status settle_basis(const ModelConfig& config,
                                  const std::string& model_folder,
                                  DecodeMode& mode);

/// What a mode's ranks are made with: as a worker with the same options makes them.
struct ModeSetup {
  ShardOptions sharding;
  TplaTransform transform;
};

/// "auto" is hadamard here. Errors: those of TplaTransform and validate_sharding().
[[nodiscard]] Result<ModeSetup> resolve_mode(const DecodeMode& mode, const ModelConfig& config);

}  // namespace tessera
