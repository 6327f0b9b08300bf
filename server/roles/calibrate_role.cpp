#include "server/roles/calibrate_role.h"

#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "engine/calibration/calibration_text.h"
#include "engine/calibration/calibrator.h"
#include "engine/serving/model_parts.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/checkpoint_fingerprint.h"
#include "engine/weights/checkpoint_source.h"
#include "engine/weights/fingerprint.h"
#include "engine/weights/shard_plan.h"
#include "server/cli/progress_bar.h"
#include "server/roles/text_source.h"

namespace tessera {
namespace {

Result<double> parse_number(std::string_view name, const std::string& text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return invalid_argument(str_cat("--", name, " is \"", text, "\", expected a number"));
  }
  return value;
}

Result<LogitFactor> parse_logit_factor(const std::string& text) {
  LogitFactor factor;
  if (text == "share") {
    factor.kind = LogitFactorKind::kShare;
  } else if (text != "auto") {
    factor.kind = LogitFactorKind::kGiven;
    TESSERA_TRY(factor.value, parse_number("logit-factor", text));
  }
  return factor;
}

// The calibration looks at windows of text of so many tokens.
constexpr int64_t kMaxCalibratedWindow = 1024;

Result<std::optional<int64_t>> parse_window(const std::string& text) {
  std::optional<int64_t> window;
  if (text == "auto") {
    return window;
  }
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 ||
      value > kMaxCalibratedWindow) {
    return invalid_argument(str_cat(
        "--window is \"", text, "\", expected auto or a number from 0 to ", kMaxCalibratedWindow));
  }
  window = value;
  return window;
}

Result<CalibrationOptions> read_options(const cli::Options& options) {
  CalibrationOptions result;
  result.num_slices = options.num_slices;
  result.basis = parse_basis_kind(options.basis).value_or(result.basis);
  result.dealing = parse_dealing_kind(options.dealing).value_or(result.dealing);
  result.refit = parse_refit_kind(options.refit).value_or(result.refit);
  TESSERA_TRY(result.logit_factor, parse_logit_factor(options.logit_factor));
  TESSERA_TRY(result.budget, parse_number("tpla-budget", options.budget));
  TESSERA_TRY(result.window, parse_window(options.window));
  result.sinks = options.num_sinks;
  return result;
}

struct Texts {
  CalibrationText cut;
  std::string fingerprint;
};

Result<Texts> read_texts(const cli::Options& options,
                         const ModelConfig& config,
                         const QualityLengths& lengths) {
  std::vector<std::vector<int32_t>> texts;
  std::optional<int32_t> bos_id;
  std::string names;
  Fingerprint digest;
  for (const std::string& path : options.calibration_texts) {
    TESSERA_TRY(TextTokens tokens, load_text_tokens(options.model, path, config));
    digest.add(
        {reinterpret_cast<const char*>(tokens.ids.data()), tokens.ids.size() * sizeof(int32_t)});
    bos_id = tokens.bos_id;
    texts.push_back(std::move(tokens.ids));
    names += (names.empty() ? "" : ", ") + path.substr(path.rfind('/') + 1);
  }
  CalibrationTextOptions cut{.num_tokens = options.calibration_tokens, .lengths = lengths};
  cut.window_tokens = std::min(cut.window_tokens, config.max_position_embeddings);
  Texts result;
  TESSERA_TRY(result.cut, cut_calibration_text(texts, bos_id, cut));
  result.cut.name = names;
  result.fingerprint =
      digest.add(str_cat(options.calibration_tokens, "/", cut.window_tokens)).finish();
  return result;
}

/// One bar after the other.
class StageBar final {
 public:
  void update(std::string_view stage, int64_t done, int64_t total) {
    if (stage != stage_) {
      stage_ = stage;
      bar_ = std::make_unique<cli::ProgressBar>(stderr, isatty(STDERR_FILENO) == 1, stage_);
    }
    bar_->update(static_cast<double>(done), static_cast<double>(total));
  }

 private:
  std::string stage_;
  std::unique_ptr<cli::ProgressBar> bar_;
};

}  // namespace

Status run_calibrate(const cli::ResolvedOptions& resolved) {
  const cli::Options& options = resolved.options;
  TESSERA_TRY(const ModelConfig config, ModelConfig::load(options.model));
  WorkerConfig on_host = options;  // the collectors read latents where the model keeps them
  on_host.device = "cpu";
  TESSERA_TRY(const ComputeChoice compute, choose_compute(on_host, 1));
  TESSERA_TRY(const CalibrationOptions calibration, read_options(options));
  TESSERA_TRY(const Texts texts, read_texts(options, config, calibration.lengths));
  TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(options.model));
  TESSERA_TRY(const std::string weights, checkpoint_fingerprint(options.model));
  const MeasuredParts parts{.config = config,
                            .load_weights =
                                [&](kernels::Backend& backend, const LoadOptions& load) {
                                  return load_model_weights(config, checkpoint, backend, load);
                                },
                            .make_backend = compute.make_backend};
  const CalibrationModel model{.parts = parts,
                               .dtype = compute.dtype,
                               .num_threads = compute.num_threads,
                               .open_source = [&]() -> Result<std::unique_ptr<TensorSource>> {
                                 TESSERA_TRY(auto source,
                                             CheckpointSource::create(config, checkpoint));
                                 return std::unique_ptr<TensorSource>(std::move(source));
                               }};
  const std::string output = options.output_path.empty()
                                 ? options.model + "/" + kTplaCalibrationFile
                                 : options.output_path;
  StageBar bar;
  const CalibrationJob job{
      .model = model,
      .text = texts.cut,
      .options = calibration,
      .statistics_path =
          options.statistics_path.empty() ? output + ".statistics" : options.statistics_path,
      .statistics_key =
          str_cat(weights, "/", texts.fingerprint, "/", kernels::dtype_name(model.dtype)),
      .progress = [&bar](std::string_view stage, int64_t done, int64_t total) {
        bar.update(stage, done, total);
      }};
  TESSERA_TRY(const CalibrationResult result, calibrate(job));
  TESSERA_RETURN_IF_ERROR(write_tpla_calibration(output, config, result.calibration));
  std::fputs(render_calibration(result).c_str(), stdout);
  std::printf("%s\n", output.c_str());
  return Status::ok();
}

}  // namespace tessera
