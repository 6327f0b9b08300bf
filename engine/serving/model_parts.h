// A model on this host's devices, ready to run steps: backends, weights and cache of every rank,
// and what tells workers apart that may not serve one request together. With --engine mock caches
// and steps without a model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/base/result.h"
#include "engine/config/memory_plan.h"
#include "engine/config/model_config.h"
#include "engine/config/worker_config.h"
#include "engine/runner/group_runner.h"
#include "engine/runner/parallel_runner.h"
#include "engine/serving/engine_options.h"
#include "engine/weights/shard_plan.h"

namespace tessera {

enum class WorkerRole : uint8_t {
  kCombined,  ///< prefills and decodes
  kPrefill,   ///< keeps the cache in the layout that decode wants
  kDecode,
};

/// What follows from a worker's options before anything is loaded.
struct WorkerPlan {
  ModelConfig config;  ///< the model's, or of the mock engine's cache
  MemoryPlan memory;
  ShardOptions sharding;              ///< of this worker's ranks
  int64_t num_images = 1;             ///< of a block in a prefill worker's cache
  kernels::LatentWindow window = {};  ///< of the decode groups that serve with this worker
  std::string model;        ///< fingerprint of the model's numbers: a router's workers must agree
  std::string layout;       ///< fingerprint of weights and cache: prefill and decode must agree
  std::string description;  ///< "tpla, 2 slices on 2 ranks, basis hadamard:0", for people
  kernels::DType dtype = kernels::DType::kFloat32;
  kernels::DType cache_dtype = kernels::DType::kFloat32;  ///< of paged latents
};

/// Follows the options on this machine; loads nothing. Logs what `auto` became. Errors:
/// INVALID_ARGUMENT with every fault of the sharding, those of plan_memory(), of the calibration's
/// file and of checkpoint_fingerprint().
[[nodiscard]] Result<WorkerPlan> plan_worker(const WorkerConfig& worker,
                                             const ModelConfig& config,
                                             WorkerRole role);

class ModelParts final {
 public:
  /// Bytes of the weights read so far, and of all.
  using Progress = std::function<void(int64_t done, int64_t total)>;

  /// Loads the weights. Takes as long as they take to read. Errors: those of plan_worker(),
  /// Checkpoint::open() and ParallelRunner::create().
  [[nodiscard]] static Result<std::unique_ptr<ModelParts>> create(const WorkerConfig& worker,
                                                                  const ModelConfig& config,
                                                                  WorkerRole role,
                                                                  const Progress& progress);
  ModelParts(const ModelParts&) = delete;
  ModelParts& operator=(const ModelParts&) = delete;

  [[nodiscard]] const ModelConfig& config() const noexcept { return plan_.config; }
  [[nodiscard]] const WorkerPlan& plan() const noexcept { return plan_; }
  [[nodiscard]] GroupRunner& runner() noexcept { return *runner_; }

 private:
  explicit ModelParts(WorkerPlan plan) : plan_(std::move(plan)) {}

  const WorkerPlan plan_;
  std::unique_ptr<GroupRunner> runner_;
};

/// What runs a model of up to so many ranks outside of a worker: `device`, `dtype`,
/// `kv_cache_dtype` and `threads` of the options.
struct ComputeChoice {
  kernels::DType dtype = kernels::DType::kFloat32;
  kernels::DType cache_dtype = kernels::DType::kFloat32;  ///< as --kv-cache-dtype has it
  int num_threads = 1;                                    ///< of all ranks together, on the CPU
  std::function<std::unique_ptr<kernels::Backend>(int rank, int num_threads)> make_backend;
  CommunicatorFactory make_communicators;  ///< of ParallelSetup
};

/// Errors: those of choose_compute_device().
[[nodiscard]] Result<ComputeChoice> choose_compute(const WorkerConfig& worker, int64_t max_ranks);

/// What an engine over these parts is created with. The prefix cache's salt is the layout.
[[nodiscard]] EngineOptions make_engine_options(const WorkerConfig& worker,
                                                const ModelParts& parts);

}  // namespace tessera
