// When requests are due: seconds after the start of a run, fixed beforehand by the seed, so that no
// answer, however late, moves a later request (open loop).
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "server/bench/settings.h"

namespace tessera::bench {

/// The same seed gives the same times. A value; one thread.
class Arrivals final {
 public:
  /// `trace_ms`: of kTrace, the times of its lines, not decreasing; repeated from its end when more
  /// are asked for. Outlives the object.
  Arrivals(const ArrivalSettings& settings, uint64_t seed, const std::vector<double>& trace_ms);

  /// Of the next request; never decreases. Of kClosed always 0: a free slot is what it waits for.
  [[nodiscard]] double next_s();

 private:
  [[nodiscard]] double next_of_trace_s();

  const ArrivalSettings settings_;
  const std::vector<double>& trace_ms_;
  std::mt19937_64 random_;
  std::exponential_distribution<double> exponential_;
  std::gamma_distribution<double> gamma_;
  int64_t index_ = 0;
  double last_s_ = 0.0;
};

}  // namespace tessera::bench
