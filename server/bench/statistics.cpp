#include "server/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace tessera::bench {

double Distribution::percentile(double percent) const noexcept {
  if (sorted.empty()) {
    return 0.0;
  }
  const double place = percent / 100.0 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = place - static_cast<double>(below);
  return sorted[below] + (sorted[above] - sorted[below]) * share;
}

Distribution make_distribution(std::vector<double> samples) {
  Distribution result;
  result.sorted = std::move(samples);
  std::sort(result.sorted.begin(), result.sorted.end());
  if (result.sorted.empty()) {
    return result;
  }
  const auto count = static_cast<double>(result.sorted.size());
  for (const double sample : result.sorted) {
    result.mean += sample / count;
  }
  double squares = 0.0;
  for (const double sample : result.sorted) {
    squares += (sample - result.mean) * (sample - result.mean);
  }
  result.deviation = std::sqrt(squares / count);
  return result;
}

Soundness percentile_soundness(int64_t count, double percent) noexcept {
  // A hair less than 10 and 1, since 99.9 is not a binary fraction.
  const double beyond = static_cast<double>(count) * (100.0 - percent) / 100.0;
  if (beyond < 0.9999) {
    return Soundness::kAbsent;
  }
  return beyond < 9.999 ? Soundness::kWeak : Soundness::kSound;
}

}  // namespace tessera::bench
