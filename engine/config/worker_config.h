// What one worker (a model on this host's devices) is told. Plain values with their defaults; names
// and help of the flags are in server/cli. Immutable once resolved.
#pragma once

#include <cstdint>
#include <string>

namespace tessera {

struct WorkerConfig {
  std::string model;             ///< checkpoint folder
  std::string engine = "model";  ///< "mock": nothing is computed
  int64_t mock_prefill_tokens_per_s = 20'000;
  int64_t mock_decode_step_ms = 20;
  std::string device = "auto";
  std::string nccl_library;                    ///< path of libnccl; empty: as the system finds it
  std::string all_reduce = "auto";             ///< "nccl": never through peer memory
  std::string gpu_memory_utilization = "0.9";  ///< share of a GPU's memory that may be taken
  std::string dtype = "auto";
  std::string kv_cache_dtype = "auto";  ///< "fp8_e4m3": float8 rows (kernels/ops/latent_row.h)
  std::string load_format = "auto";
  int64_t seed = 0;
  int64_t threads = 0;  ///< 0: one for each core

  int64_t max_model_len = 0;  ///< 0: max_position_embeddings
  int64_t max_num_seqs = 128;
  int64_t max_num_batched_tokens = 1024;
  int64_t max_queued_requests = 1024;
  bool enable_prefix_caching = true;
  int64_t kv_cache_memory_bytes = 0;  ///< 0: from the free memory, see MemoryPlan
  int64_t num_blocks = 0;             ///< 0: from kv_cache_memory_bytes

  int64_t tensor_parallel_size = 0;  ///< ranks; 0: chosen by the role
  std::string attention_sharding = "auto";
  int64_t tpla_slices = 2;  ///< g
  std::string tpla_basis = "auto";
  std::string tpla_calibration;          ///< file; empty: none
  int64_t max_local_prefill_tokens = 0;  ///< decode: longest prompt it prefills itself
  int64_t landing_slots = 32;            ///< decode: block images of one prefill worker in flight

  [[nodiscard]] bool is_mock() const noexcept { return engine == "mock"; }
};

}  // namespace tessera
