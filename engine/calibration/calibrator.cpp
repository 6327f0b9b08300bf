#include "engine/calibration/calibrator.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "engine/base/text.h"
#include "engine/calibration/budget_search.h"
#include "engine/calibration/calibration_report.h"
#include "engine/calibration/harm_meter.h"
#include "engine/calibration/key_fit.h"
#include "engine/calibration/shared_column_grid.h"
#include "engine/parallel/rank_group.h"
#include "engine/parallel/thread_communicator.h"
#include "engine/weights/shard_plan.h"

namespace tessera {
namespace {

/// More shared columns are not tried once a layer's harm has fallen to this share of what it is
/// without any.
constexpr double kNegligible = 1e-3;

/// One number of shared columns of one layer.
struct Candidate {
  int64_t num_shared = 0;
  double logit_error = 0.0;
};

class Calibrator final {
 public:
  explicit Calibrator(const CalibrationJob& job)
      : job_(job),
        options_(job.options),
        config_(job.model.parts.config),
        threads_(make_thread_communicators(job.model.num_threads, job.model.num_threads)) {}

  Result<CalibrationResult> run() {
    TESSERA_RETURN_IF_ERROR(check());
    TESSERA_RETURN_IF_ERROR(gather());
    result_.calibration = empty_calibration();
    TESSERA_RETURN_IF_ERROR(cut_layers());
    TESSERA_TRY(meter_, HarmMeter::create(job_.model, options_.lengths));
    TESSERA_RETURN_IF_ERROR(measure_layers());
    TESSERA_RETURN_IF_ERROR(choose());
    TESSERA_RETURN_IF_ERROR(apply_choice());
    TESSERA_RETURN_IF_ERROR(fit_layers());
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
    if (options_.num_slices < 2 || !(options_.budget >= 1.0)) {
      return invalid_argument(str_cat("slices are ",
                                      options_.num_slices,
                                      ", expected 2 or more; the budget is ",
                                      options_.budget,
                                      ", expected 1 or more"));
    }
    if (job_.text.windows.empty() || job_.text.harm_windows.empty() || job_.text.held_out.empty()) {
      return invalid_argument("the text is too short for statistics and a part held out");
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
      candidates_.push_back(candidates_of(layer, prepared, plain.logit_error));
      plain_.push_back(std::move(plain.calibration));
    }
    job_.progress("cutting", num_layers(), num_layers());
    return Status::ok();
  }

  [[nodiscard]] std::vector<Candidate> candidates_of(int64_t layer,
                                                     const PreparedLayer& prepared,
                                                     double plain_error) const {
    std::vector<Candidate> candidates = {{0, plain_error}};
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

  /// The harm of every layer alone, without shared columns.
  Status measure_layers() {
    int64_t done = 0;
    while (done < num_layers()) {
      const int64_t end = std::min(num_layers(), done + meter_->max_calibrations());
      std::vector<TplaCalibration> trials;
      for (int64_t layer = done; layer < end; ++layer) {
        trials.push_back(result_.calibration);
        trials.back().layers[static_cast<size_t>(layer)] = plain_[static_cast<size_t>(layer)];
      }
      TESSERA_TRY(const auto harms,
                  meter_->measure(trials, job_.text.harm_windows, [&](int64_t part, int64_t total) {
                    job_.progress(
                        "harm of layers", done * total + part * (end - done), num_layers() * total);
                  }));
      for (const QualitySummary& harm : harms) {
        result_.layers.push_back({.plain_harm = std::max(0.0, harm.kl.mean)});
      }
      done = end;
    }
    return Status::ok();
  }

  [[nodiscard]] double harm_of(size_t layer, const Candidate& candidate) const {
    const double plain = candidates_[layer].front().logit_error;
    return plain > 0.0 ? result_.layers[layer].plain_harm * candidate.logit_error / plain : 0.0;
  }

  [[nodiscard]] int64_t plain_elements() const {
    return row_elements(config_, options_.num_slices, 0);
  }

  /// Costs are elements of a token beyond those without shared columns.
  [[nodiscard]] std::vector<std::vector<BudgetCandidate>> budget_table() const {
    std::vector<std::vector<BudgetCandidate>> table;
    for (size_t layer = 0; layer < candidates_.size(); ++layer) {
      table.emplace_back();
      for (const Candidate& candidate : candidates_[layer]) {
        const int64_t elements = row_elements(config_, options_.num_slices, candidate.num_shared);
        table.back().push_back(
            {.cost = elements - plain_elements(), .harm = harm_of(layer, candidate)});
      }
    }
    return table;
  }

  Status choose() {
    const auto table = budget_table();
    const auto all_plain = static_cast<double>(plain_elements() * num_layers());
    const auto extra = static_cast<int64_t>(std::floor((options_.budget - 1.0) * all_plain + 1e-6));
    TESSERA_TRY(const std::vector<int64_t> chosen, search_budget(table, extra));
    int64_t cost = 0;
    for (size_t layer = 0; layer < chosen.size(); ++layer) {
      const auto choice = static_cast<size_t>(chosen[layer]);
      note_choice(layer, choice, table[layer][choice]);
      cost += table[layer][choice].cost;
    }
    result_.bytes_ratio = 1.0 + static_cast<double>(cost) / all_plain;
    return Status::ok();
  }

  void note_choice(size_t layer, size_t choice, const BudgetCandidate& candidate) {
    LayerChoice& out = result_.layers[layer];
    out.num_shared = candidates_[layer][choice].num_shared;
    out.harm = candidate.harm;
    out.bytes_ratio =
        1.0 + static_cast<double>(candidate.cost) / static_cast<double>(plain_elements());
  }

  Status apply_choice() {
    Status status;
    for (int64_t layer = 0; layer < num_layers() && status.is_ok(); ++layer) {
      status = apply(layer);
    }
    return status;
  }

  /// The chosen cut becomes the layer's.
  Status apply(int64_t layer) {
    const auto index = static_cast<size_t>(layer);
    TplaCalibration::Layer& out = result_.calibration.layers[index];
    const LayerChoice& choice = result_.layers[index];
    if (choice.num_shared == 0) {
      out = std::move(plain_[index]);
    } else if (choice.num_shared < config_.kv_lora_rank) {
      TESSERA_TRY(const PreparedLayer prepared, prepare(layer));
      out = cut_layer(prepared.knowledge, prepared.basis, cut_options(layer, choice.num_shared))
                .calibration;
    }
    out.harm = choice.harm;
    return Status::ok();
  }

  /// Fits as many layers at once as have room for their samples.
  Status fit_layers() {
    if (options_.refit != RefitKind::kGradient) {
      return Status::ok();
    }
    constexpr int64_t kMaxBytes = int64_t{1} << 30;
    constexpr int64_t kMaxWindows = 40;
    const auto num_windows = std::min(kMaxWindows, static_cast<int64_t>(job_.text.windows.size()));
    const auto length = static_cast<int64_t>(job_.text.windows.front().size());
    const int64_t at_once =
        std::max<int64_t>(1, kMaxBytes / (num_windows * sample_bytes(config_, length)));
    for (int64_t begin = 0; begin < num_layers(); begin += at_once) {
      const int64_t count = std::min(at_once, num_layers() - begin);
      TESSERA_TRY(const auto samples,
                  gather_samples(job_.model,
                                 {.windows = job_.text.windows,
                                  .max_windows = num_windows,
                                  .first_layer = begin,
                                  .num_layers = count,
                                  .progress = [&](int64_t done, int64_t total) {
                                    job_.progress("attention samples",
                                                  begin * total + done * count,
                                                  num_layers() * total);
                                  }}));
      TESSERA_RETURN_IF_ERROR(fit_layers(begin, samples));
    }
    return Status::ok();
  }

  Status fit_layers(int64_t begin, const std::vector<std::vector<AttentionSample>>& samples) {
    std::vector<LayerWeightsOfHeads> weights;
    TESSERA_TRY(const auto source, job_.model.open_source());
    for (size_t i = 0; i < samples.size(); ++i) {
      weights.push_back(read_head_weights(config_, *source, begin + static_cast<int64_t>(i)));
    }
    std::atomic<size_t> next = 0;
    threads_.run_blocking([&](int) {
      for (size_t i = next++; i < samples.size(); i = next++) {
        fit_layer(begin + static_cast<int64_t>(i), weights[i], samples[i]);
      }
    });
    return Status::ok();
  }

  void fit_layer(int64_t layer,
                 const LayerWeightsOfHeads& weights,
                 const std::vector<AttentionSample>& samples) {
    const auto index = static_cast<size_t>(layer);
    TplaCalibration::Layer& out = result_.calibration.layers[index];
    if (out.num_shared < config_.kv_lora_rank) {
      result_.layers[index].fit =
          fit_keys(config_,
                   weights,
                   samples,
                   {.num_slices = options_.num_slices, .seed = static_cast<uint64_t>(layer)},
                   out);
    }
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
  RankGroup threads_;
  std::optional<LatentStatistics> statistics_;
  std::unique_ptr<HarmMeter> meter_;
  std::vector<TplaCalibration::Layer> plain_;       // by layer, without shared columns
  std::vector<std::vector<Candidate>> candidates_;  // by layer, rising shared columns
  CalibrationResult result_;
};

}  // namespace

Result<CalibrationResult> calibrate(const CalibrationJob& job) {
  return Calibrator(job).run();
}

}  // namespace tessera
