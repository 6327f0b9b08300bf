// The probe of what lies in one rank's cache: what a decode rank compares with the sum that prefill
// expects. Shares nothing with how the rows got there. One thread at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/cache/paged_latent_cache.h"
#include "kernels/ops/backend.h"

namespace tessera {

/// Blocks of one sequence that one rank keeps.
struct RankBlocks {
  std::vector<int32_t> ids;  ///< in the rank's cache
  int64_t first_index = 0;   ///< ids[i] is block first_index + i * index_step of the sequence
  int64_t index_step = 1;
  int64_t end = 0;  ///< tokens of the sequence: later positions do not count
};

class LandedProbe final {
 public:
  /// Image 0 of `cache`. Both outlive this object.
  LandedProbe(const PagedLatentCache& cache, kernels::Backend& backend);

  /// Throws DeviceError.
  [[nodiscard]] kernels::ProbeSum sum_blocking(const RankBlocks& blocks);

 private:
  void reserve(int64_t num_blocks);

  const PagedLatentCache& cache_;
  kernels::Device& device_;
  kernels::Ops& ops_;
  int64_t capacity_ = 0;        // blocks
  kernels::DeviceBuffer ids_;   // [capacity] int32
  kernels::DeviceBuffer sums_;  // [capacity] ProbeSum
  std::vector<kernels::ProbeSum> host_sums_;
};

}  // namespace tessera
