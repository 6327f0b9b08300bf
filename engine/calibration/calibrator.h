// From a model and a text to a calibration for sliced attention: statistics, a cut of every layer
// for each number of shared columns, the harm of each, the best choice within a budget of bytes,
// and what it costs on text that was never looked at. One caller; runs for minutes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/calibration/key_fit.h"
#include "engine/calibration/layer_calibration.h"
#include "engine/calibration/statistics_run.h"
#include "engine/quality/summary.h"
#include "engine/weights/tpla_calibration.h"

namespace tessera {

struct CalibrationOptions {
  int64_t num_slices = 2;
  BasisKind basis = BasisKind::kBalanced;
  DealingKind dealing = DealingKind::kFold;
  RefitKind refit = RefitKind::kGradient;
  LogitFactor logit_factor = {};
  /// Bytes per token and rank, latent and rope part, as a multiple of those without shared columns
  /// and window.
  double budget = 1.15;
  /// Tokens before a query whose latents are exact; none: the best of a few within the budget.
  std::optional<int64_t> window = std::nullopt;
  int64_t sinks = 0;  ///< and so many of the first tokens, where there is a window
  QualityLengths lengths = {.prefill_tokens = 64, .decode_tokens = 448};
};

struct CalibrationText {
  std::string name;                                ///< for the report
  std::vector<std::vector<int32_t>> windows;       ///< statistics are of these
  std::vector<std::vector<int32_t>> harm_windows;  ///< harm of single layers
  std::vector<std::vector<int32_t>> held_out;      ///< quality of the result: none of the others
};

struct CalibrationJob {
  const CalibrationModel& model;
  const CalibrationText& text;
  CalibrationOptions options;
  std::string statistics_path;  ///< to go on from: statistics_run.h; "": none
  std::string statistics_key;   ///< of model, weights and text
  /// Called with what is going on and how much of it is done.
  std::function<void(std::string_view stage, int64_t done, int64_t total)> progress;
};

/// What was chosen for a layer, and why.
struct LayerChoice {
  /// Measured: mean divergence when this layer alone is sliced, without shared columns and
  /// with the window that harm is measured with.
  double plain_harm = 0.0;
  double harm = 0.0;  ///< of the choice: measured times the ratio of their logit errors
  int64_t num_shared = 0;
  double bytes_ratio = 1.0;                        ///< of the layer, to that without shared columns
  std::optional<KeyFitResult> fit = std::nullopt;  ///< where keys were fitted by gradient
};

/// A window that was tried, and the divergence of the best choice with it.
struct WindowChoice {
  kernels::LatentWindow window;
  double bytes_ratio = 0.0;  ///< what it takes of the budget in a context of 1,024 tokens
  double kl = 0.0;           ///< on the text that harm is measured on
};

struct CalibrationResult {
  TplaCalibration calibration;
  std::vector<LayerChoice> layers;
  std::vector<WindowChoice> windows;  ///< that were compared; empty: there was no choice
  double bytes_ratio = 1.0;           ///< of all layers
  QualitySummary quality;             ///< on the text held out
};

/// Errors: INVALID_ARGUMENT (slices that the model cannot have, a budget below 1, windows that are
/// too short), those of gather_statistics() and HarmMeter.
[[nodiscard]] Result<CalibrationResult> calibrate(const CalibrationJob& job);

/// The choice as a table for people.
[[nodiscard]] std::string render_calibration(const CalibrationResult& result);

}  // namespace tessera
