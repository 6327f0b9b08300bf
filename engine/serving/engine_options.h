// The numbers an engine is created with, and the check of a request against them. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/request/generation_request.h"
#include "kernels/ops/latent_window.h"

namespace tessera {

struct EngineOptions {
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;              ///< prompt and generated tokens of one choice
  int64_t num_blocks = 0;                 ///< of the latent cache
  int64_t max_num_seqs = 256;             ///< choices in one step
  int64_t max_num_batched_tokens = 2048;  ///< tokens in one step
  int64_t max_queued_requests = 1024;     ///< requests that have not started
  bool enable_prefix_caching = true;
  int32_t num_stripes = 1;           ///< ranks that blocks are dealt to by index (dcp)
  bool recomputes_preempted = true;  ///< else the request ends with UNAVAILABLE ("preempted")
  kernels::WindowRing ring = {};     ///< of the runner's window cache; empty: it has none
  std::string cache_fingerprint;     ///< what decides the bytes in the cache: model, layout
  std::vector<int32_t> eos_ids;

  /// Errors: INVALID_ARGUMENT naming the option and its value.
  [[nodiscard]] Status validate() const;
  /// Errors: INVALID_ARGUMENT: bad parameters, or a request that can never run to its end here.
  [[nodiscard]] Status check_request(const GenerationRequest& request) const;
};

}  // namespace tessera
