#include "engine/calibration/calibration_report.h"

#include <iomanip>
#include <sstream>

#include <nlohmann/json.hpp>

namespace tessera {
namespace {

int64_t num_tokens(const std::vector<std::vector<int32_t>>& windows) {
  int64_t count = 0;
  for (const auto& window : windows) {
    count += static_cast<int64_t>(window.size());
  }
  return count;
}

nlohmann::ordered_json windows_of(const CalibrationResult& result) {
  nlohmann::ordered_json windows = nlohmann::ordered_json::array();
  for (const WindowChoice& choice : result.windows) {
    windows.push_back({{"first", choice.window.num_first},
                       {"last", choice.window.num_last},
                       {"bytes_ratio", choice.bytes_ratio},
                       {"kl", choice.kl}});
  }
  return windows;
}

/// What each window costs and buys.
void render_windows(const CalibrationResult& result, std::ostream& out) {
  const kernels::LatentWindow& chosen = result.calibration.window;
  if (result.windows.empty()) {
    out << "exact window: " << chosen.num_first << " first and " << chosen.num_last
        << " last tokens; nothing else was tried\n";
    return;
  }
  out << "first  last tokens exact  bytes of a token  divergence within the budget\n";
  for (const WindowChoice& choice : result.windows) {
    out << std::setw(5) << choice.window.num_first << std::setw(6) << choice.window.num_last
        << std::setprecision(1) << std::setw(30) << 100.0 * choice.bytes_ratio << " %"
        << std::setprecision(6) << std::setw(28) << choice.kl
        << (choice.window == chosen ? "  chosen\n" : "\n");
  }
}

/// How much a fit of the keys has brought.
void render_fits(const CalibrationResult& result, std::ostream& out) {
  double before = 0.0;
  double after = 0.0;
  for (const LayerChoice& layer : result.layers) {
    if (layer.fit.has_value()) {
      before += layer.fit->error_before;
      after += layer.fit->error_after;
    }
  }
  if (before > 0.0) {
    out << "fit of keys: error of the attention's output " << std::setprecision(1)
        << 100.0 * (1.0 - after / before) << " % less on samples held out\n";
  }
}

}  // namespace

std::string calibration_report(const CalibrationJob& job, const CalibrationResult& result) {
  const CalibrationOptions& options = job.options;
  const QualitySummary& quality = result.quality;
  nlohmann::ordered_json report = {{"text", job.text.name},
                                   {"tokens", num_tokens(job.text.windows)},
                                   {"refit", refit_kind_name(options.refit)},
                                   {"budget", options.budget},
                                   {"bytes_ratio", result.bytes_ratio},
                                   {"windows", windows_of(result)},
                                   {"quality",
                                    {{"kl", quality.kl.mean},
                                     {"kl_error", quality.kl.error},
                                     {"perplexity", quality.perplexity},
                                     {"exact_perplexity", quality.exact_perplexity},
                                     {"top1_agreement", quality.top1_agreement.mean},
                                     {"prefill_tokens", options.lengths.prefill_tokens},
                                     {"decode_tokens", options.lengths.decode_tokens},
                                     {"windows", job.text.held_out.size()}}}};
  return report.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string render_calibration(const CalibrationResult& result) {
  std::ostringstream out;
  out << std::fixed;
  out << "layer  shared  bytes of a token  harm without  harm chosen   (harm: nats a token, this "
         "layer alone)\n";
  for (size_t layer = 0; layer < result.layers.size(); ++layer) {
    const LayerChoice& choice = result.layers[layer];
    out << std::setw(5) << layer << std::setw(8) << choice.num_shared << std::setprecision(1)
        << std::setw(15) << 100.0 * (choice.bytes_ratio - 1.0) << " %" << std::setprecision(6)
        << std::setw(15) << choice.plain_harm << std::setw(13) << choice.harm << '\n';
  }
  render_windows(result, out);
  render_fits(result, out);
  const QualitySummary& quality = result.quality;
  out << "all layers: " << std::setprecision(1) << std::showpos
      << 100.0 * (result.bytes_ratio - 1.0) << std::noshowpos
      << " % bytes per token and rank against no shared columns and no window\n"
      << "on text held out: mean divergence " << std::setprecision(5) << quality.kl.mean << " +- "
      << quality.kl.error << " nats a token, perplexity " << std::setprecision(3)
      << quality.perplexity << " (exact " << quality.exact_perplexity << ", "
      << std::setprecision(2) << std::showpos << 100.0 * (quality.perplexity_ratio.mean - 1.0)
      << std::noshowpos << " %), same first choice " << std::setprecision(1)
      << 100.0 * quality.top1_agreement.mean << " %\n";
  return out.str();
}

}  // namespace tessera
