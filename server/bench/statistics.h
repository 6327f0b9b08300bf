// Figures of samples: exact percentiles of what was kept, and what they all mean together.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera::bench {

struct Distribution {
  std::vector<double> sorted;  ///< all samples
  double mean = 0.0;
  double deviation = 0.0;  ///< of the population, as numpy's std()

  [[nodiscard]] int64_t count() const noexcept { return static_cast<int64_t>(sorted.size()); }
  [[nodiscard]] double max() const noexcept { return sorted.empty() ? 0.0 : sorted.back(); }
  /// Linear between the two nearest samples; `percent` from 0 to 100. 0 without samples.
  [[nodiscard]] double percentile(double percent) const noexcept;
};

[[nodiscard]] Distribution make_distribution(std::vector<double> samples);

/// The percentiles that reports show.
inline constexpr double kPercentiles[] = {50.0, 90.0, 95.0, 99.0, 99.9};

/// What a percentile of so many samples is worth.
enum class Soundness : uint8_t {
  kSound,   ///< ten samples beyond it at least
  kWeak,    ///< fewer: much of it is accident
  kAbsent,  ///< fewer than one: it is no more than the maximum under another name
};
[[nodiscard]] Soundness percentile_soundness(int64_t count, double percent) noexcept;

}  // namespace tessera::bench
