#include "engine/serving/worker_parts.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "engine/base/log.h"
#include "engine/cache/paged_latent_cache.h"
#include "engine/runner/model_runner.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"

namespace tessera {
namespace {

static_assert(kPlanBlockTokens == kBlockTokens);

int num_threads(const WorkerConfig& worker) {
  return worker.threads != 0 ? static_cast<int>(worker.threads)
                             : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

Result<kernels::DType> choose_dtype(const WorkerConfig& worker, kernels::Backend& backend) {
  if (worker.dtype == "auto") {
    return backend.preferred_dtype();
  }
  if (worker.dtype == "float32") {
    return kernels::DType::kFloat32;
  }
  if (backend.preferred_dtype() != kernels::DType::kBFloat16) {
    return invalid_argument(str_cat("dtype ",
                                    worker.dtype,
                                    ": ",
                                    backend.device().description(),
                                    " has no bfloat16 products; use float32"));
  }
  return kernels::DType::kBFloat16;
}

Result<MemoryPlan> make_plan(const WorkerConfig& worker,
                             const ModelConfig& config,
                             kernels::DType dtype) {
  return plan_memory(
      config, worker, CacheShape{}, kernels::dtype_bytes(dtype), available_memory_bytes());
}

Result<ModelWeights> load_weights(const WorkerConfig& worker,
                                  const ModelConfig& config,
                                  kernels::Backend& backend,
                                  const LoadOptions& load) {
  if (worker.load_format == "dummy") {
    return make_dummy_weights(config, backend, load, static_cast<uint64_t>(worker.seed));
  }
  TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(worker.model));
  return load_model_weights(config, checkpoint, backend, load);
}

LatentShard whole_cache(const ModelConfig& config, kernels::DType dtype) {
  const LatentLayout layout{.latent_widths = std::vector<int64_t>(
                                static_cast<size_t>(config.num_hidden_layers), config.kv_lora_rank),
                            .rope_width = config.qk_rope_head_dim,
                            .dtype = dtype};
  return LatentShard::full(layout);
}

EngineOptions engine_options(const WorkerConfig& worker,
                             const ModelConfig& config,
                             const MemoryPlan& plan) {
  EngineOptions engine;
  engine.vocab_size = config.vocab_size;
  engine.max_model_len = plan.max_model_len;
  engine.num_blocks = plan.num_blocks;
  engine.max_num_seqs = worker.max_num_seqs;
  engine.max_num_batched_tokens = worker.max_num_batched_tokens;
  engine.max_queued_requests = worker.max_queued_requests;
  engine.enable_prefix_caching = worker.enable_prefix_caching;
  engine.cache_fingerprint =
      str_cat(worker.model, " ", worker.load_format, " ", worker.seed, " ", plan.element_bytes);
  for (const int64_t id : config.eos_token_ids) {
    engine.eos_ids.push_back(static_cast<int32_t>(id));
  }
  return engine;
}

}  // namespace

struct WorkerParts::Parts {
  ModelConfig config;
  MemoryPlan plan;
  std::unique_ptr<kernels::Backend> backend;
  ModelWeights weights;
  std::optional<PagedLatentCache> cache;
  std::optional<ModelRunner> runner;
  std::unique_ptr<Engine> engine;  // last: its thread uses the rest
};

Result<std::unique_ptr<WorkerParts>> WorkerParts::create(const WorkerConfig& worker,
                                                         const ModelConfig& config,
                                                         const Progress& progress) {
  auto parts = std::make_unique<Parts>();
  parts->config = config;
  parts->backend = kernels::cpu::create_cpu_backend(num_threads(worker));
  kernels::Device& device = parts->backend->device();
  TESSERA_TRY(const kernels::DType dtype, choose_dtype(worker, *parts->backend));
  log_info("backend", "device", device.description(), "dtype", kernels::dtype_name(dtype));
  TESSERA_TRY(parts->plan, make_plan(worker, config, dtype));
  if (!parts->plan.is_within_memory()) {
    log_warning("memory_is_tight",
                "weights_bytes",
                parts->plan.weight_bytes,
                "cache_bytes",
                parts->plan.kv_cache_bytes,
                "available_bytes",
                parts->plan.available_bytes);
  }
  LoadOptions load;
  load.dtype = dtype;
  load.progress = [&](int64_t done, int64_t total, std::string_view) { progress(done, total); };
  TESSERA_TRY(parts->weights, load_weights(worker, config, *parts->backend, load));
  TESSERA_TRY(parts->cache,
              PagedLatentCache::create(device, whole_cache(config, dtype), parts->plan.num_blocks));
  const StepLimits limits{.max_tokens = worker.max_num_batched_tokens,
                          .max_sequences = worker.max_num_seqs,
                          .max_logits_rows = worker.max_num_seqs,
                          .max_model_len = parts->plan.max_model_len};
  parts->runner.emplace(parts->config, parts->weights, limits, *parts->cache, *parts->backend);
  TESSERA_TRY(parts->engine,
              Engine::create(engine_options(worker, config, parts->plan), *parts->runner));
  return std::unique_ptr<WorkerParts>(new WorkerParts(std::move(parts)));
}

WorkerParts::WorkerParts(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
WorkerParts::~WorkerParts() = default;

Engine& WorkerParts::engine() noexcept {
  return *parts_->engine;
}

const MemoryPlan& WorkerParts::plan() const noexcept {
  return parts_->plan;
}

Result<MemoryPlan> plan_for_this_machine(const WorkerConfig& worker, const ModelConfig& config) {
  const auto backend = kernels::cpu::create_cpu_backend(1);
  TESSERA_TRY(const kernels::DType dtype, choose_dtype(worker, *backend));
  return make_plan(worker, config, dtype);
}

}  // namespace tessera
