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

}  // namespace

std::string calibration_report(const CalibrationJob& job, const CalibrationResult& result) {
  const CalibrationOptions& options = job.options;
  const QualitySummary& quality = result.quality;
  nlohmann::ordered_json report = {{"text", job.text.name},
                                   {"tokens", num_tokens(job.text.windows)},
                                   {"refit", refit_kind_name(options.refit)},
                                   {"budget", options.budget},
                                   {"bytes_ratio", result.bytes_ratio},
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
  const QualitySummary& quality = result.quality;
  out << "all layers: " << std::setprecision(1) << std::showpos
      << 100.0 * (result.bytes_ratio - 1.0) << std::noshowpos
      << " % bytes per token and rank against no shared columns\n"
      << "on text held out: mean divergence " << std::setprecision(5) << quality.kl.mean << " +- "
      << quality.kl.error << " nats a token, perplexity " << std::setprecision(3)
      << quality.perplexity << " (exact " << quality.exact_perplexity << ", "
      << std::setprecision(2) << std::showpos << 100.0 * (quality.perplexity_ratio.mean - 1.0)
      << std::noshowpos << " %), same first choice " << std::setprecision(1)
      << 100.0 * quality.top1_agreement.mean << " %\n";
  return out.str();
}

}  // namespace tessera
