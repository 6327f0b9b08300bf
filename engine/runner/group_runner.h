// StepRunner of a worker: also shows the caches of its group's ranks, which a handoff reads from or
// writes to between steps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/cache/paged_latent_cache.h"
#include "engine/runner/step_runner.h"
#include "kernels/ops/backend.h"

namespace tessera {

class GroupRunner : public StepRunner {
 public:
  [[nodiscard]] virtual int num_ranks() const noexcept = 0;
  [[nodiscard]] virtual PagedLatentCache& cache(int rank) = 0;
  [[nodiscard]] virtual kernels::Backend& backend(int rank) = 0;

  /// Whether what lies in the caches are latents, of which probes can be taken.
  [[nodiscard]] virtual bool has_probes() const noexcept = 0;
  /// By rank: the probe over tokens [begin, end) of a sequence with these blocks, as they lie in
  /// the rank's cache; `begin` is a block's first token. Not on a prefill worker, only where there
  /// are probes. Throws DeviceError.
  [[nodiscard]] virtual std::vector<kernels::ProbeSum> landed_probes_blocking(
      std::span<const int32_t> block_ids, int64_t begin, int64_t end) = 0;
};

}  // namespace tessera
