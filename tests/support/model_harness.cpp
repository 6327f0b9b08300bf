#include "tests/support/model_harness.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "engine/weights/checkpoint.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"

namespace tessera::test {

int32_t argmax(const float* values, int64_t count) {
  return static_cast<int32_t>(std::max_element(values, values + count) - values);
}

Result<std::unique_ptr<ModelHarness>> ModelHarness::load(const std::string& folder,
                                                         kernels::DType dtype,
                                                         int64_t max_tokens,
                                                         int num_threads) {
  return load(folder, dtype, max_tokens, kernels::cpu::create_cpu_backend(num_threads));
}

Result<std::unique_ptr<ModelHarness>> ModelHarness::load(
    const std::string& folder,
    kernels::DType dtype,
    int64_t max_tokens,
    std::unique_ptr<kernels::Backend> backend) {
  std::unique_ptr<ModelHarness> harness(new ModelHarness());
  TESSERA_TRY(harness->config_, ModelConfig::load(folder));
  TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(folder));
  harness->backend_ = std::move(backend);
  TESSERA_TRY(
      harness->weights_,
      load_model_weights(
          harness->config_, checkpoint, *harness->backend_, {.dtype = dtype, .progress = {}}));
  const ModelConfig& config = harness->config_;
  const LatentLayout layout{.latent_widths = std::vector<int64_t>(
                                static_cast<size_t>(config.num_hidden_layers), config.kv_lora_rank),
                            .rope_width = config.qk_rope_head_dim,
                            .dtype = dtype};
  const int64_t num_blocks = blocks_for_tokens(max_tokens) + 3;
  TESSERA_TRY(
      PagedLatentCache cache,
      PagedLatentCache::create(harness->backend_->device(), LatentShard::full(layout), num_blocks));
  harness->cache_ = std::make_unique<PagedLatentCache>(std::move(cache));
  harness->layers_ = harness->cache_->views();
  // All bits set is NaN in float32 and bfloat16: a read of an unwritten row shows.
  kernels::Device& device = harness->backend_->device();
  const std::string poison(static_cast<size_t>(harness->cache_->num_bytes()), '\xff');
  device.copy_from_host(
      harness->layers_[0].cache.base, poison.data(), harness->cache_->num_bytes(), {});
  device.synchronize_blocking({});
  harness->table_.resize(static_cast<size_t>(num_blocks));
  std::iota(harness->table_.begin(), harness->table_.end(), 0);
  std::shuffle(harness->table_.begin(), harness->table_.end(), std::mt19937(7));
  harness->table_.resize(static_cast<size_t>(blocks_for_tokens(max_tokens)));
  const StepLimits limits{.max_tokens = max_tokens,
                          .max_sequences = 4,
                          .max_logits_rows = max_tokens,
                          .max_model_len = max_tokens};
  harness->model_ =
      std::make_unique<CausalLm>(config, harness->weights_, limits, *harness->backend_);
  return harness;
}

ModelInput ModelHarness::step_input(const std::vector<int32_t>& ids,
                                    int64_t begin,
                                    int64_t count) const {
  ModelInput input;
  for (int64_t position = begin; position < begin + count; ++position) {
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

std::vector<float> ModelHarness::run(const ModelInput& input) {
  const kernels::TensorView logits = model_->forward(input, {.images = layers_}, {});
  std::vector<float> values(static_cast<size_t>(logits.num_elements()));
  kernels::Device& device = backend_->device();
  const auto num_bytes = static_cast<int64_t>(values.size() * sizeof(float));
  device.copy_to_host(values.data(), logits.data, num_bytes, {});
  device.synchronize_blocking({});
  return values;
}

std::vector<float> ModelHarness::prefill(const std::vector<int32_t>& ids,
                                         int64_t begin,
                                         int64_t chunk_tokens) {
  std::vector<float> all;
  const auto end = static_cast<int64_t>(ids.size());
  for (int64_t position = begin; position < end; position += chunk_tokens) {
    const int64_t count = std::min(chunk_tokens, end - position);
    ModelInput input = step_input(ids, position, count);
    input.chunks.push_back(
        {.row_begin = 0, .num_tokens = count, .context_begin = position, .table_row = 0});
    const std::vector<float> logits = run(input);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

std::vector<float> ModelHarness::decode(const std::vector<int32_t>& ids) {
  const auto length = static_cast<int64_t>(ids.size());
  ModelInput input = step_input(ids, length - 1, 1);
  input.num_decode = 1;
  input.decode_lengths.push_back(static_cast<int32_t>(length));
  return run(input);
}

std::vector<int32_t> ModelHarness::generate(std::vector<int32_t> ids, int64_t count) {
  const auto num_prompt = static_cast<int64_t>(ids.size());
  const int64_t vocab = config_.vocab_size;
  const std::vector<float> logits = prefill(ids, 0, num_prompt);
  ids.push_back(argmax(logits.data() + (num_prompt - 1) * vocab, vocab));
  while (static_cast<int64_t>(ids.size()) < num_prompt + count) {
    ids.push_back(argmax(decode(ids).data(), vocab));
  }
  return {ids.begin() + num_prompt, ids.end()};
}

double divergence(const float* p, const float* q, int64_t count) {
  const auto log_sum = [&](const float* x) {
    const double largest = *std::max_element(x, x + count);
    double sum = 0.0;
    for (int64_t i = 0; i < count; ++i) {
      sum += std::exp(x[i] - largest);
    }
    return largest + std::log(sum);
  };
  const double norm_p = log_sum(p);
  const double norm_q = log_sum(q);
  double total = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    total += std::exp(p[i] - norm_p) * ((p[i] - norm_p) - (q[i] - norm_q));
  }
  return total;
}

}  // namespace tessera::test
