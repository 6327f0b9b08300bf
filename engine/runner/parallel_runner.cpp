#include "engine/runner/parallel_runner.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/model/cache_images.h"

namespace tessera {
namespace {

Status check_setup(const ParallelSetup& setup, size_t num_backends) {
  TESSERA_RETURN_IF_ERROR(validate_sharding(setup.config, setup.sharding));
  TESSERA_CHECK(static_cast<int64_t>(num_backends) == setup.sharding.num_ranks,
                "one backend a rank");
  if (setup.prefill_slices == 0) {
    return Status::ok();
  }
  if (setup.sharding.attention != AttentionSharding::kReplicated) {
    return invalid_argument(str_cat("a cache of ",
                                    setup.prefill_slices,
                                    " slices with attention sharding ",
                                    attention_sharding_name(setup.sharding.attention),
                                    ", expected replicated"));
  }
  return validate_slices(setup.config, setup.prefill_slices, setup.prefill_shared_columns);
}

/// Of partial values and of logits, the operands that are rearranged on their way.
int64_t max_operand_bytes(const ParallelSetup& setup) {
  const ModelConfig& config = setup.config;
  return std::max(setup.limits.max_sequences * config.num_attention_heads * config.v_head_dim,
                  setup.limits.max_logits_rows * config.vocab_size) *
         static_cast<int64_t>(sizeof(float));
}

Result<std::vector<RankCommunicators>> make_communicators(
    const ParallelSetup& setup,
    const std::vector<std::unique_ptr<kernels::Backend>>& backends,
    int subgroup_size) {
  if (!setup.make_communicators) {
    return make_thread_communicators(static_cast<int>(backends.size()), subgroup_size);
  }
  std::vector<kernels::Backend*> ranks;
  for (const auto& backend : backends) {
    ranks.push_back(backend.get());
  }
  return setup.make_communicators(ranks, subgroup_size, max_operand_bytes(setup));
}

}  // namespace

Result<PagedLatentCache> create_rank_cache(const ParallelSetup& setup,
                                           const ShardPlan& plan,
                                           kernels::Device& device) {
  const bool is_striped = plan.attention == AttentionSharding::kDcp;
  const int64_t num_blocks =
      is_striped ? (setup.num_blocks + plan.num_ranks - 1) / plan.num_ranks : setup.num_blocks;
  const kernels::DType dtype = setup.cache_dtype.value_or(setup.load.dtype);
  auto images =
      setup.prefill_slices > 0
          ? prefill_images(setup.config, setup.prefill_slices, setup.prefill_shared_columns, dtype)
          : rank_images(setup.config, plan, dtype);
  return PagedLatentCache::create(device, std::move(images), num_blocks);
}

Result<std::unique_ptr<ParallelRunner>> ParallelRunner::create(
    const ParallelSetup& setup, std::vector<std::unique_ptr<kernels::Backend>> backends) {
  TESSERA_RETURN_IF_ERROR(check_setup(setup, backends.size()));
  TESSERA_TRY(const ShardPlan first, ShardPlan::create(setup.config, setup.sharding, 0));
  TESSERA_TRY(auto communicators,
              make_communicators(setup, backends, static_cast<int>(first.attention_group_size())));
  std::unique_ptr<ParallelRunner> runner(
      new ParallelRunner(std::move(backends), std::move(communicators)));
  runner->group_.run_blocking(
      [&](int rank) { runner->part(rank).status = runner->build(setup, rank); });
  for (const RankParts& rank : runner->ranks_) {
    TESSERA_RETURN_IF_ERROR(rank.status);
  }
  return runner;
}

ParallelRunner::ParallelRunner(std::vector<std::unique_ptr<kernels::Backend>> backends,
                               std::vector<RankCommunicators> communicators)
    : ranks_(backends.size()), group_(std::move(communicators)) {
  for (size_t rank = 0; rank < backends.size(); ++rank) {
    ranks_[rank].backend = std::move(backends[rank]);
  }
}

ParallelRunner::~ParallelRunner() {
  for (RankParts& rank : ranks_) {
    rank.runner.reset();  // recorded steps hold the communicators, which wait for their end
  }
}

Status ParallelRunner::build(const ParallelSetup& setup, int rank) {
  RankParts& parts = part(rank);
  LoadOptions load = setup.load;
  TESSERA_TRY(load.plan, ShardPlan::create(setup.config, setup.sharding, rank));
  if (rank != 0) {
    load.progress = nullptr;
  }
  TESSERA_TRY(parts.weights, setup.load_weights(*parts.backend, load));
  const ShardPlan& plan = parts.weights.plan;
  TESSERA_TRY(parts.cache, create_rank_cache(setup, plan, parts.backend->device()));
  if (setup.keeps_probes && rank == 0) {
    TESSERA_RETURN_IF_ERROR(parts.cache->keep_probes());
  }
  parts.landed_probe = std::make_unique<LandedProbe>(*parts.cache, *parts.backend);
  if (!plan.window.is_empty()) {
    TESSERA_RETURN_IF_ERROR(build_window(setup, parts));
  }
  RankContext context(*parts.backend, group_.world(rank), group_.attention(rank));
  context.observer = rank == 0 ? setup.observer : nullptr;
  StepLimits limits = setup.limits;
  limits.has_float8_cache = parts.cache->shard().dtype() == kernels::DType::kFloat8E4M3;
  parts.runner = std::make_unique<ModelRunner>(
      setup.config,
      parts.weights,
      limits,
      ModelRunner::Caches(*parts.cache, parts.window_cache ? &*parts.window_cache : nullptr),
      context);
  return Status::ok();
}

Status ParallelRunner::build_window(const ParallelSetup& setup, RankParts& parts) {
  const ShardPlan& plan = parts.weights.plan;
  TESSERA_TRY(
      parts.window_cache,
      WindowCache::create(parts.backend->device(),
                          latent_layout(setup.config, setup.load.dtype),
                          plan.sliced_layers(),
                          {.ring = kernels::WindowRing::create(plan.window, setup.window_step_rows),
                           .num_rings = setup.num_window_rings > 0 ? setup.num_window_rings
                                                                   : setup.limits.max_sequences}));
  parts.window_filler = std::make_unique<WindowFiller>(
      setup.config, plan, *parts.cache, *parts.window_cache, *parts.backend);
  return Status::ok();
}

void ParallelRunner::run_blocking(const ModelInput& input,
                                  const SamplingInput& sampling,
                                  StepOutput& output) {
  group_.run_blocking([&](int rank) {
    if (rank == 0) {
      part(rank).runner->run_blocking(input, sampling, output);
    } else {
      static_cast<void>(part(rank).runner->forward_blocking(input));
    }
  });
}

kernels::TensorView ParallelRunner::forward_blocking(const ModelInput& input) {
  kernels::TensorView logits;
  group_.run_blocking([&](int rank) {
    const kernels::TensorView own = part(rank).runner->forward_blocking(input);
    if (rank == 0) {
      logits = own;
    }
  });
  return logits;
}

std::vector<kernels::ProbeSum> ParallelRunner::landed_probes_blocking(
    std::span<const int32_t> block_ids, int64_t begin, int64_t end) {
  TESSERA_CHECK(begin % kBlockTokens == 0 && part(0).cache->num_images() == 1,
                "landed probes are of whole blocks of one image");
  const ShardPlan& plan = weights(0).plan;
  const bool is_striped = plan.attention == AttentionSharding::kDcp;
  const int64_t step = is_striped ? plan.num_ranks : 1;
  const int64_t first = begin / kBlockTokens;
  const int64_t last = std::min(blocks_for_tokens(end), static_cast<int64_t>(block_ids.size()));
  std::vector<kernels::ProbeSum> sums(ranks_.size());
  group_.run_blocking([&](int rank) {
    RankBlocks own{.ids = {}, .first_index = first, .index_step = step, .end = end};
    if (is_striped) {  // the first block that is this rank's
      own.first_index += ((rank - first) % step + step) % step;
    }
    for (int64_t index = own.first_index; index < last; index += step) {
      own.ids.push_back(block_ids[static_cast<size_t>(index)] / static_cast<int32_t>(step));
    }
    sums[static_cast<size_t>(rank)] = part(rank).landed_probe->sum_blocking(own);
  });
  return sums;
}

void ParallelRunner::copy_block(int32_t source, int32_t destination) {
  const ShardPlan& plan = weights(0).plan;
  if (plan.attention == AttentionSharding::kDcp) {
    const auto size = static_cast<int32_t>(plan.num_ranks);
    TESSERA_CHECK(source % size == destination % size, "copy_block: blocks of two ranks");
    part(source % size).runner->copy_block(source / size, destination / size);
    return;
  }
  for (RankParts& rank : ranks_) {
    rank.runner->copy_block(source, destination);
  }
}

void ParallelRunner::fill_window(const LandedWindow& landed) {
  TESSERA_CHECK(part(0).window_filler != nullptr, "a window in a group that keeps none");
  group_.run_blocking([&](int rank) { part(rank).window_filler->fill_blocking(landed); });
}

void ParallelRunner::copy_window(int64_t source_ring, int64_t destination_ring) {
  TESSERA_CHECK(part(0).window_cache.has_value(), "a window in a group that keeps none");
  for (RankParts& rank : ranks_) {
    rank.window_cache->copy_ring(source_ring, destination_ring, {});
  }
}

}  // namespace tessera
