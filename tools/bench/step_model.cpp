#include "tools/bench/step_model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "engine/base/text.h"
#include "engine/serving/attention_choice.h"
#include "engine/serving/compute_device.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/weight_loader.h"
#include "tools/bench/read_bandwidth.h"

namespace tessera::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point before) {
  return std::chrono::duration<double>(Clock::now() - before).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

int64_t bytes_of(const LinearWeightPtr& weight) {
  return weight == nullptr ? 0 : weight->num_bytes();
}

double copy_bandwidth_blocking(kernels::Device& device) {
  constexpr int64_t kBytes = int64_t{1} << 30;
  constexpr int kCopies = 10;
  const kernels::DeviceBuffer from = device.allocate(kBytes);
  const kernels::DeviceBuffer to = device.allocate(kBytes);
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 5; ++repeat) {
    device.synchronize_blocking({});
    const Clock::time_point before = Clock::now();
    for (int i = 0; i < kCopies; ++i) {
      device.copy(to.data(), from.data(), kBytes, {});
    }
    device.synchronize_blocking({});
    seconds.push_back(seconds_since(before));
  }
  return 2.0 * kCopies * static_cast<double>(kBytes) / median(seconds);
}

/// Values of one cache: times on zeros or NaN are not those of a model.
void fill_with_noise(PagedLatentCache& cache, kernels::Device& device) {
  const int64_t num_bytes = cache.num_bytes();
  std::vector<kernels::BFloat16> noise(
      static_cast<size_t>(std::min(num_bytes / 2, int64_t{1} << 23)));
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  for (kernels::BFloat16& value : noise) {
    value = kernels::BFloat16::from_float(uniform(random));
  }
  auto* base = static_cast<char*>(cache.layer_view(0).base);
  const auto piece = static_cast<int64_t>(noise.size() * 2);
  device.copy_from_host(base, noise.data(), piece, {});
  for (int64_t done = piece; done < num_bytes; done += piece) {
    device.copy(base + done, base, std::min(piece, num_bytes - done), {});
  }
  device.synchronize_blocking({});
}

}  // namespace

namespace {

/// As a decode worker plans it.
Result<MemoryPlan> plan(const WorkerConfig& worker,
                        const ModelConfig& config,
                        const AttentionChoice& attention,
                        const ComputeDevice& device) {
  return plan_memory(
      config,
      worker,
      cache_shape(config,
                  attention,
                  attention.sharding,
                  0,
                  {.activations = device.dtype, .cache = cache_dtype(worker, device.dtype)}),
      kernels::dtype_bytes(device.dtype),
      memory_budget(device, attention.sharding.num_ranks));
}

using WeightSource = std::function<Result<ModelWeights>(kernels::Backend&, const LoadOptions&)>;

/// All ranks load at once from what it returns.
Result<WeightSource> weight_source(const WorkerConfig& worker, const ModelConfig& config) {
  std::shared_ptr<const Checkpoint> checkpoint;
  if (worker.load_format != "dummy") {
    TESSERA_TRY(Checkpoint opened, Checkpoint::open(worker.model));
    checkpoint = std::make_shared<const Checkpoint>(std::move(opened));
  }
  return WeightSource([&config, checkpoint](kernels::Backend& backend, const LoadOptions& load) {
    return checkpoint ? load_model_weights(config, *checkpoint, backend, load)
                      : make_dummy_weights(config, backend, load, 1);
  });
}

}  // namespace

Result<std::unique_ptr<StepModel>> StepModel::create(const WorkerConfig& worker,
                                                     const StepModelSize& size) {
  std::unique_ptr<StepModel> model(new StepModel());
  TESSERA_TRY(model->config_, ModelConfig::load(worker.model));
  const ModelConfig& config = model->config_;
  TESSERA_TRY(const AttentionChoice attention,
              choose_attention(worker, config, WorkerRole::kDecode));
  const ShardOptions& sharding = attention.sharding;
  TESSERA_RETURN_IF_ERROR(validate_sharding(config, sharding));
  TESSERA_TRY(const ComputeDevice device, choose_compute_device(worker, sharding.num_ranks));
  TESSERA_TRY(const MemoryPlan memory, plan(worker, config, attention, device));
  model->is_on_cpu_ = device.kind == DeviceKind::kCpu;
  model->num_threads_ = compute_threads(worker);
  model->attention_ = describe(attention, config, sharding.num_ranks);
  const int64_t per_sequence = round_up(blocks_for_tokens(size.max_context), sharding.num_ranks);
  model->num_blocks_ =
      std::min(memory.num_blocks, std::max(size.max_batch * per_sequence, per_sequence));
  ParallelSetup setup{
      .config = config,
      .sharding = sharding,
      .limits = {.max_tokens = std::max(size.max_chunk, size.max_batch),
                 .max_sequences = size.max_batch,
                 .max_logits_rows = size.max_batch,
                 .max_model_len = worker.max_model_len,
                 .context_tile = device.context_tile},
      .num_blocks = model->num_blocks_,
      .cache_dtype = cache_dtype(worker, device.dtype),
      .make_communicators = communicator_factory(device, worker),
      .load = {.dtype = device.dtype, .progress = {}, .transform = &attention.transform},
      .load_weights = {}};
  TESSERA_TRY(setup.load_weights, weight_source(worker, config));
  std::vector<std::unique_ptr<kernels::Backend>> backends;
  for (int64_t rank = 0; rank < sharding.num_ranks; ++rank) {
    backends.push_back(make_backend(device, rank));
  }
  TESSERA_TRY(model->runner_, ParallelRunner::create(setup, std::move(backends)));
  for (int rank = 0; rank < model->runner_->num_ranks(); ++rank) {
    fill_with_noise(model->runner_->cache(rank), model->runner_->backend(rank).device());
  }
  return model;
}

int64_t StepModel::blocks_per_sequence(int64_t num_tokens) const {
  // A multiple of the ranks keeps the rule of striped groups.
  return round_up(blocks_for_tokens(num_tokens), runner_->num_ranks());
}

int64_t StepModel::max_sequences(int64_t num_tokens) const {
  return num_blocks_ / blocks_per_sequence(num_tokens);
}

int32_t StepModel::some_token(int64_t i) const {
  return static_cast<int32_t>((i * 7919 + 13) % config_.vocab_size);
}

/// Sequence s owns blocks [s * n, (s + 1) * n).
void StepModel::fill_tables(int64_t num_tokens, int64_t count, ModelInput& input) const {
  input.max_blocks_per_sequence = blocks_per_sequence(num_tokens);
  input.block_tables.resize(static_cast<size_t>(count * input.max_blocks_per_sequence));
  std::iota(input.block_tables.begin(), input.block_tables.end(), 0);
}

double StepModel::run_seconds(const ModelInput& input, const SamplingInput& sampling) {
  StepOutput output;
  const Clock::time_point before = Clock::now();
  runner_->run_blocking(input, sampling, output);
  return seconds_since(before);
}

double StepModel::decode_seconds(int64_t batch, int64_t position, int64_t max_tokens) {
  ModelInput input;
  SamplingInput sampling;
  fill_tables(max_tokens, batch, input);
  input.num_decode = batch;
  for (int64_t s = 0; s < batch; ++s) {
    input.token_ids.push_back(some_token(position * batch + s));
    input.positions.push_back(static_cast<int32_t>(position));
    const int64_t block = s * input.max_blocks_per_sequence + position / kBlockTokens;
    input.slots.push_back(block * kBlockTokens + position % kBlockTokens);
    input.decode_lengths.push_back(static_cast<int32_t>(position + 1));
    input.logits_rows.push_back(static_cast<int32_t>(s));
    sampling.rows.push_back({.logits_row = static_cast<int32_t>(s), .temperature = 0.0F});
  }
  return run_seconds(input, sampling);
}

double StepModel::chunk_seconds(int64_t begin, int64_t end, int64_t num_tokens) {
  ModelInput input;
  fill_tables(num_tokens, 1, input);
  for (int64_t i = begin; i < end; ++i) {
    input.token_ids.push_back(some_token(i));
    input.positions.push_back(static_cast<int32_t>(i));
    input.slots.push_back(i);
  }
  input.chunks.push_back(
      {.row_begin = 0, .num_tokens = end - begin, .context_begin = begin, .table_row = 0});
  input.logits_rows.push_back(static_cast<int32_t>(end - begin - 1));
  SamplingInput sampling;
  sampling.rows.push_back({.logits_row = 0, .temperature = 0.0F});
  return run_seconds(input, sampling);
}

double StepModel::weight_bytes_per_step(int64_t batch) const {
  const ModelWeights& weights = runner_->weights(0);
  auto total = static_cast<double>(bytes_of(weights.head));
  for (const LayerWeights& layer : weights.layers) {
    const AttentionWeights& attention = layer.attention;
    for (const LinearWeightPtr* weight : {&attention.input,
                                          &attention.q_up,
                                          &attention.key_absorb,
                                          &attention.value_up,
                                          &attention.output,
                                          &layer.mlp.gate_up,
                                          &layer.mlp.down,
                                          &layer.moe.gate,
                                          &layer.moe.shared.gate_up,
                                          &layer.moe.shared.down}) {
      total += static_cast<double>(bytes_of(*weight));
    }
    if (layer.moe.down != nullptr) {
      const double unused = 1.0 - static_cast<double>(config_.num_experts_per_tok) /
                                      static_cast<double>(config_.n_routed_experts);
      const double used_share = 1.0 - std::pow(unused, static_cast<double>(batch));
      total +=
          used_share * static_cast<double>(bytes_of(layer.moe.gate_up) + bytes_of(layer.moe.down));
    }
  }
  return total;
}

double StepModel::cache_bytes_per_step(int64_t batch, int64_t context) const {
  const bool is_striped = runner_->weights(0).plan.attention == AttentionSharding::kDcp;
  const int64_t share = is_striped ? runner_->num_ranks() : 1;
  const int64_t row_bytes = runner_->cache(0).shard().block_bytes() / kBlockTokens;  // all layers
  return static_cast<double>(batch * context * row_bytes) / static_cast<double>(share);
}

double StepModel::bandwidth_blocking() {
  return is_on_cpu_ ? read_bandwidth_blocking(runner_->weights(0).num_bytes, num_threads_, 9)
                    : copy_bandwidth_blocking(runner_->backend(0).device());
}

std::string StepModel::description() const {
  char sizes[96];
  std::snprintf(sizes,
                sizeof(sizes),
                "; of a rank: weights %.1f GB, cache %.1f GB",
                static_cast<double>(runner_->weights(0).num_bytes) / 1e9,
                static_cast<double>(runner_->cache(0).num_bytes()) / 1e9);
  return str_cat(attention_,
                 ", ",
                 kernels::dtype_name(runner_->cache(0).shard().dtype()),
                 ", ",
                 runner_->backend(0).device().description(),
                 sizes);
}

}  // namespace tessera::bench
