// How late one of the client's own threads is, sampled at a steady period.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

#include "server/bench/settings.h"

namespace tessera::bench {

inline constexpr std::chrono::milliseconds kLagProbePeriod{10};
/// Raw samples are kept so that percentiles are exact: 4 bytes each.
inline constexpr size_t kMaxLagSamples = 10'000'000;

/// What was due at `due` happened at `now`, not before it. A sample for every period that was
/// missed: one stall is as many late ones as it lasted.
inline void add_lag_samples(Clock::time_point due,
                            Clock::time_point now,
                            std::vector<float>& lag_ms) {
  for (; due <= now && lag_ms.size() < kMaxLagSamples; due += kLagProbePeriod) {
    lag_ms.push_back(std::chrono::duration<float, std::milli>(now - due).count());
  }
}

}  // namespace tessera::bench
