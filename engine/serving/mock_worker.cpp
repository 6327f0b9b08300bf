#include "engine/serving/mock_worker.h"

namespace tessera {
namespace {

/// Of the latent in each slice, and of the rope part: enough for a transform and for MockRunner.
constexpr int64_t kColumns = 16;

}  // namespace

WorkerConfig mock_options(const WorkerConfig& worker) {
  WorkerConfig mock = worker;
  mock.device = "cpu";
  mock.load_format = "dummy";
  mock.kv_cache_dtype = "auto";
  if (mock.attention_sharding == "auto") {
    mock.attention_sharding = "replicated";
  }
  return mock;
}

ModelConfig mock_model(const ModelConfig& config, int64_t num_slices) {
  ModelConfig mock = config;
  mock.num_hidden_layers = 1;
  mock.kv_lora_rank = kColumns * num_slices;
  mock.qk_rope_head_dim = kColumns;
  return mock;
}

MockSpeed mock_speed(const WorkerConfig& worker) {
  return {.prefill_tokens_per_s = worker.mock_prefill_tokens_per_s,
          .decode_step = std::chrono::milliseconds(worker.mock_decode_step_ms)};
}

}  // namespace tessera
