#include "engine/calibration/calibrator.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "engine/base/text.h"
#include "engine/calibration/calibration_report.h"
#include "engine/calibration/column_choice.h"
#include "engine/calibration/harm_meter.h"
#include "engine/calibration/key_fit.h"
#include "engine/calibration/key_fit_run.h"
#include "engine/calibration/shared_column_grid.h"
#include "engine/parallel/rank_group.h"
#include "engine/parallel/thread_communicator.h"
#include "engine/weights/shard_plan.h"

namespace tessera {
namespace {

/// More shared columns are not tried once a layer's harm has fallen to this share of what it is
/// without any.
constexpr double kNegligible = 1e-3;

/// Windows that are tried where none is given: tokens before the query.
constexpr int64_t kWindows[] = {0, 8, 16, 32};
/// The one that layers' harm is measured with when several are tried.
constexpr int64_t kMeasuredWindow = 16;

/// The best within the budget with one window.
struct Trial {
  kernels::LatentWindow window;
  ColumnChoice choice;
};

class Calibrator final {
 public:
  explicit Calibrator(const CalibrationJob& job)
      : job_(job), options_(job.options), config_(job.model.parts.config) {}

  Result<CalibrationResult> run() {
    TESSERA_RETURN_IF_ERROR(check());
    TESSERA_RETURN_IF_ERROR(gather());
    result_.calibration = empty_calibration();
    TESSERA_RETURN_IF_ERROR(cut_layers());
    TESSERA_TRY(meter_, HarmMeter::create(job_.model, options_.lengths));
    TESSERA_RETURN_IF_ERROR(choose_columns_of_windows());
    TESSERA_RETURN_IF_ERROR(choose_window());
    TESSERA_RETURN_IF_ERROR(fit());
    TESSERA_RETURN_IF_ERROR(measure_choice());
    result_.calibration.report = calibration_report(job_, result_);
    return std::move(result_);
  }

 private:
  [[nodiscard]] int64_t num_layers() const { return config_.num_hidden_layers; }

  Status gather() {
    TESSERA_TRY(statistics_,
                gather_statistics(job_.model,
                                  {.windows = job_.text.windows,
                                   .path = job_.statistics_path,
                                   .key = job_.statistics_key,
                                   .progress = [this](int64_t done, int64_t total) {
                                     job_.progress("statistics", done, total);
                                   }}));
    return Status::ok();
  }

  Status check() const {
    TESSERA_RETURN_IF_ERROR(validate_sharding(config_,
                                              {.attention = AttentionSharding::kTpla,
                                               .num_ranks = options_.num_slices,
                                               .num_slices = options_.num_slices}));
    if (options_.sinks > 0 && options_.window.value_or(1) == 0) {
      return invalid_argument(str_cat("--sinks is ",
                                      options_.sinks,
                                      " with a window of 0 last tokens, expected 0: first tokens "
                                      "are kept beside last ones only"));
    }
    if (options_.num_slices < 2 || !(options_.budget >= 1.0)) {
      return invalid_argument(str_cat("slices are ",
                                      options_.num_slices,
                                      ", expected 2 or more; the budget is ",
                                      options_.budget,
                                      ", expected 1 or more"));
    }
    if (options_.window.has_value()) {
      TESSERA_RETURN_IF_ERROR(check_budget(config_, budget_for(windows().front())));
    }
    if (job_.text.windows.empty() || job_.text.harm_windows.empty() || job_.text.held_out.empty()) {
      return invalid_argument("the text is too short for statistics and a part held out");
    }
    if (options_.refit == RefitKind::kGradient && job_.text.windows.size() < 2) {
      return invalid_argument(
          str_cat("a fit by gradient needs 2 or more windows of text, there are ",
                  job_.text.windows.size(),
                  ": look at more tokens, or fit by least_squares"));
    }
    return Status::ok();
  }

  /// Every layer whole on every rank: exact.
  [[nodiscard]] TplaCalibration empty_calibration() const {
    const auto width = static_cast<size_t>(config_.kv_lora_rank);
    TplaCalibration::Layer whole;
    whole.num_shared = config_.kv_lora_rank;
    whole.basis.assign(width * width, 0.0F);
    for (size_t i = 0; i < width; ++i) {
      whole.basis[i * (width + 1)] = 1.0F;
    }
    TplaCalibration calibration;
    calibration.basis = basis_kind_name(options_.basis);
    calibration.dealing = dealing_kind_name(options_.dealing);
    if (options_.refit == RefitKind::kNone &&
        options_.logit_factor.kind == LogitFactorKind::kShare) {
      calibration.dealing += "+share";
    }
    if (options_.refit != RefitKind::kNone) {
      calibration.dealing += str_cat("+", refit_kind_name(options_.refit));
    }
    calibration.num_slices = options_.num_slices;
    calibration.layers.assign(static_cast<size_t>(num_layers()), whole);
    return calibration;
  }

  [[nodiscard]] CutOptions cut_options(int64_t layer, int64_t num_shared) const {
    return {.dealing = {.kind = options_.dealing,
                        .num_slices = options_.num_slices,
                        .num_shared = num_shared,
                        .seed = static_cast<uint64_t>(layer)},
            .logit_factor = options_.logit_factor,
            .refit = options_.refit};
  }

  /// What is known of a layer is large: it is put together when it is needed.
  struct PreparedLayer {
    LayerKnowledge knowledge;
    LatentBasis basis;
  };
  Result<PreparedLayer> prepare(int64_t layer) const {
    TESSERA_TRY(const auto source, job_.model.open_source());
    PreparedLayer prepared;
    prepared.knowledge =
        know_layer(*statistics_, read_head_weights(config_, *source, layer), layer);
    prepared.basis = make_basis(options_.basis,
                                moments_for(options_.basis, prepared.knowledge),
                                static_cast<uint64_t>(layer));
    return prepared;
  }

  /// Every layer with every number of shared columns: only its error is kept, and the plain cut.
  Status cut_layers() {
    for (int64_t layer = 0; layer < num_layers(); ++layer) {
      job_.progress("cutting", layer, num_layers());
      TESSERA_TRY(const PreparedLayer prepared, prepare(layer));
      CutLayer plain = cut_layer(prepared.knowledge, prepared.basis, cut_options(layer, 0));
      candidates_.push_back({.columns = candidates_of(layer, prepared, plain.logit_error)});
      plain_.push_back(std::move(plain.calibration));
    }
    job_.progress("cutting", num_layers(), num_layers());
    return Status::ok();
  }

  [[nodiscard]] std::vector<ColumnCandidate> candidates_of(int64_t layer,
                                                           const PreparedLayer& prepared,
                                                           double plain_error) const {
    std::vector<ColumnCandidate> candidates = {{0, plain_error}};
    const auto grid = shared_column_grid(config_.kv_lora_rank, options_.num_slices);
    for (const int64_t num_shared : std::span(grid).subspan(1)) {
      const bool is_whole = num_shared == config_.kv_lora_rank;
      if (is_whole || candidates.back().logit_error > kNegligible * plain_error) {
        const CutLayer cut =
            cut_layer(prepared.knowledge, prepared.basis, cut_options(layer, num_shared));
        candidates.push_back({num_shared, cut.logit_error});
      }
    }
    return candidates;
  }

  [[nodiscard]] ColumnBudget budget_for(const kernels::LatentWindow& window) const {
    return {.num_slices = options_.num_slices, .window = window, .ratio = options_.budget};
  }

  /// The given one, or all that the budget has room for.
  [[nodiscard]] std::vector<kernels::LatentWindow> windows() const {
    if (options_.window.has_value()) {
      return {{.num_first = options_.sinks, .num_last = *options_.window}};
    }
    std::vector<kernels::LatentWindow> windows;
    for (const int64_t last : kWindows) {
      const kernels::LatentWindow window{.num_first = last == 0 ? 0 : options_.sinks,
                                         .num_last = last};
      if (check_budget(config_, budget_for(window)).is_ok()) {
        windows.push_back(window);
      }
    }
    return windows;
  }

  /// The harm of every layer alone, without shared columns.
  Status measure_layers(const kernels::LatentWindow& window) {
    int64_t begin = 0;
    while (begin < num_layers()) {
      const int64_t end = std::min(num_layers(), begin + meter_->max_calibrations());
      std::vector<TplaCalibration> trials;
      for (int64_t layer = begin; layer < end; ++layer) {
        trials.push_back(result_.calibration);
        trials.back().window = window;
        trials.back().layers[static_cast<size_t>(layer)] = plain_[static_cast<size_t>(layer)];
      }
      TESSERA_TRY(const auto measured,
                  meter_->measure(trials, job_.text.harm_windows, [&](int64_t part, int64_t total) {
                    job_.progress("harm of layers",
                                  begin * total + part * (end - begin),
                                  num_layers() * total);
                  }));
      for (const QualitySummary& harm : measured) {
        candidates_[static_cast<size_t>(begin)].plain_harm = std::max(0.0, harm.kl.mean);
        ++begin;
      }
    }
    return Status::ok();
  }

  /// Fills trials_: for each window the best columns.
  Status choose_columns_of_windows() {
    const std::vector<kernels::LatentWindow> windows = this->windows();
    kernels::LatentWindow measured = windows.back();
    if (windows.size() > 1) {
      measured.num_last = kMeasuredWindow;
    }
    TESSERA_RETURN_IF_ERROR(measure_layers(measured));
    for (const kernels::LatentWindow& window : windows) {
      TESSERA_TRY(auto choice, choose_columns(config_, candidates_, budget_for(window)));
      trials_.push_back({.window = window, .choice = std::move(choice)});
    }
    return Status::ok();
  }

  /// Every trial as a calibration.
  Result<std::vector<TplaCalibration>> calibrations() {
    std::vector<TplaCalibration> calibrations;
    for (const Trial& trial : trials_) {
      calibrations.push_back(result_.calibration);
      calibrations.back().window = trial.window;
    }
    for (int64_t layer = 0; layer < num_layers(); ++layer) {
      TESSERA_TRY(const PreparedLayer prepared, prepare(layer));
      for (size_t i = 0; i < trials_.size(); ++i) {
        const ChosenColumns& chosen = trials_[i].choice.layers[static_cast<size_t>(layer)];
        TplaCalibration::Layer& out = calibrations[i].layers[static_cast<size_t>(layer)];
        if (chosen.num_shared < config_.kv_lora_rank) {
          out = cut_layer(prepared.knowledge, prepared.basis, cut_options(layer, chosen.num_shared))
                    .calibration;
        }
        out.harm = chosen.harm;
      }
    }
    return calibrations;
  }

  /// The trial with the least divergence becomes the result.
  Status choose_window() {
    TESSERA_TRY(auto calibrations, this->calibrations());
    size_t best = 0;
    if (trials_.size() > 1) {
      TESSERA_TRY(const auto measured, measure_trials(calibrations));
      for (size_t i = 0; i < trials_.size(); ++i) {
        result_.windows.push_back({.window = trials_[i].window,
                                   .bytes_ratio = window_ratio(trials_[i].window),
                                   .kl = measured[i].kl.mean});
        best = measured[i].kl.mean < measured[best].kl.mean ? i : best;
      }
    }
    const Trial& trial = trials_[best];
    result_.calibration = std::move(calibrations[best]);
    result_.bytes_ratio = trial.choice.bytes_ratio;
    for (size_t layer = 0; layer < candidates_.size(); ++layer) {
      const ChosenColumns& chosen = trial.choice.layers[layer];
      result_.layers.push_back({.plain_harm = candidates_[layer].plain_harm,
                                .harm = chosen.harm,
                                .num_shared = chosen.num_shared,
                                .bytes_ratio = chosen.bytes_ratio});
    }
    return Status::ok();
  }

  [[nodiscard]] double window_ratio(const kernels::LatentWindow& window) const {
    return least_budget(config_, options_.num_slices, window) - 1.0;
  }

  Result<std::vector<QualitySummary>> measure_trials(const std::vector<TplaCalibration>& trials) {
    std::vector<QualitySummary> measured;
    const auto num_trials = static_cast<int64_t>(trials.size());
    while (static_cast<int64_t>(measured.size()) < num_trials) {
      const auto begin = static_cast<int64_t>(measured.size());
      const int64_t count = std::min(num_trials - begin, meter_->max_calibrations());
      const auto part =
          std::span(trials).subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
      TESSERA_TRY(const auto qualities,
                  meter_->measure(part, job_.text.harm_windows, [&](int64_t done, int64_t total) {
                    job_.progress("windows", begin * total + done * count, num_trials * total);
                  }));
      measured.insert(measured.end(), qualities.begin(), qualities.end());
    }
    return measured;
  }

  Status fit() {
    if (options_.refit != RefitKind::kGradient) {
      return Status::ok();
    }
    TESSERA_TRY(const auto fits,
                fit_calibration({.model = job_.model,
                                 .windows = job_.text.windows,
                                 .progress =
                                     [this](int64_t done, int64_t total) {
                                       job_.progress("fit of keys", done, total);
                                     }},
                                result_.calibration));
    for (size_t layer = 0; layer < fits.size(); ++layer) {
      result_.layers[layer].fit = fits[layer];
    }
    return Status::ok();
  }

  Status measure_choice() {
    const std::span<const TplaCalibration> choice(&result_.calibration, 1);
    TESSERA_TRY(const auto quality,
                meter_->measure(choice, job_.text.held_out, [this](int64_t done, int64_t total) {
                  job_.progress("quality", done, total);
                }));
    result_.quality = quality.front();
    return Status::ok();
  }

  const CalibrationJob& job_;
  const CalibrationOptions& options_;
  const ModelConfig& config_;
  std::optional<LatentStatistics> statistics_;
  std::unique_ptr<HarmMeter> meter_;
  std::vector<TplaCalibration::Layer> plain_;  // by layer, without shared columns
  std::vector<LayerCandidates> candidates_;    // by layer
  std::vector<Trial> trials_;
  CalibrationResult result_;
};

}  // namespace

Result<CalibrationResult> calibrate(const CalibrationJob& job) {
  return Calibrator(job).run();
}

}  // namespace tessera
