#include "engine/serving/model_parts.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "engine/base/log.h"
#include "engine/cache/latent_layout.h"
#include "engine/serving/attention_choice.h"
#include "engine/serving/compute_device.h"
#include "engine/serving/handoff_settings.h"
#include "engine/serving/mock_worker.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/checkpoint_fingerprint.h"
#include "engine/weights/fingerprint.h"
#include "engine/weights/weight_loader.h"

namespace tessera {
namespace {

static_assert(kPlanBlockTokens == kBlockTokens);

Result<std::string> weights_fingerprint(const WorkerConfig& worker) {
  if (worker.is_mock()) {
    return std::string("mock");
  }
  if (worker.load_format == "dummy") {
    return str_cat("dummy:", worker.seed);
  }
  return checkpoint_fingerprint(worker.model);
}

/// `auto` may have become something that so many ranks cannot do, which nobody asked for by name.
Status with_remedy(const Status& status, const WorkerConfig& worker, const ShardOptions& wanted) {
  if (status.is_ok() || worker.attention_sharding != "auto" ||
      wanted.attention != AttentionSharding::kTpla) {
    return status;
  }
  return {status.code(),
          str_cat(status.message(),
                  "\n--attention-sharding auto is tpla, because the model has a calibration: say "
                  "replicated, to this and to the prefill workers, or change the number of ranks")};
}

struct Decisions {
  WorkerConfig worker;  ///< the options, as far as they mean something for this worker
  WorkerPlan plan;
  ComputeDevice device;
  AttentionChoice attention;   ///< of the decode groups
  int64_t prefill_slices = 0;  ///< of ParallelSetup
};

/// What prefill and decode must agree on: bases, slices, shared columns and the window are in
/// the transform's fingerprint.
std::string layout_fingerprint(const WorkerPlan& plan,
                               const AttentionChoice& attention,
                               const std::string& weights) {
  const int64_t slices = attention.sharding.num_slices;
  std::string form = str_cat(slices > 1 ? "cols" : "full",
                             slices,
                             "-",
                             kernels::dtype_name(plan.dtype),
                             "-",
                             plan.cache_dtype == plan.dtype ? "" : "kv-float8_e4m3-",
                             attention.transform.name());
  std::replace(form.begin(), form.end(), ' ', '-');
  return str_cat(form,
                 "-",
                 Fingerprint()
                     .add("kvh1")
                     .add(form)
                     .add(plan.model)
                     .add(weights)
                     .add(attention.transform.fingerprint())
                     .finish());
}

/// Of the landing arenas of all ranks, or of a prefill worker's send rings, which mirror them.
/// Ranks that share out whole blocks get whole rows.
int64_t handoff_elements(const WorkerConfig& worker,
                         const ShardOptions& sharding,
                         const CacheShape& shape) {
  const int64_t token_elements = sharding.attention == AttentionSharding::kDcp
                                     ? sharding.num_ranks * shape.whole_elements
                                     : shape.worker_elements;
  return kGpuLandingRegions * worker.landing_slots * kBlockTokens * token_elements;
}

/// What hands caches over goes to GPUs only when it is told to: both ends have to, with a UCX that
/// has CUDA support, and workers on one host have to share its GPUs out.
WorkerConfig effective_options(const WorkerConfig& worker, WorkerRole role) {
  WorkerConfig chosen = worker.is_mock() ? mock_options(worker) : worker;
  if (role != WorkerRole::kCombined && worker.device == "auto") {
    chosen.device = "cpu";
  }
  return chosen;
}

Result<Decisions> decide(const WorkerConfig& options, const ModelConfig& model, WorkerRole role) {
  Decisions decided;
  decided.worker = effective_options(options, role);
  const WorkerConfig& worker = decided.worker;
  WorkerPlan& plan = decided.plan;
  plan.config = worker.is_mock() ? mock_model(model, worker.tpla_slices) : model;
  const ModelConfig& config = plan.config;
  TESSERA_TRY(decided.attention, choose_attention(worker, config, role));
  const ShardOptions& wanted = decided.attention.sharding;
  TESSERA_TRY(decided.device, choose_compute_device(worker, wanted.num_ranks));
  plan.dtype = decided.device.dtype;
  plan.cache_dtype = cache_dtype(worker, plan.dtype);
  plan.sharding = wanted;
  plan.window = wanted.window;
  if (role == WorkerRole::kPrefill) {  // heads split, latents whole on each of its ranks
    plan.num_images = wanted.num_slices;
    decided.prefill_slices = plan.num_images;
    plan.sharding = {.num_ranks = wanted.num_ranks};
    // The slices have to be possible, on whatever number of ranks.
    TESSERA_RETURN_IF_ERROR(validate_slices(config, wanted.num_slices, wanted.shared_columns));
  }
  TESSERA_RETURN_IF_ERROR(with_remedy(validate_sharding(config, plan.sharding), worker, wanted));
  CacheShape shape = cache_shape(config,
                                 decided.attention,
                                 plan.sharding,
                                 decided.prefill_slices,
                                 {.activations = plan.dtype, .cache = plan.cache_dtype});
  const bool hands_over = role != WorkerRole::kCombined && decided.device.kind == DeviceKind::kCuda;
  shape.handoff_elements = hands_over ? handoff_elements(worker, plan.sharding, shape) : int64_t{0};
  TESSERA_TRY(plan.memory,
              plan_memory(config,
                          worker,
                          shape,
                          kernels::dtype_bytes(plan.dtype),
                          memory_budget(decided.device, plan.sharding.num_ranks)));
  TESSERA_TRY(const std::string weights, weights_fingerprint(worker));
  plan.model = model_fingerprint(model);
  plan.layout = layout_fingerprint(plan, decided.attention, weights);
  plan.description = describe(decided.attention, config, plan.sharding.num_ranks);
  return decided;
}

void warn_if_tight(const MemoryPlan& memory) {
  if (!memory.is_within_memory()) {
    log_warning("memory_is_tight",
                "weights_bytes",
                memory.weight_bytes,
                "cache_bytes",
                memory.kv_cache_bytes,
                "window_bytes",
                memory.window_bytes,
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
                                 .max_model_len = memory.max_model_len,
                                 .context_tile = decided.device.context_tile},
                      .num_blocks = memory.num_blocks,
                      .prefill_slices = decided.prefill_slices,
                      .cache_dtype = decided.plan.cache_dtype,
                      .prefill_shared_columns = decided.prefill_slices > 0
                                                    ? decided.attention.sharding.shared_columns
                                                    : std::vector<int64_t>{},
                      .keeps_probes = decided.prefill_slices > 0,
                      .load = {},
                      .load_weights = {}};
  setup.load.dtype = decided.plan.dtype;
  setup.load.transform = &decided.attention.transform;
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
  TESSERA_TRY(const Decisions decided, decide(worker, config, role));
  std::unique_ptr<ModelParts> parts(new ModelParts(decided.plan));
  const WorkerPlan& plan = parts->plan_;
  if (role != WorkerRole::kCombined) {
    log_auto(decided.worker, plan.config, decided.attention);
  }
  if (role == WorkerRole::kDecode && !worker.is_mock()) {
    log_quality(decided.worker, decided.attention);
  }
  warn_if_tight(plan.memory);
  ParallelSetup setup = make_setup(decided.worker, plan.config, decided);
  std::vector<std::unique_ptr<kernels::Backend>> backends;
  for (int64_t rank = 0; rank < plan.sharding.num_ranks; ++rank) {
    backends.push_back(make_backend(decided.device, rank));
  }
  log_info("backend",
           "device",
           worker.is_mock() ? "none: the mock engine" : backends.front()->device().description(),
           "dtype",
           kernels::dtype_name(plan.dtype),
           "attention",
           plan.description);
  if (worker.is_mock()) {
    TESSERA_TRY(parts->runner_, MockRunner::create(setup, mock_speed(worker), std::move(backends)));
    return parts;
  }
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
      return make_dummy_weights(plan.config, backend, load, static_cast<uint64_t>(worker.seed));
    }
    return load_model_weights(plan.config, *checkpoint, backend, load);
  };
  setup.make_communicators = communicator_factory(decided.device, worker);
  TESSERA_TRY(parts->runner_, ParallelRunner::create(setup, std::move(backends)));
  return parts;
}

Result<ComputeChoice> choose_compute(const WorkerConfig& worker, int64_t max_ranks) {
  TESSERA_TRY(const ComputeDevice device, choose_compute_device(worker, max_ranks));
  return ComputeChoice{.dtype = device.dtype,
                       .cache_dtype = cache_dtype(worker, device.dtype),
                       .num_threads = compute_threads(worker),
                       .make_backend =
                           [kind = device.kind](int rank, int num_threads) {
                             return make_backend({.kind = kind, .num_threads = num_threads}, rank);
                           },
                       .make_communicators = communicator_factory(device, worker)};
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
  engine.ring = kernels::WindowRing::create(parts.plan().sharding.window);
  for (const int64_t id : config.eos_token_ids) {
    engine.eos_ids.push_back(static_cast<int32_t>(id));
  }
  return engine;
}

}  // namespace tessera
