// StepRunner over the ranks of one group: each has its backend, weights, cache and ModelRunner; all
// run the same step at the same time and rank 0 samples. One rank: no threads, nothing in between.
// One caller at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/cache/paged_latent_cache.h"
#include "engine/cache/window_cache.h"
#include "engine/model/latent_observer.h"
#include "engine/parallel/rank_group.h"
#include "engine/runner/group_runner.h"
#include "engine/runner/landed_probe.h"
#include "engine/runner/model_runner.h"
#include "engine/runner/window_filler.h"
#include "engine/weights/weight_loader.h"
#include "kernels/ops/backend.h"

namespace tessera {

/// Makes the communicators of the ranks of these backends, in subgroups of so many consecutive
/// ones; operands of reduce_scatter_heads and all_gather_columns have `max_operand_bytes` at most.
using CommunicatorFactory = std::function<Result<std::vector<RankCommunicators>>(
    std::span<kernels::Backend* const> backends, int subgroup_size, int64_t max_operand_bytes)>;

/// What a group is made from. References outlive the runner.
struct ParallelSetup {
  const ModelConfig& config;
  ShardOptions sharding;
  StepLimits limits;
  /// Logical blocks; a rank of a dcp group allocates its part of them, every other rank all.
  int64_t num_blocks = 0;
  /// Images of a prefill worker's blocks (COLS of so many slices); 0: what a decode rank keeps.
  /// Only with kReplicated; above 1 every chunk reads all images and no decode row can.
  int64_t prefill_slices = 0;
  /// Of the paged rows; null: that of `load`. Exact windows are always kept in that one.
  std::optional<kernels::DType> cache_dtype = {};
  /// s of each layer in these images; empty: none anywhere.
  std::vector<int64_t> prefill_shared_columns = {};
  /// With sharding.window: rings, 0: one for each of limits.max_sequences; decode rows of one
  /// sequence that a step may run.
  int64_t num_window_rings = 0;
  int64_t window_step_rows = 1;
  /// Rank 0's cache keeps the expected probes of its slots: a prefill worker.
  bool keeps_probes = false;
  LatentObserver* observer = nullptr;  ///< of rank 0; outlives the runner
  CommunicatorFactory make_communicators =
      nullptr;  ///< null: for backends whose memory is the host's
  /// Without `plan`, which each rank gets for itself. `progress` is called for rank 0.
  LoadOptions load;
  /// load_model_weights or make_dummy_weights, called by all ranks at once.
  std::function<Result<ModelWeights>(kernels::Backend&, const LoadOptions&)> load_weights;
};

/// The cache of the rank of `plan`, empty. Errors: those of PagedLatentCache::create().
[[nodiscard]] Result<PagedLatentCache> create_rank_cache(const ParallelSetup& setup,
                                                         const ShardPlan& plan,
                                                         kernels::Device& device);

class ParallelRunner final : public GroupRunner {
 public:
  ~ParallelRunner() override;
  ParallelRunner(const ParallelRunner&) = delete;
  ParallelRunner& operator=(const ParallelRunner&) = delete;

  /// One backend a rank, each called by its rank's thread alone; the ranks load at the same time.
  /// Errors: those of validate_sharding, load_weights and PagedLatentCache::create.
  [[nodiscard]] static Result<std::unique_ptr<ParallelRunner>> create(
      const ParallelSetup& setup, std::vector<std::unique_ptr<kernels::Backend>> backends);

  /// Throws DeviceError; the group cannot be used after that.
  void run_blocking(const ModelInput& input,
                    const SamplingInput& sampling,
                    StepOutput& output) override;
  /// On every rank; in a dcp group on the one that keeps both (equal ids modulo the ranks).
  void copy_block(int32_t source, int32_t destination) override;
  /// Throws DeviceError.
  void fill_window(const LandedWindow& landed) override;
  void copy_window(int64_t source_ring, int64_t destination_ring) override;
  /// The forward pass alone: logits [logits_rows, V] float32, on rank 0's device.
  [[nodiscard]] kernels::TensorView forward_blocking(const ModelInput& input);

  [[nodiscard]] bool has_probes() const noexcept override { return true; }
  [[nodiscard]] std::vector<kernels::ProbeSum> landed_probes_blocking(
      std::span<const int32_t> block_ids, int64_t begin, int64_t end) override;

  [[nodiscard]] int num_ranks() const noexcept override { return static_cast<int>(ranks_.size()); }
  [[nodiscard]] PagedLatentCache& cache(int rank) override { return *part(rank).cache; }
  /// Null without a window.
  [[nodiscard]] const WindowCache* window_cache(int rank) {
    return part(rank).window_cache ? &*part(rank).window_cache : nullptr;
  }
  [[nodiscard]] const ModelWeights& weights(int rank) const {
    return ranks_[static_cast<size_t>(rank)].weights;
  }
  [[nodiscard]] kernels::Backend& backend(int rank) override { return *part(rank).backend; }

 private:
  /// What one rank owns, in the order of its making.
  struct RankParts {
    std::unique_ptr<kernels::Backend> backend;
    ModelWeights weights;
    std::optional<PagedLatentCache> cache;
    std::optional<WindowCache> window_cache;  // with a window
    std::unique_ptr<ModelRunner> runner;
    std::unique_ptr<LandedProbe> landed_probe;
    std::unique_ptr<WindowFiller> window_filler;  // with a window
    Status status;                                ///< of its making
  };

  ParallelRunner(std::vector<std::unique_ptr<kernels::Backend>> backends,
                 std::vector<RankCommunicators> communicators);
  [[nodiscard]] Status build(const ParallelSetup& setup, int rank);
  [[nodiscard]] static Status build_window(const ParallelSetup& setup, RankParts& parts);
  [[nodiscard]] RankParts& part(int rank) { return ranks_[static_cast<size_t>(rank)]; }

  std::vector<RankParts> ranks_;
  RankGroup group_;  // its threads use the ranks
};

}  // namespace tessera
