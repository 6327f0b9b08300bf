// Runs one sequence at a time on a ParallelRunner over the CPU backend, without scheduler, in
// blocks of a shuffled order that keep the rule of striped groups (id mod N = index mod N), with an
// exact window in one of several rings. All cache memory is poisoned with NaN.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "engine/runner/parallel_runner.h"
#include "engine/weights/tpla_transform.h"

namespace tessera::test {

struct ShardedSetup {
  std::string folder;
  ShardOptions sharding = {};
  int64_t max_tokens = 256;
  kernels::DType dtype = kernels::DType::kFloat32;
  const TplaTransform* transform = nullptr;
  int64_t prefill_slices = 0;
  std::vector<int64_t> prefill_shared_columns = {};
  std::optional<kernels::DType> cache_dtype = {};  ///< of ParallelSetup
};

class ShardedHarness final {
 public:
  [[nodiscard]] static Result<std::unique_ptr<ShardedHarness>> load(const ShardedSetup& setup);

  /// Runs tokens [begin, ids.size()) as one chunk; returns the logits [ids.size() - begin, V].
  [[nodiscard]] std::vector<float> prefill(const std::vector<int32_t>& ids, int64_t begin = 0);
  /// Runs the last token of `ids` as a decode row; returns its logits [V].
  [[nodiscard]] std::vector<float> decode(const std::vector<int32_t>& ids);
  /// Takes over the latents of the first `num_tokens` tokens from a prefill worker whose images are
  /// what the ranks here keep: bytes of (block, image), as a handoff would copy them; with an exact
  /// window, other slices' images of its blocks too.
  void take_cache(ShardedHarness& prefill_worker, int64_t num_tokens);
  /// The bytes of one image of the blocks of the first `num_tokens` tokens, as `rank` has them.
  [[nodiscard]] std::string image_bytes(int rank, int64_t image, int64_t num_tokens);
  /// NaN everywhere.
  void poison();

  [[nodiscard]] const ModelConfig& config() const noexcept { return config_; }
  [[nodiscard]] ParallelRunner& runner() noexcept { return *runner_; }

 private:
  ShardedHarness() = default;
  /// Copies one image of block `index` of the sequence to block `id` of a rank.
  void take_image(
      ShardedHarness& prefill_worker, int rank, int64_t slice, int64_t index, int64_t id);
  void take_window(ShardedHarness& prefill_worker, int64_t num_tokens);
  [[nodiscard]] ModelInput step_input(const std::vector<int32_t>& ids, int64_t begin) const;
  [[nodiscard]] std::vector<float> run(const ModelInput& input);

  ModelConfig config_;
  std::unique_ptr<ParallelRunner> runner_;
  std::vector<int32_t> table_;
  std::vector<int32_t> spare_;  // blocks that are not in the table
};

}  // namespace tessera::test
