// FlashMLA's dense decode on the operands of an own call: the baseline of attention_bench, in
// builds with TESSERA_FLASH_MLA (tools/README.md).
#pragma once

#include <memory>

#include "kernels/ops/attention_params.h"
#include "tools/bench/gpu_bench.h"

namespace tessera::bench {

class DecodeBaseline {
 public:
  virtual ~DecodeBaseline() = default;
  /// Queues its kernels. `params`: those it was made for, but for the addresses.
  virtual void run(const kernels::MlaDecodeParams& params) = 0;
};

[[nodiscard]] bool has_flash_mla();

/// Plans for one batch, as FlashMLA does once a step for all layers. `params`: bfloat16 rows of
/// 512 + 64 columns, one query token a sequence, no window; queries and results without gaps, the
/// rope part behind the latent's. Throws DeviceError for others, and where it is not built in.
[[nodiscard]] std::unique_ptr<DecodeBaseline> create_flash_mla(
    GpuBench& bench, const kernels::MlaDecodeParams& params);

}  // namespace tessera::bench
