// The config of a model that is small enough for random weights and hundreds of steps in a test,
// with everything that a large one has: compressed queries, a dense layer, experts.
#pragma once

#include <cstdint>

#include "engine/config/model_config.h"

namespace tessera::test {

inline ModelConfig small_model_config(int64_t num_layers = 2, int64_t num_positions = 256) {
  ModelConfig config = ModelConfig::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 97, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 256, "q_lora_rank": 16, "kv_lora_rank": 32,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 5,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 1.0})")
                           .value();
  config.num_hidden_layers = num_layers;
  config.max_position_embeddings = num_positions;
  return config;
}

}  // namespace tessera::test
