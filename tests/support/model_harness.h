// Loads a checkpoint on a backend, the CPU if not told otherwise, and runs it without scheduler:
// one sequence at a time, in consecutive cache blocks of a shuffled order.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/cache/paged_latent_cache.h"
#include "engine/config/model_config.h"
#include "engine/model/causal_lm.h"
#include "engine/weights/model_weights.h"
#include "kernels/ops/backend.h"

namespace tessera::test {

class ModelHarness final {
 public:
  /// Room for one sequence of `max_tokens` tokens. Cache memory is poisoned with NaN.
  [[nodiscard]] static Result<std::unique_ptr<ModelHarness>> load(const std::string& folder,
                                                                  kernels::DType dtype,
                                                                  int64_t max_tokens,
                                                                  int num_threads = 2);
  [[nodiscard]] static Result<std::unique_ptr<ModelHarness>> load(
      const std::string& folder,
      kernels::DType dtype,
      int64_t max_tokens,
      std::unique_ptr<kernels::Backend> backend);

  /// Runs tokens [begin, ids.size()) in chunks of at most `chunk_tokens`; returns the logits
  /// [ids.size() - begin, V] of all of them. Tokens before `begin` have been run before.
  [[nodiscard]] std::vector<float> prefill(const std::vector<int32_t>& ids,
                                           int64_t begin,
                                           int64_t chunk_tokens);
  /// Runs the last token of `ids` as a decode row; returns its logits [V].
  [[nodiscard]] std::vector<float> decode(const std::vector<int32_t>& ids);
  /// Greedy continuation of `ids`: prefill in one chunk, then decode rows.
  [[nodiscard]] std::vector<int32_t> generate(std::vector<int32_t> ids, int64_t count);

  [[nodiscard]] const ModelConfig& config() const noexcept { return config_; }

 private:
  ModelHarness() = default;
  [[nodiscard]] std::vector<float> run(const ModelInput& input);
  [[nodiscard]] ModelInput step_input(const std::vector<int32_t>& ids,
                                      int64_t begin,
                                      int64_t count) const;

  ModelConfig config_;
  std::unique_ptr<kernels::Backend> backend_;
  ModelWeights weights_;
  std::unique_ptr<PagedLatentCache> cache_;
  std::unique_ptr<CausalLm> model_;
  std::vector<LatentImageView> layers_;
  std::vector<int32_t> table_;
};

/// Index of the largest value.
[[nodiscard]] int32_t argmax(const float* values, int64_t count);
/// sum p log(p / q) of the softmaxes of two rows of `count` logits.
[[nodiscard]] double divergence(const float* p, const float* q, int64_t count);

}  // namespace tessera::test
