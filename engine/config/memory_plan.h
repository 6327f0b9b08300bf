// How the memory of this machine is divided between weights and latent cache. Arithmetic only:
// nothing is loaded or allocated.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "engine/config/worker_config.h"

namespace tessera {

/// Tokens of one cache block.
inline constexpr int64_t kPlanBlockTokens = 64;

/// How many numbers a worker keeps because of how its ranks share the latents: of one token over
/// all layers, and beside that.
struct CacheShape {
  int64_t num_ranks = 1;
  int64_t worker_elements = 0;  ///< over all ranks of the worker; 0: one whole row a layer
  int64_t rank_elements = 0;    ///< on one rank, on average; 0: one whole row a layer
  bool is_rotated = false;      ///< the latents have another basis than the checkpoint's
  // Over all ranks, of sliced latents only.
  int64_t basis_elements = 0;       ///< float32: bases that are products of their own
  int64_t window_key_elements = 0;  ///< whole keys, for the exact window's tokens
  int64_t window_elements = 0;      ///< rows of one sequence's exact window
  int64_t landing_blocks = 0;       ///< besides its own, while the longest sequence is handed over
  int64_t handoff_elements = 0;     ///< landing arenas or send rings in GPU memory
  int64_t whole_elements = 0;       ///< of a rank that kept everything; 0: one whole row a layer
};

struct MemoryPlan {
  int64_t element_bytes = 0;  ///< of one number in products and cache
  int64_t num_parameters = 0;
  /// Estimate; both forms of kv_b, the packed head and transform_bytes included.
  int64_t weight_bytes = 0;
  int64_t transform_bytes = 0;     ///< bases of the latents and keys of the exact window
  int64_t window_bytes = 0;        ///< exact windows of --max-num-seqs sequences
  int64_t handoff_bytes = 0;       ///< landing arenas or send rings in GPU memory
  int64_t kv_bytes_per_token = 0;  ///< of all ranks of the worker
  int64_t kv_bytes_per_token_and_rank = 0;
  int64_t whole_kv_bytes_per_token = 0;  ///< if a rank kept everything
  bool has_float8_cache = false;         ///< rows are of kernels/ops/latent_row.h's float8 form
  int64_t num_ranks = 1;
  int64_t bytes_per_block = 0;
  int64_t max_model_len = 0;
  int64_t num_blocks = 0;
  int64_t kv_cache_bytes = 0;
  int64_t available_bytes = 0;      ///< before loading
  bool is_context_reduced = false;  ///< max_model_len was cut to what the cache holds

  [[nodiscard]] int64_t cache_tokens() const noexcept { return num_blocks * kPlanBlockTokens; }
  [[nodiscard]] int64_t needed_bytes() const noexcept {
    return weight_bytes + window_bytes + handoff_bytes + kv_cache_bytes;
  }
  [[nodiscard]] bool is_within_memory() const noexcept { return needed_bytes() <= available_bytes; }
};

/// What weights and cache may take together.
struct MemoryBudget {
  int64_t available_bytes = 0;
  bool is_exclusive = false;  ///< a GPU's, all of which is this worker's
  bool keeps_float8 = false;  ///< matrices of an FP8 checkpoint stay as they are
};

/// Memory that this process may still take: MemAvailable, bounded by its control group's limit.
[[nodiscard]] int64_t available_memory_bytes();

/// Without --kv-cache-memory and --num-blocks the cache gets half of what weights and exact windows
/// leave free, but not more than --max-num-seqs sequences of full length can use, nor (unless one
/// sequence of full length needs more) than 4 GiB. Of exclusive memory it gets all that they leave
/// free.
/// Errors: INVALID_ARGUMENT (--max-model-len beyond the model's), RESOURCE_EXHAUSTED with both
/// figures.
[[nodiscard]] Result<MemoryPlan> plan_memory(const ModelConfig& config,
                                             const WorkerConfig& options,
                                             const CacheShape& cache,
                                             int64_t element_bytes,
                                             const MemoryBudget& budget);

/// The plan for people, several lines.
[[nodiscard]] std::string describe(const MemoryPlan& plan, const ModelConfig& config);

}  // namespace tessera
