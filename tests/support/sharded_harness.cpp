#include "tests/support/sharded_harness.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "engine/weights/checkpoint.h"
#include "kernels/cpu/cpu_backend.h"

namespace tessera::test {
namespace {

/// The ring of the sequence: not the first, so that a slot is no row.
constexpr int64_t kRing = 2;

/// Entry b is congruent to b modulo `num_ranks`; otherwise shuffled over `num_blocks` blocks.
std::vector<int32_t> striped_table(int64_t num_entries, int64_t num_blocks, int64_t num_ranks) {
  std::vector<int32_t> free(static_cast<size_t>(num_blocks));
  std::iota(free.begin(), free.end(), 0);
  std::shuffle(free.begin(), free.end(), std::mt19937(7));
  std::vector<int32_t> table;
  for (int64_t b = 0; b < num_entries; ++b) {
    const auto found = std::find_if(
        free.begin(), free.end(), [&](int32_t id) { return id % num_ranks == b % num_ranks; });
    table.push_back(*found);
    free.erase(found);
  }
  return table;
}

}  // namespace

Result<std::unique_ptr<ShardedHarness>> ShardedHarness::load(const ShardedSetup& setup) {
  std::unique_ptr<ShardedHarness> harness(new ShardedHarness());
  TESSERA_TRY(harness->config_, ModelConfig::load(setup.folder));
  TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(setup.folder));
  const int64_t num_ranks = setup.sharding.num_ranks;
  const int64_t num_entries = blocks_for_tokens(setup.max_tokens);
  // Room for the images of all slices, where a window wants them.
  const int64_t num_images = setup.sharding.window.is_empty() ? 1 : setup.sharding.num_slices;
  const int64_t num_blocks = num_entries * num_images + 2 * num_ranks + 1;
  harness->table_ = striped_table(num_entries, num_blocks, num_ranks);
  const std::vector<int32_t>& table = harness->table_;
  for (int32_t id = 0; id < static_cast<int32_t>(num_blocks); ++id) {
    if (std::find(table.begin(), table.end(), id) == table.end()) {
      harness->spare_.push_back(id);
    }
  }
  const ModelConfig& config = harness->config_;
  std::vector<std::unique_ptr<kernels::Backend>> backends;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    backends.push_back(kernels::cpu::create_cpu_backend(1));
  }
  const ParallelSetup parallel{
      .config = config,
      .sharding = setup.sharding,
      .limits = {.max_tokens = setup.max_tokens,
                 .max_sequences = 4,
                 .max_logits_rows = setup.max_tokens,
                 .max_model_len = setup.max_tokens},
      .num_blocks = num_blocks,
      .prefill_slices = setup.prefill_slices,
      .cache_dtype = setup.cache_dtype,
      .prefill_shared_columns = setup.prefill_shared_columns,
      .load = {.dtype = setup.dtype, .progress = {}, .transform = setup.transform},
      .load_weights = [&](kernels::Backend& backend, const LoadOptions& options) {
        return load_model_weights(config, checkpoint, backend, options);
      }};
  TESSERA_TRY(harness->runner_, ParallelRunner::create(parallel, std::move(backends)));
  harness->poison();
  return harness;
}

void ShardedHarness::poison() {
  for (int rank = 0; rank < runner_->num_ranks(); ++rank) {
    PagedLatentCache& cache = runner_->cache(rank);
    // All bits set is NaN in float32, bfloat16 and float8: a read of an unwritten row shows.
    std::memset(cache.image_address(0, 0), 0xff, static_cast<size_t>(cache.num_bytes()));
    const WindowCache* windows = runner_->window_cache(rank);
    for (int64_t layer = 0; windows != nullptr && layer < config_.num_hidden_layers; ++layer) {
      const kernels::LatentCacheView view = windows->layer_view(layer);
      if (view.num_blocks > 0) {
        std::memset(
            view.base, 0xff, static_cast<size_t>(view.num_blocks * view.block_stride_bytes));
      }
    }
  }
}

ModelInput ShardedHarness::step_input(const std::vector<int32_t>& ids, int64_t begin) const {
  ModelInput input;
  const auto length = static_cast<int64_t>(ids.size());
  const WindowCache* windows = runner_->window_cache(0);
  for (auto position = begin; position < length; ++position) {
    if (windows != nullptr) {
      const kernels::WindowRing& ring = windows->ring();
      input.window_slots.push_back(
          ring.is_kept(position, length) ? windows->first_slot(kRing) + ring.row(position) : -1);
    }
    input.token_ids.push_back(ids[static_cast<size_t>(position)]);
    input.positions.push_back(static_cast<int32_t>(position));
    input.slots.push_back(table_[static_cast<size_t>(position / kBlockTokens)] * kBlockTokens +
                          position % kBlockTokens);
    input.logits_rows.push_back(static_cast<int32_t>(position - begin));
  }
  input.block_tables = table_;
  input.max_blocks_per_sequence = static_cast<int64_t>(table_.size());
  return input;
}

std::vector<float> ShardedHarness::run(const ModelInput& input) {
  const kernels::TensorView logits = runner_->forward_blocking(input);
  return {logits.as<float>(), logits.as<float>() + logits.num_elements()};
}

std::vector<float> ShardedHarness::prefill(const std::vector<int32_t>& ids, int64_t begin) {
  ModelInput input = step_input(ids, begin);
  input.chunks.push_back(
      {.row_begin = 0, .num_tokens = input.num_tokens(), .context_begin = begin, .table_row = 0});
  return run(input);
}

std::vector<float> ShardedHarness::decode(const std::vector<int32_t>& ids) {
  const auto length = static_cast<int64_t>(ids.size());
  ModelInput input = step_input(ids, length - 1);
  input.num_decode = 1;
  input.decode_lengths.push_back(static_cast<int32_t>(length));
  if (const WindowCache* windows = runner_->window_cache(0); windows != nullptr) {
    input.window_first_slots.push_back(windows->first_slot(kRing));
  }
  return run(input);
}

void ShardedHarness::take_image(
    ShardedHarness& prefill_worker, int rank, int64_t slice, int64_t index, int64_t id) {
  const PagedLatentCache& source = prefill_worker.runner_->cache(0);
  PagedLatentCache& target = runner_->cache(rank);
  std::memcpy(target.image_address(id, 0),
              source.image_address(prefill_worker.table_[static_cast<size_t>(index)], slice),
              static_cast<size_t>(target.image_bytes(0)));
}

void ShardedHarness::take_cache(ShardedHarness& prefill_worker, int64_t num_tokens) {
  for (int rank = 0; rank < runner_->num_ranks(); ++rank) {
    const ShardPlan& plan = runner_->weights(rank).plan;
    const bool is_striped = plan.attention == AttentionSharding::kDcp;
    const int64_t stripes = is_striped ? plan.num_ranks : 1;
    for (int64_t b = plan.rank % stripes; b < blocks_for_tokens(num_tokens); b += stripes) {
      take_image(prefill_worker, rank, plan.slice, b, table_[static_cast<size_t>(b)] / stripes);
    }
  }
  if (runner_->window_cache(0) != nullptr) {
    take_window(prefill_worker, num_tokens);
  }
}

void ShardedHarness::take_window(ShardedHarness& prefill_worker, int64_t num_tokens) {
  const int64_t num_slices = runner_->weights(0).plan.num_slices;
  std::vector<int32_t> others;
  for (const int64_t index : window_blocks(runner_->window_cache(0)->ring().window, num_tokens)) {
    for (int64_t next = 1; next < num_slices; ++next) {
      others.push_back(spare_.at(others.size()));
      for (int rank = 0; rank < runner_->num_ranks(); ++rank) {
        const int64_t slice = (runner_->weights(rank).plan.slice + next) % num_slices;
        take_image(prefill_worker, rank, slice, index, others.back());
      }
    }
  }
  runner_->fill_window(
      {.ring = kRing, .num_tokens = num_tokens, .blocks = table_, .other_images = others});
}

std::string ShardedHarness::image_bytes(int rank, int64_t image, int64_t num_tokens) {
  const PagedLatentCache& cache = runner_->cache(rank);
  std::string bytes;
  for (int64_t b = 0; b < blocks_for_tokens(num_tokens); ++b) {
    bytes.append(
        static_cast<const char*>(cache.image_address(table_[static_cast<size_t>(b)], image)),
        static_cast<size_t>(cache.image_bytes(image)));
  }
  return bytes;
}

}  // namespace tessera::test
