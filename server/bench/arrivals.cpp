#include "server/bench/arrivals.h"

#include <algorithm>

namespace tessera::bench {
namespace {

double rate_or_one(const ArrivalSettings& settings) {
  return settings.rate > 0.0 ? settings.rate : 1.0;
}

}  // namespace

Arrivals::Arrivals(const ArrivalSettings& settings,
                   uint64_t seed,
                   const std::vector<double>& trace_ms)
    : settings_(settings),
      trace_ms_(trace_ms),
      random_(seed),
      exponential_(rate_or_one(settings)),
      // The mean, shape times scale, is one over the rate whatever the shape.
      gamma_(settings.burstiness, 1.0 / (rate_or_one(settings) * settings.burstiness)) {}

double Arrivals::next_s() {
  const int64_t index = index_++;
  switch (settings_.kind) {
    case ArrivalKind::kConstant:
      // Not a sum: a million rounding errors would shift the last ones.
      last_s_ = static_cast<double>(index) / settings_.rate;
      break;
    case ArrivalKind::kPoisson:
      last_s_ += exponential_(random_);
      break;
    case ArrivalKind::kGamma:
      last_s_ += gamma_(random_);
      break;
    case ArrivalKind::kTrace:
      last_s_ = next_of_trace_s();
      break;
    case ArrivalKind::kClosed:
      break;
  }
  return last_s_;
}

double Arrivals::next_of_trace_s() {
  if (trace_ms_.empty()) {
    return 0.0;
  }
  const auto size = static_cast<int64_t>(trace_ms_.size());
  const int64_t index = index_ - 1;
  const int64_t repetition = index / size;
  // A repetition follows the last line at the trace's mean distance.
  const double span_ms = trace_ms_.back() - trace_ms_.front();
  const double period_ms = span_ms + span_ms / static_cast<double>(std::max<int64_t>(size - 1, 1));
  const double at_ms = trace_ms_[static_cast<size_t>(index % size)] - trace_ms_.front() +
                       period_ms * static_cast<double>(repetition);
  return at_ms / 1000.0 / settings_.trace_speed;
}

}  // namespace tessera::bench
