#include "server/router/retry_budget.h"

#include <algorithm>
#include <cmath>

namespace tessera::router {

RetryBudget::RetryBudget(const RouterOptions& options)
    : options_(options), random_(std::random_device{}()), tokens_(options.retry_burst) {}

void RetryBudget::note_request() {
  tokens_ = std::min(options_.retry_burst, tokens_ + options_.retry_ratio);
}

bool RetryBudget::try_take(TimePoint now) {
  if (filled_at_ != TimePoint::min()) {
    const double seconds = std::chrono::duration<double>(now - filled_at_).count();
    tokens_ = std::min(options_.retry_burst,
                       tokens_ + std::max(0.0, seconds) * options_.retry_floor_per_second);
  }
  filled_at_ = now;
  if (tokens_ < 1.0) {
    return false;
  }
  tokens_ -= 1.0;
  return true;
}

RetryBudget::TimePoint RetryBudget::next_at(TimePoint now) const {
  const std::chrono::duration<double> wait((1.0 - tokens_) / options_.retry_floor_per_second);
  // A microsecond more, so that rounding does not make the token just miss.
  return now + std::chrono::ceil<std::chrono::microseconds>(wait) + std::chrono::microseconds(1);
}

Deadline::Clock::duration RetryBudget::backoff(int32_t num_failures) {
  const double first = std::chrono::duration<double>(options_.backoff_first).count();
  const double last = std::chrono::duration<double>(options_.backoff_last).count();
  const double pause = std::min(last, std::ldexp(first, std::clamp(num_failures - 1, 0, 20)));
  const double jitter = std::uniform_real_distribution<double>(0.5, 1.5)(random_);
  return std::chrono::duration_cast<Deadline::Clock::duration>(
      std::chrono::duration<double>(pause * jitter));
}

}  // namespace tessera::router
