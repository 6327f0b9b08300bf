// A model of random weights, small enough for hundreds of steps, in the modes of a measurement.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/quality/measured_model.h"
#include "engine/quality/windows.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/small_model.h"
#include "tests/support/step_input.h"

namespace tessera::test {

class QualityModels final {
 public:
  QualityModels()
      : config_(small_model_config(2, 512)),
        hadamard_(TplaTransform::hadamard(config_, 0).value()),
        parts_{.config = config_,
               .load_weights =
                   [this](kernels::Backend& backend, const LoadOptions& load) {
                     return make_dummy_weights(config_, backend, load, 11);
                   },
               .make_backend =
                   [](int, int threads) { return kernels::cpu::create_cpu_backend(threads); }} {}

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
