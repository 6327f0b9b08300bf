#include "engine/quality/measured_model.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/cache/latent_layout.h"

namespace tessera {
namespace {

constexpr int64_t kMaxLogitsBytes = int64_t{64} << 20;
constexpr int64_t kMinRows = 32;
constexpr int64_t kMaxRows = 256;

int64_t rows_for(int64_t vocab_size) {
  const int64_t row_bytes = vocab_size * static_cast<int64_t>(sizeof(float));
  return std::clamp(kMaxLogitsBytes / row_bytes, kMinRows, kMaxRows);
}

ParallelSetup make_setup(const MeasuredParts& parts,
                         const MeasuredOptions& options,
                         int64_t num_blocks) {
  const int64_t rows = rows_for(parts.config.vocab_size);
  return {.config = parts.config,
          .sharding = options.sharding,
          .limits = {.max_tokens = std::max(options.max_prompt, rows),
                     .max_sequences = rows,
                     .max_logits_rows = rows,
                     .max_model_len = options.max_length},
          .num_blocks = num_blocks,
          .cache_dtype = options.cache_dtype,
          .num_window_rings = options.num_sequences,
          // A row for every token: sequences are taken back to an earlier position, too.
          .window_step_rows = options.max_length,
          .make_communicators = parts.make_communicators,
          .load = {.dtype = options.dtype, .progress = {}, .transform = options.transform},
          .load_weights = parts.load_weights};
}

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

MeasuredModel::MeasuredModel(const MeasuredParts& parts, const MeasuredOptions& options)
    : vocab_size_(parts.config.vocab_size),
      max_rows_(rows_for(parts.config.vocab_size)),
      max_prompt_(options.max_prompt),
      max_length_(options.max_length),
      num_sequences_(options.num_sequences),
      blocks_per_sequence_(
          round_up(blocks_for_tokens(options.max_length), options.sharding.num_ranks)) {}

Result<std::unique_ptr<MeasuredModel>> MeasuredModel::create(const MeasuredParts& parts,
                                                             const MeasuredOptions& options) {
  if (options.max_length > parts.config.max_position_embeddings) {
    return invalid_argument(str_cat("sequences of ",
                                    options.max_length,
                                    " tokens, the model has ",
                                    parts.config.max_position_embeddings,
                                    " positions"));
  }
  std::unique_ptr<MeasuredModel> model(new MeasuredModel(parts, options));
  const int64_t num_ranks = options.sharding.num_ranks;
  const int64_t num_blocks = options.num_sequences * model->blocks_per_sequence_;
  std::vector<std::unique_ptr<kernels::Backend>> backends;
  const int num_threads = std::max(1, options.num_threads / static_cast<int>(num_ranks));
  for (int rank = 0; rank < static_cast<int>(num_ranks); ++rank) {
    backends.push_back(parts.make_backend(rank, num_threads));
  }
  TESSERA_TRY(model->runner_,
              ParallelRunner::create(make_setup(parts, options, num_blocks), std::move(backends)));
  return model;
}

void MeasuredModel::prefill_blocking(int64_t sequence,
                                     int64_t begin,
                                     std::span<const int32_t> ids) {
  add_chunk(sequence, begin, ids);
  static_cast<void>(run());
}

std::span<const float> MeasuredModel::prefill_logits_blocking(int64_t sequence,
                                                              int64_t begin,
                                                              std::span<const int32_t> ids) {
  add_chunk(sequence, begin, ids);
  for (int32_t row = 0; row < static_cast<int32_t>(ids.size()); ++row) {
    input_.logits_rows.push_back(row);
  }
  return run();
}

std::span<const float> MeasuredModel::decode_blocking(std::span<const Row> rows) {
  input_.clear();
  for (const Row& row : rows) {
    input_.logits_rows.push_back(static_cast<int32_t>(input_.num_tokens()));
    add_token(row.sequence, row.position, row.id);
    add_table(row.sequence);
    input_.decode_lengths.push_back(static_cast<int32_t>(row.position) + 1);
    if (const WindowCache* windows = runner_->window_cache(0); windows != nullptr) {
      input_.window_first_slots.push_back(windows->first_slot(row.sequence));
    }
  }
  input_.num_decode = static_cast<int64_t>(rows.size());
  return run();
}

double MeasuredModel::bytes_per_token() const {
  double most = 0.0;
  for (int rank = 0; rank < runner_->num_ranks(); ++rank) {
    const ShardPlan& plan = runner_->weights(rank).plan;
    const bool is_striped = plan.attention == AttentionSharding::kDcp;
    const auto share = static_cast<double>(is_striped ? plan.num_ranks : 1);
    const auto block = static_cast<double>(runner_->cache(rank).block_bytes());
    most = std::max(
        most, block / static_cast<double>(kBlockTokens) / share + window_bytes_per_token(rank));
  }
  return most;
}

double MeasuredModel::window_bytes_per_token(int rank) const {
  const WindowCache* windows = runner_->window_cache(rank);
  if (windows == nullptr) {
    return 0.0;
  }
  const kernels::LatentWindow& window = windows->ring().window;
  int64_t row_bytes = 0;
  for (int64_t layer = 0; layer < windows->num_layers(); ++layer) {
    row_bytes += windows->row_bytes(layer);
  }
  return static_cast<double>((window.num_first + window.num_last) * row_bytes) /
         static_cast<double>(kWindowContext);
}

void MeasuredModel::add_chunk(int64_t sequence, int64_t begin, std::span<const int32_t> ids) {
  input_.clear();
  input_.chunks.push_back({.row_begin = 0,
                           .num_tokens = static_cast<int64_t>(ids.size()),
                           .context_begin = begin,
                           .table_row = 0});
  for (size_t i = 0; i < ids.size(); ++i) {
    add_token(sequence, begin + static_cast<int64_t>(i), ids[i]);
  }
  add_table(sequence);
}

void MeasuredModel::add_token(int64_t sequence, int64_t position, int32_t id) {
  TESSERA_CHECK(sequence < num_sequences_ && position < max_length_, "a token without a place");
  const int64_t block = sequence * blocks_per_sequence_ + position / kBlockTokens;
  input_.token_ids.push_back(id);
  input_.positions.push_back(static_cast<int32_t>(position));
  input_.slots.push_back(block * kBlockTokens + position % kBlockTokens);
  if (const WindowCache* windows = runner_->window_cache(0); windows != nullptr) {
    const kernels::WindowRing& ring = windows->ring();
    input_.window_slots.push_back(ring.is_kept(position, max_length_)
                                      ? windows->first_slot(sequence) + ring.row(position)
                                      : -1);
  }
}

void MeasuredModel::add_table(int64_t sequence) {
  input_.max_blocks_per_sequence = blocks_for_tokens(max_length_);
  for (int64_t index = 0; index < input_.max_blocks_per_sequence; ++index) {
    input_.block_tables.push_back(static_cast<int32_t>(sequence * blocks_per_sequence_ + index));
  }
}

std::span<const float> MeasuredModel::run() {
  const kernels::TensorView logits = runner_->forward_blocking(input_);
  if (input_.logits_rows.empty()) {
    return {};
  }
  const auto count = static_cast<size_t>(logits.num_elements());
  if (logits_.size() < count) {
    logits_.resize(count);
  }
  kernels::Device& device = runner_->backend(0).device();
  device.copy_to_host(logits_.data(), logits.data, static_cast<int64_t>(count * sizeof(float)), {});
  device.synchronize_blocking({});
  return {logits_.data(), count};
}

}  // namespace tessera
