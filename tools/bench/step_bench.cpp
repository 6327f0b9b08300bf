// Steps of a model on one backend, without scheduler and server: decode tokens/s at several batch
// sizes and contexts and prefill tokens/s, beside the bound: bytes of weights and cache that a step
// reads over a bandwidth. On the CPU that at which the same threads read a buffer of the weights'
// size, on a GPU that of a copy within it, bytes read and written.
//
//   step_bench MODEL_FOLDER [--device cuda] [--dtype bfloat16] [--threads 2] [--context 256 4096]
//              [--load-format dummy]

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "engine/cache/paged_latent_cache.h"
#include "engine/runner/model_runner.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"
#ifdef TESSERA_HAS_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif
#include "tools/bench/read_bandwidth.h"

namespace tessera::bench {
namespace {

#ifdef TESSERA_HAS_CUDA
const std::vector<std::string> kDevices = {"cpu", "cuda"};
#else
const std::vector<std::string> kDevices = {"cpu"};
#endif

struct Options {
  std::string model;
  std::string dtype = "bfloat16";
  std::string load_format = "auto";
  int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::string device = "cpu";
  std::vector<int64_t> contexts = {256};
  int64_t steps = 64;
  std::vector<int64_t> prompts = {512};
  int64_t chunk = 8192;
  int64_t cache_tokens = 0;  ///< 0: what the widest batch of the longest context needs
  std::vector<int64_t> batches = {1, 8};
};

/// A loaded model with room for the widest batch.
struct Model {
  ModelConfig config;
  std::unique_ptr<kernels::Backend> backend;
  ModelWeights weights;
  std::unique_ptr<PagedLatentCache> cache;
  std::unique_ptr<ModelRunner> runner;
  StepLimits limits;
};

std::unique_ptr<kernels::Backend> make_backend(const Options& options) {
#ifdef TESSERA_HAS_CUDA
  if (options.device == "cuda") {
    return kernels::cuda::create_cuda_backend(0);
  }
#endif
  return kernels::cpu::create_cpu_backend(options.threads);
}

/// Random numbers in the whole cache: times on zeros or NaN are not those of a model.
void fill_cache(Model& model) {
  const int64_t num_bytes = model.cache->num_bytes();
  std::vector<kernels::BFloat16> noise(
      static_cast<size_t>(std::min(num_bytes / 2, int64_t{1} << 23)));
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  for (kernels::BFloat16& value : noise) {
    value = kernels::BFloat16::from_float(uniform(random));
  }
  kernels::Device& device = model.backend->device();
  auto* base = static_cast<char*>(model.cache->layer_view(0).base);
  const auto piece = static_cast<int64_t>(noise.size() * 2);
  device.copy_from_host(base, noise.data(), piece, {});
  for (int64_t done = piece; done < num_bytes; done += piece) {
    device.copy(base + done, base, std::min(piece, num_bytes - done), {});
  }
  device.synchronize_blocking({});
}

Result<std::unique_ptr<Model>> load(const Options& options) {
  auto model = std::make_unique<Model>();
  TESSERA_TRY(model->config, ModelConfig::load(options.model));
  model->backend = make_backend(options);
  const auto dtype =
      options.dtype == "float32" ? kernels::DType::kFloat32 : kernels::DType::kBFloat16;
  const LoadOptions load_options{.dtype = dtype, .progress = {}};
  if (options.load_format == "dummy") {
    TESSERA_TRY(model->weights,
                make_dummy_weights(model->config, *model->backend, load_options, 1));
  } else {
    TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(options.model));
    TESSERA_TRY(model->weights,
                load_model_weights(model->config, checkpoint, *model->backend, load_options));
  }
  const ModelConfig& config = model->config;
  const int64_t widest = *std::max_element(options.batches.begin(), options.batches.end());
  const int64_t longest = *std::max_element(options.contexts.begin(), options.contexts.end());
  const int64_t prompt = *std::max_element(options.prompts.begin(), options.prompts.end());
  model->limits = {.max_tokens = std::max(std::min(options.chunk, prompt), widest),
                   .max_sequences = widest,
                   .max_logits_rows = widest,
                   .max_model_len = std::max(longest + options.steps, prompt),
                   .context_tile = options.device == "cuda" ? 8192 : 512};
  const LatentLayout layout{.latent_widths = std::vector<int64_t>(
                                static_cast<size_t>(config.num_hidden_layers), config.kv_lora_rank),
                            .rope_width = config.qk_rope_head_dim,
                            .dtype = dtype};
  const int64_t num_blocks =
      options.cache_tokens != 0
          ? std::max(blocks_for_tokens(options.cache_tokens), blocks_for_tokens(prompt))
          : widest * blocks_for_tokens(model->limits.max_model_len);
  TESSERA_TRY(
      PagedLatentCache cache,
      PagedLatentCache::create(model->backend->device(), LatentShard::full(layout), num_blocks));
  model->cache = std::make_unique<PagedLatentCache>(std::move(cache));
  fill_cache(*model);
  model->runner = std::make_unique<ModelRunner>(
      config, model->weights, model->limits, *model->cache, *model->backend);
  return model;
}

int32_t some_token(const Model& model, int64_t i) {
  return static_cast<int32_t>((i * 7919 + 13) % model.config.vocab_size);
}

/// Block tables of `count` sequences of `num_tokens`: sequence s owns blocks [s * n, (s + 1) * n).
void fill_tables(int64_t num_tokens, int64_t count, ModelInput& input) {
  input.max_blocks_per_sequence = blocks_for_tokens(num_tokens);
  input.block_tables.resize(static_cast<size_t>(count * input.max_blocks_per_sequence));
  std::iota(input.block_tables.begin(), input.block_tables.end(), 0);
}

double run_seconds(Model& model, const ModelInput& input, const SamplingInput& sampling) {
  StepOutput output;
  const auto before = std::chrono::steady_clock::now();
  model.runner->run_blocking(input, sampling, output);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Median seconds of a decode step of `batch` sequences around `context` tokens.
double decode_seconds(Model& model, const Options& options, int64_t batch, int64_t context) {
  std::vector<double> seconds;
  for (int64_t step = 0; step < options.steps; ++step) {
    const int64_t position = context + step;
    ModelInput input;
    SamplingInput sampling;
    fill_tables(context + options.steps, batch, input);
    input.num_decode = batch;
    for (int64_t s = 0; s < batch; ++s) {
      input.token_ids.push_back(some_token(model, position * batch + s));
      input.positions.push_back(static_cast<int32_t>(position));
      const int64_t block = s * input.max_blocks_per_sequence + position / kBlockTokens;
      input.slots.push_back(block * kBlockTokens + position % kBlockTokens);
      input.decode_lengths.push_back(static_cast<int32_t>(position + 1));
      input.logits_rows.push_back(static_cast<int32_t>(s));
      sampling.rows.push_back({.logits_row = static_cast<int32_t>(s), .temperature = 0.0F});
    }
    seconds.push_back(run_seconds(model, input, sampling));
  }
  return median(seconds);
}

/// One chunk, whose last row's token is sampled, of a prompt.
double chunk_seconds(Model& model, int64_t begin, int64_t end, int64_t num_tokens) {
  ModelInput input;
  fill_tables(num_tokens, 1, input);
  for (int64_t i = begin; i < end; ++i) {
    input.token_ids.push_back(some_token(model, i));
    input.positions.push_back(static_cast<int32_t>(i));
    input.slots.push_back(i);
  }
  input.chunks.push_back(
      {.row_begin = 0, .num_tokens = end - begin, .context_begin = begin, .table_row = 0});
  input.logits_rows.push_back(static_cast<int32_t>(end - begin - 1));
  SamplingInput sampling;
  sampling.rows.push_back({.logits_row = 0, .temperature = 0.0F});
  return run_seconds(model, input, sampling);
}

/// Median seconds of a prompt in chunks.
double prefill_seconds(Model& model, const Options& options, int64_t num_tokens) {
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 5; ++repeat) {
    double sum = 0.0;
    for (int64_t begin = 0; begin < num_tokens; begin += options.chunk) {
      sum += chunk_seconds(model, begin, std::min(num_tokens, begin + options.chunk), num_tokens);
    }
    seconds.push_back(sum);
  }
  return median(seconds);
}

/// Bytes per second that bounds a step.
double bandwidth_of(Model& model, const Options& options) {
  if (options.device == "cpu") {
    return read_bandwidth_blocking(model.weights.num_bytes, options.threads, 9);
  }
  constexpr int64_t kBytes = int64_t{1} << 30;
  constexpr int kCopies = 10;
  kernels::Device& device = model.backend->device();
  const kernels::DeviceBuffer from = device.allocate(kBytes);
  const kernels::DeviceBuffer to = device.allocate(kBytes);
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 5; ++repeat) {
    device.synchronize_blocking({});
    const auto before = std::chrono::steady_clock::now();
    for (int i = 0; i < kCopies; ++i) {
      device.copy(to.data(), from.data(), kBytes, {});
    }
    device.synchronize_blocking({});
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count());
  }
  return 2.0 * kCopies * static_cast<double>(kBytes) / median(seconds);
}

int64_t weight_bytes(const LinearWeightPtr& weight) {
  return weight == nullptr ? 0 : weight->num_bytes();
}

/// Bytes of weights that a decode step of `batch` tokens reads; experts by the mean number of
/// distinct ones that `batch` uniform choices of k out of E name.
double bytes_per_step(const Model& model, int64_t batch) {
  const ModelConfig& config = model.config;
  auto total = static_cast<double>(weight_bytes(model.weights.head));
  for (const LayerWeights& layer : model.weights.layers) {
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
      total += static_cast<double>(weight_bytes(*weight));
    }
    if (layer.moe.down != nullptr) {
      const double unused = 1.0 - static_cast<double>(config.num_experts_per_tok) /
                                      static_cast<double>(config.n_routed_experts);
      const double used_share = 1.0 - std::pow(unused, static_cast<double>(batch));
      total += used_share *
               static_cast<double>(weight_bytes(layer.moe.gate_up) + weight_bytes(layer.moe.down));
    }
  }
  return total;
}

void report_decode(Model& model, const Options& options, int64_t batch, int64_t context) {
  const int64_t cache_row_bytes =
      model.cache->shard().block_bytes() / kBlockTokens;  // all layers of one token
  if (batch * blocks_for_tokens(context + options.steps) > model.cache->num_blocks()) {
    std::printf("decode  batch %3lld context %5lld: does not fit the cache\n",
                static_cast<long long>(batch),
                static_cast<long long>(context));
    return;
  }
  decode_seconds(model, options, batch, context);  // warm-up
  const double bandwidth = bandwidth_of(model, options);
  const double seconds = decode_seconds(model, options, batch, context);
  const double weights = bytes_per_step(model, batch);
  const auto cache = static_cast<double>(batch * context * cache_row_bytes);
  const double bound = (weights + cache) / bandwidth;
  std::printf(
      "decode  batch %3lld context %5lld: %8.1f tokens/s, %.3f ms a step; weights read %.1f MB, "
      "cache %.1f MB at %.1f GB/s: bound %.3f ms, step / bound %.2f\n",
      static_cast<long long>(batch),
      static_cast<long long>(context),
      static_cast<double>(batch) / seconds,
      seconds * 1e3,
      weights / 1e6,
      cache / 1e6,
      bandwidth / 1e9,
      bound * 1e3,
      seconds / bound);
}

void report(Model& model, const Options& options) {
  std::printf("model %s, %s, %s; weights %.1f GB, cache %.1f GB\n",
              options.model.c_str(),
              options.dtype.c_str(),
              model.backend->device().description().c_str(),
              static_cast<double>(model.weights.num_bytes) / 1e9,
              static_cast<double>(model.cache->num_bytes()) / 1e9);
  for (const int64_t context : options.contexts) {
    for (const int64_t batch : options.batches) {
      report_decode(model, options, batch, context);
    }
  }
  for (const int64_t prompt : options.prompts) {
    prefill_seconds(model, options, prompt);  // warm-up: primitives are made on first use
    const double seconds = prefill_seconds(model, options, prompt);
    std::printf("prefill %lld tokens: %.1f tokens/s, %.2f ms\n",
                static_cast<long long>(prompt),
                static_cast<double>(prompt) / seconds,
                seconds * 1e3);
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera::bench;
  Options options;
  CLI::App app("Decode and prefill speed of a model on one backend, beside the bound");
  app.add_option("model", options.model, "checkpoint folder")->required();
  app.add_option("--dtype", options.dtype)->check(CLI::IsMember({"bfloat16", "float32"}));
  app.add_option("--load-format", options.load_format)->check(CLI::IsMember({"auto", "dummy"}));
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 256));
  app.add_option("--device", options.device)->check(CLI::IsMember(kDevices));
  app.add_option("--context", options.contexts)->check(CLI::Range(1, 1 << 20));
  app.add_option("--chunk", options.chunk, "tokens of a prefill step")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--cache-tokens", options.cache_tokens, "larger batches are left out");
  app.add_option("--steps", options.steps)->check(CLI::Range(1, 1 << 16));
  app.add_option("--prompt", options.prompts)->check(CLI::Range(1, 1 << 16));
  app.add_option("--batch", options.batches)->check(CLI::Range(1, 1024));
  CLI11_PARSE(app, argc, argv);
  auto model = load(options);
  if (!model.is_ok()) {
    std::fprintf(stderr, "step_bench: %s\n", model.status().to_string().c_str());
    return 1;
  }
  report(*model.value(), options);
  return 0;
}
