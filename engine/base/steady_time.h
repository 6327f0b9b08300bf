// Readings of the steady clock as numbers. Roles of one machine share that clock, so that a
// benchmark may compare the times in their logs.
#pragma once

#include <chrono>
#include <cstdint>

#include "engine/base/deadline.h"

namespace tessera {

[[nodiscard]] inline double seconds_between(Deadline::Clock::time_point begin,
                                            Deadline::Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

[[nodiscard]] inline int64_t steady_us(Deadline::Clock::time_point at) {
  return std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count();
}

}  // namespace tessera
