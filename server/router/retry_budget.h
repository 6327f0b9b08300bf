// Keeps replays from multiplying a failure's load: a token bucket that requests fill, with a floor,
// and the back-off between attempts. A replay may have to wait for its token; it is never refused.
#pragma once

#include <chrono>
#include <cstdint>
#include <random>

#include "engine/base/deadline.h"
#include "server/router/router_options.h"

namespace tessera::router {

/// Router thread only.
class RetryBudget final {
 public:
  using TimePoint = Deadline::Clock::time_point;

  explicit RetryBudget(const RouterOptions& options);

  /// A new request earns its share.
  void note_request();
  /// Takes one replay out of the bucket; false when it holds less.
  [[nodiscard]] bool try_take(TimePoint now);
  /// When try_take() may succeed by the floor alone. Call after it failed.
  [[nodiscard]] TimePoint next_at(TimePoint now) const;
  /// Pause before try number `num_failures` + 1: doubled each time, bounded, half to one and a
  /// half.
  [[nodiscard]] Deadline::Clock::duration backoff(int32_t num_failures);

 private:
  const RouterOptions& options_;
  std::minstd_rand random_;
  double tokens_;
  TimePoint filled_at_ = TimePoint::min();
};

}  // namespace tessera::router
