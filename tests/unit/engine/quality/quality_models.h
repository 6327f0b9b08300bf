// A model of random weights, small enough for hundreds of steps, in the modes of a measurement.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/quality/measured_model.h"
#include "engine/quality/windows.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/step_input.h"

namespace tessera::test {

class QualityModels final {
 public:
  QualityModels()
      : config_(ModelConfig::parse(R"({
          "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 97, "hidden_size": 32,
          "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
          "max_position_embeddings": 512, "q_lora_rank": 16, "kv_lora_rank": 32,
          "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 5,
          "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
          "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid",
          "topk_method": "noaux_tc", "norm_topk_prob": true, "routed_scaling_factor": 1.0})")
                    .value()),
        hadamard_(TplaTransform::hadamard(config_, 0).value()),
        parts_{.config = config_,
               .load_weights =
                   [this](kernels::Backend& backend, const LoadOptions& load) {
                     return make_dummy_weights(config_, backend, load, 11);
                   },
               .make_backend = kernels::cpu::create_cpu_backend} {}

  /// Sliced modes with a Hadamard basis.
  [[nodiscard]] Result<std::unique_ptr<MeasuredModel>> create(const ShardOptions& sharding,
                                                              int64_t num_sequences = 1) const {
    const bool is_tpla = sharding.attention == AttentionSharding::kTpla;
    return MeasuredModel::create(parts_,
                                 {.sharding = sharding,
                                  .transform = is_tpla ? &hadamard_ : nullptr,
                                  .num_threads = 2,
                                  .num_sequences = num_sequences,
                                  .max_prompt = 96,
                                  .max_length = 400});
  }
  [[nodiscard]] const MeasuredParts& parts() const noexcept { return parts_; }
  [[nodiscard]] std::vector<TextWindow> windows(int64_t count, int64_t length) const {
    std::vector<TextWindow> windows;
    for (int64_t i = 0; i < count; ++i) {
      windows.push_back(make_ids(length, config_.vocab_size, i + 3));
    }
    return windows;
  }

  static ShardOptions tpla(int64_t num_slices) {
    return {
        .attention = AttentionSharding::kTpla, .num_ranks = num_slices, .num_slices = num_slices};
  }
  static ShardOptions windowed(int64_t num_slices, const kernels::LatentWindow& window) {
    ShardOptions options = tpla(num_slices);
    options.window = window;
    return options;
  }
  static ShardOptions dcp(int64_t num_ranks) {
    return {.attention = AttentionSharding::kDcp, .num_ranks = num_ranks};
  }
  static ShardOptions replicated(int64_t num_ranks) { return {.num_ranks = num_ranks}; }

 private:
  const ModelConfig config_;
  const TplaTransform hadamard_;
  const MeasuredParts parts_;
};

}  // namespace tessera::test
