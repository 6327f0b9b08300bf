#include "engine/quality/summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/base/check.h"

namespace tessera {
namespace {

/// Sums first and divides last: a share of all tokens is exactly 1.
Estimate estimate(const std::vector<double>& samples) {
  const auto count = static_cast<double>(samples.size());
  const double mean = std::accumulate(samples.begin(), samples.end(), 0.0) / count;
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
};

class Sums final {
 public:
  void add(const TokenDivergence& token) {
    sums_.kl += token.kl;
    sums_.exact_nll += token.exact_nll;
    sums_.mode_nll += token.mode_nll;
    sums_.same_top += token.is_same_top ? 1.0 : 0.0;
    count_ += 1.0;
  }
  [[nodiscard]] Means means() const {
    return {.kl = sums_.kl / count_,
            .exact_nll = sums_.exact_nll / count_,
            .mode_nll = sums_.mode_nll / count_,
            .same_top = sums_.same_top / count_};
  }

 private:
  Means sums_;
  double count_ = 0.0;
};

/// Over decoded positions [begin, end) of all windows.
Means means_of(const Quality& quality, int64_t begin, int64_t end) {
  Sums sums;
  for (const auto& window : quality.divergences) {
    for (int64_t i = begin; i < end; ++i) {
      sums.add(window[static_cast<size_t>(i)]);
    }
  }
  return sums.means();
}

}  // namespace

QualitySummary summarize(const Quality& quality) {
  TESSERA_CHECK(!quality.divergences.empty(), "a measurement without windows");
  std::vector<double> kl;
  std::vector<double> nll_difference;
  std::vector<double> same_top;
  Sums all;
  for (const auto& window : quality.divergences) {
    Sums sums;
    for (const TokenDivergence& token : window) {
      sums.add(token);
      all.add(token);
    }
    const Means means = sums.means();
    kl.push_back(means.kl);
    nll_difference.push_back(means.mode_nll - means.exact_nll);
    same_top.push_back(means.same_top);
  }
  QualitySummary summary;
  summary.kl = estimate(kl);
  summary.top1_agreement = estimate(same_top);
  summary.exact_perplexity = std::exp(all.means().exact_nll);
  summary.perplexity = std::exp(all.means().mode_nll);
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
    const Means means = means_of(quality, begin, end);
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
