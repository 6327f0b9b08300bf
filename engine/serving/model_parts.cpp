#include "engine/serving/model_parts.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/log.h"
#include "engine/cache/latent_layout.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/checkpoint_fingerprint.h"
#include "engine/weights/fingerprint.h"
#include "engine/weights/tpla_transform.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"

namespace tessera {
namespace {

static_assert(kPlanBlockTokens == kBlockTokens);

// Fixed: prefill workers and decode groups must rotate alike.
constexpr uint64_t kHadamardSeed = 0;

int num_cores() {
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

int threads_of_rank(const WorkerConfig& worker, int64_t num_ranks) {
  const int64_t all = worker.threads != 0 ? worker.threads : num_cores();
  return static_cast<int>(std::max<int64_t>(1, all / num_ranks));
}

Result<kernels::DType> choose_dtype(const WorkerConfig& worker) {
  const auto backend = kernels::cpu::create_cpu_backend(1);
  if (worker.dtype == "auto") {
    return backend->preferred_dtype();
  }
  if (worker.dtype == "float32") {
    return kernels::DType::kFloat32;
  }
  if (backend->preferred_dtype() != kernels::DType::kBFloat16) {
    return invalid_argument(str_cat("dtype ",
                                    worker.dtype,
                                    ": ",
                                    backend->device().description(),
                                    " has no bfloat16 products; use float32"));
  }
  return kernels::DType::kBFloat16;
}

/// The sharding of the decode groups that the options speak of, whatever this worker is.
ShardOptions decode_sharding(const WorkerConfig& worker, WorkerRole role) {
  ShardOptions sharding;
  const int64_t default_ranks = role == WorkerRole::kDecode ? 2 : 1;
  sharding.num_ranks =
      worker.tensor_parallel_size != 0 ? worker.tensor_parallel_size : default_ranks;
  const bool is_tpla = worker.attention_sharding == "tpla" ||
                       (worker.attention_sharding == "auto" && !worker.tpla_calibration.empty());
  if (is_tpla && role != WorkerRole::kCombined) {
    sharding.attention = AttentionSharding::kTpla;
    sharding.num_slices = worker.tpla_slices;
  } else if (worker.attention_sharding == "dcp" && role != WorkerRole::kCombined) {
    sharding.attention = AttentionSharding::kDcp;
  }
  return sharding;
}

void log_auto(const WorkerConfig& worker, const ModelConfig& config, const ShardOptions& sharding) {
  if (worker.attention_sharding != "auto") {
    return;
  }
  if (sharding.attention == AttentionSharding::kTpla) {
    log_info("attention_sharding", "auto", "tpla", "calibration", worker.tpla_calibration);
    return;
  }
  const int64_t whole = config.latent_row_width();
  const int64_t half = config.kv_lora_rank / 2 + config.qk_rope_head_dim;
  log_info("attention_sharding",
           "auto",
           "replicated",
           "reason",
           "no calibration for this model",
           "tpla_would_save",
           str_cat(100 - 100 * half / whole, " % of each rank's cache with 2 slices"));
}

Result<TplaTransform> make_transform(const WorkerConfig& worker,
                                     const ModelConfig& config,
                                     const ShardOptions& sharding) {
  if (sharding.num_slices < 2 || worker.tpla_basis == "none") {
    return TplaTransform();
  }
  if (worker.tpla_basis == "auto" && !worker.tpla_calibration.empty()) {
    return TplaTransform::load(worker.tpla_calibration, config);
  }
  return TplaTransform::hadamard(config, kHadamardSeed);
}

CacheShape cache_shape(const ModelConfig& config,
                       const ShardOptions& sharding,
                       int64_t prefill_images) {
  const int64_t whole = config.latent_row_width();
  const int64_t slice =
      config.kv_lora_rank / std::max<int64_t>(1, sharding.num_slices) + config.qk_rope_head_dim;
  CacheShape shape;
  shape.num_ranks = sharding.num_ranks;
  if (prefill_images > 0) {  // every prefill rank keeps whole latents
    shape.rank_elements = config.kv_lora_rank + prefill_images * config.qk_rope_head_dim;
  } else if (sharding.attention == AttentionSharding::kDcp) {
    shape.rank_elements = whole / sharding.num_ranks;
    shape.worker_elements = whole;
    return shape;
  } else {
    shape.rank_elements = sharding.attention == AttentionSharding::kTpla ? slice : whole;
  }
  shape.worker_elements = shape.rank_elements * sharding.num_ranks;
  return shape;
}

Result<std::string> weights_fingerprint(const WorkerConfig& worker) {
  if (worker.load_format == "dummy") {
    return str_cat("dummy:", worker.seed);
  }
  return checkpoint_fingerprint(worker.model);
}

struct Decisions {
  WorkerPlan plan;
  TplaTransform transform;
  int64_t prefill_slices = 0;  ///< of ParallelSetup
};

Result<Decisions> decide(const WorkerConfig& worker, const ModelConfig& config, WorkerRole role) {
  Decisions decided;
  WorkerPlan& plan = decided.plan;
  TESSERA_TRY(plan.dtype, choose_dtype(worker));
  const ShardOptions wanted = decode_sharding(worker, role);
  plan.sharding = wanted;
  if (role == WorkerRole::kPrefill) {  // heads split, latents whole on each of its ranks
    plan.num_images = wanted.num_slices;
    decided.prefill_slices = plan.num_images;
    plan.sharding = {.num_ranks = wanted.num_ranks};
    // The slices have to be possible, on whatever number of ranks.
    ShardOptions slices = wanted;
    slices.num_ranks = wanted.num_slices;
    TESSERA_RETURN_IF_ERROR(validate_sharding(config, slices));
  }
  TESSERA_RETURN_IF_ERROR(validate_sharding(config, plan.sharding));
  TESSERA_TRY(decided.transform, make_transform(worker, config, wanted));
  TESSERA_TRY(plan.memory,
              plan_memory(config,
                          worker,
                          cache_shape(config, plan.sharding, decided.prefill_slices),
                          kernels::dtype_bytes(plan.dtype),
                          available_memory_bytes()));
  TESSERA_TRY(const std::string weights, weights_fingerprint(worker));
  plan.model = model_fingerprint(config);
  const std::string form = str_cat(wanted.num_slices > 1 ? "cols" : "full",
                                   wanted.num_slices,
                                   "-",
                                   kernels::dtype_name(plan.dtype),
                                   "-",
                                   decided.transform.name());
  plan.layout = str_cat(form,
                        "-",
                        Fingerprint()
                            .add("kvh1")
                            .add(form)
                            .add(plan.model)
                            .add(weights)
                            .add(decided.transform.fingerprint())
                            .finish());
  plan.description = str_cat(attention_sharding_name(wanted.attention),
                             ", ",
                             wanted.num_slices,
                             wanted.num_slices == 1 ? " slice on " : " slices on ",
                             plan.sharding.num_ranks,
                             plan.sharding.num_ranks == 1 ? " rank" : " ranks",
                             ", basis ",
                             decided.transform.name());
  return decided;
}

void warn_if_tight(const MemoryPlan& memory) {
  if (!memory.is_within_memory()) {
    log_warning("memory_is_tight",
                "weights_bytes",
                memory.weight_bytes,
                "cache_bytes",
                memory.kv_cache_bytes,
                "available_bytes",
                memory.available_bytes);
  }
}

ParallelSetup make_setup(const WorkerConfig& worker,
                         const ModelConfig& config,
                         const Decisions& decided) {
  const MemoryPlan& memory = decided.plan.memory;
  ParallelSetup setup{.config = config,
                      .sharding = decided.plan.sharding,
                      .limits = {.max_tokens = worker.max_num_batched_tokens,
                                 .max_sequences = worker.max_num_seqs,
                                 .max_logits_rows = worker.max_num_seqs,
                                 .max_model_len = memory.max_model_len},
                      .num_blocks = memory.num_blocks,
                      .prefill_slices = decided.prefill_slices,
                      .keeps_probes = decided.prefill_slices > 0,
                      .load = {},
                      .load_weights = {}};
  setup.load.dtype = decided.plan.dtype;
  setup.load.transform = &decided.transform;
  return setup;
}

}  // namespace

Result<WorkerPlan> plan_worker(const WorkerConfig& worker,
                               const ModelConfig& config,
                               WorkerRole role) {
  TESSERA_TRY(Decisions decided, decide(worker, config, role));
  return std::move(decided.plan);
}

Result<std::unique_ptr<ModelParts>> ModelParts::create(const WorkerConfig& worker,
                                                       const ModelConfig& config,
                                                       WorkerRole role,
                                                       const Progress& progress) {
  log_info("loading", "model", worker.model);
  TESSERA_TRY(Decisions decided, decide(worker, config, role));
  std::unique_ptr<ModelParts> parts(new ModelParts(config, std::move(decided.plan)));
  decided.plan = parts->plan_;
  const WorkerPlan& plan = parts->plan_;
  if (role != WorkerRole::kCombined) {
    log_auto(worker, config, decode_sharding(worker, role));
  }
  warn_if_tight(plan.memory);
  ParallelSetup setup = make_setup(worker, parts->config_, decided);
  setup.load.progress = [&](int64_t done, int64_t total, std::string_view) {
    progress(done, total);
  };
  std::optional<Checkpoint> checkpoint;
  if (worker.load_format != "dummy") {
    TESSERA_TRY(checkpoint, Checkpoint::open(worker.model));
  }
  setup.load_weights = [&](kernels::Backend& backend,
                           const LoadOptions& load) -> Result<ModelWeights> {
    if (!checkpoint) {
      return make_dummy_weights(parts->config_, backend, load, static_cast<uint64_t>(worker.seed));
    }
    return load_model_weights(parts->config_, *checkpoint, backend, load);
  };
  std::vector<std::unique_ptr<kernels::Backend>> backends;
  for (int64_t rank = 0; rank < plan.sharding.num_ranks; ++rank) {
    backends.push_back(
        kernels::cpu::create_cpu_backend(threads_of_rank(worker, plan.sharding.num_ranks)));
  }
  log_info("backend",
           "device",
           backends.front()->device().description(),
           "dtype",
           kernels::dtype_name(plan.dtype),
           "attention",
           plan.description);
  TESSERA_TRY(parts->runner_, ParallelRunner::create(setup, std::move(backends)));
  return parts;
}

Result<ComputeChoice> choose_compute(const WorkerConfig& worker) {
  ComputeChoice choice;
  TESSERA_TRY(choice.dtype, choose_dtype(worker));
  choice.num_threads = threads_of_rank(worker, 1);
  choice.make_backend = kernels::cpu::create_cpu_backend;
  return choice;
}

EngineOptions make_engine_options(const WorkerConfig& worker, const ModelParts& parts) {
  const ModelConfig& config = parts.config();
  EngineOptions engine;
  engine.vocab_size = config.vocab_size;
  engine.max_model_len = parts.plan().memory.max_model_len;
  engine.num_blocks = parts.plan().memory.num_blocks;
  engine.max_num_seqs = worker.max_num_seqs;
  engine.max_num_batched_tokens = worker.max_num_batched_tokens;
  engine.max_queued_requests = worker.max_queued_requests;
  engine.enable_prefix_caching = worker.enable_prefix_caching;
  engine.cache_fingerprint = parts.plan().layout;
  for (const int64_t id : config.eos_token_ids) {
    engine.eos_ids.push_back(static_cast<int32_t>(id));
  }
  return engine;
}

}  // namespace tessera
