// Compares the probes that prefill expects with those of what landed on the ranks of a decode
// group.
#pragma once

#include <cstdint>
#include <span>

#include "engine/base/status.h"
#include "engine/handoff/messages.h"
#include "kernels/ops/probe_params.h"

namespace tessera {

/// Tokens of a handoff that prefill has sent.
struct LandedTokens {
  std::span<const int32_t> block_ids;  ///< of the whole prompt
  int64_t begin = 0;                   ///< those before it decode held already
  int64_t end = 0;
};

/// `expected` by image, `landed` by rank. Each rank's sum is compared alone; of ranks that share
/// out whole blocks, the sum over them. Errors: DATA_LOSS naming the rank and both values.
[[nodiscard]] Status compare_probes(const DecodeLayout& layout,
                                    std::span<const double> expected,
                                    std::span<const kernels::ProbeSum> landed);

}  // namespace tessera
