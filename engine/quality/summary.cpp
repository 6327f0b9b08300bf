#include "engine/quality/summary.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"

namespace tessera {
namespace {

Estimate estimate(const std::vector<double>& samples) {
  const auto count = static_cast<double>(samples.size());
  double mean = 0.0;
  for (const double sample : samples) {
    mean += sample / count;
  }
  double squares = 0.0;
  for (const double sample : samples) {
    squares += (sample - mean) * (sample - mean);
  }
  return {.mean = mean,
          .error = samples.size() < 2 ? 0.0 : std::sqrt(squares / (count - 1.0) / count)};
}

struct Means {
  double kl = 0.0;
  double exact_nll = 0.0;
  double mode_nll = 0.0;
  double same_top = 0.0;

  void add(const TokenDivergence& token, double weight) {
    kl += token.kl * weight;
    exact_nll += token.exact_nll * weight;
    mode_nll += token.mode_nll * weight;
    same_top += token.is_same_top ? weight : 0.0;
  }
};

}  // namespace

QualitySummary summarize(const Quality& quality) {
  TESSERA_CHECK(!quality.divergences.empty(), "a measurement without windows");
  std::vector<double> kl;
  std::vector<double> nll_difference;
  std::vector<double> same_top;
  Means all;
  const auto num_windows = static_cast<double>(quality.divergences.size());
  for (const auto& window : quality.divergences) {
    Means means;
    for (const TokenDivergence& token : window) {
      means.add(token, 1.0 / static_cast<double>(window.size()));
    }
    kl.push_back(means.kl);
    nll_difference.push_back(means.mode_nll - means.exact_nll);
    same_top.push_back(means.same_top);
    all.exact_nll += means.exact_nll / num_windows;
    all.mode_nll += means.mode_nll / num_windows;
  }
  QualitySummary summary;
  summary.kl = estimate(kl);
  summary.top1_agreement = estimate(same_top);
  summary.exact_perplexity = std::exp(all.exact_nll);
  summary.perplexity = std::exp(all.mode_nll);
  const Estimate difference = estimate(nll_difference);
  const double ratio = std::exp(difference.mean);
  summary.perplexity_ratio = {.mean = ratio, .error = ratio * difference.error};
  if (!quality.agreement_lengths.empty()) {
    const std::vector<double> lengths(quality.agreement_lengths.begin(),
                                      quality.agreement_lengths.end());
    summary.agreement_length = estimate(lengths);
    summary.num_fully_agreeing = std::count(quality.agreement_lengths.begin(),
                                            quality.agreement_lengths.end(),
                                            quality.lengths.decode_tokens);
  }
  summary.bytes_ratio = quality.bytes_per_token / quality.exact_bytes_per_token;
  return summary;
}

std::vector<CurvePoint> quality_curve(const Quality& quality, int64_t max_points) {
  const int64_t length = quality.lengths.decode_tokens;
  const int64_t size = (length + max_points - 1) / max_points;
  std::vector<CurvePoint> curve;
  for (int64_t begin = 0; begin < length; begin += size) {
    const int64_t end = std::min(begin + size, length);
    const double weight =
        1.0 / static_cast<double>(end - begin) / static_cast<double>(quality.divergences.size());
    Means means;
    for (const auto& window : quality.divergences) {
      for (int64_t i = begin; i < end; ++i) {
        means.add(window[static_cast<size_t>(i)], weight);
      }
    }
    curve.push_back({.begin = begin,
                     .end = end,
                     .kl = means.kl,
                     .exact_perplexity = std::exp(means.exact_nll),
                     .perplexity = std::exp(means.mode_nll),
                     .top1_agreement = means.same_top});
  }
  return curve;
}

}  // namespace tessera
