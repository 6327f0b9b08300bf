// Steps of a model in one decode mode, without scheduler and server: decode tokens/s at several
// batch sizes and contexts and prefill tokens/s, beside the bound: bytes of weights and cache that
// a step reads over a bandwidth.
//
//   step_bench MODEL_FOLDER [--device cuda] [--ranks 2 --attention tpla] [--dtype bfloat16]
//              [--threads 2] [--context 256 4096] [--batch 1 8] [--prompt 512]
//              [--load-format dummy] [--kernels]

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "engine/base/text.h"
#include "tools/bench/step_model.h"
#ifdef TESSERA_HAS_CUPTI
#include "tools/bench/gpu_kernel_times.h"
#endif

namespace tessera::bench {
namespace {

struct Options {
  WorkerConfig worker;
  std::vector<int64_t> contexts = {256};
  std::vector<int64_t> batches = {1, 8};
  std::vector<int64_t> prompts = {512};
  int64_t steps = 64;
  int64_t chunk = 8192;
  bool shows_kernels = false;
};

int64_t largest(const std::vector<int64_t>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Median seconds of a decode step of `batch` sequences around `context` tokens.
double decode_seconds(StepModel& model, const Options& options, int64_t batch, int64_t context) {
  std::vector<double> seconds;
  for (int64_t step = 0; step < options.steps; ++step) {
    seconds.push_back(model.decode_seconds(batch, context + step, context + options.steps));
  }
  return median(seconds);
}

/// Median seconds of a prompt in chunks.
double prefill_seconds(StepModel& model, const Options& options, int64_t num_tokens) {
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 5; ++repeat) {
    double sum = 0.0;
    for (int64_t begin = 0; begin < num_tokens; begin += options.chunk) {
      sum += model.chunk_seconds(begin, std::min(num_tokens, begin + options.chunk), num_tokens);
    }
    seconds.push_back(sum);
  }
  return median(seconds);
}

#ifdef TESSERA_HAS_CUPTI
/// Where rank 0's GPU spends `repeats` runs of `work`: by class, then the longest kernels.
template <typename Work>
void report_kernels(const Work& work, int64_t repeats) {
  constexpr size_t kLongest = 16;
  GpuKernelTimes recorder(0);
  work();
  const std::vector<KernelTime> times = recorder.finish_blocking();
  std::map<std::string, double> classes;
  double total = 0.0;
  for (const KernelTime& time : times) {
    classes[kernel_class(time.name)] += time.seconds;
    total += time.seconds;
  }
  std::printf("  kernels %.3f ms:", total * 1e3 / static_cast<double>(repeats));
  for (const auto& [name, seconds] : classes) {
    std::printf(" %s %.1f %%", name.c_str(), 100.0 * seconds / total);
  }
  std::printf("\n");
  for (size_t i = 0; i < std::min(kLongest, times.size()); ++i) {
    std::printf("    %8.3f ms %6.1f times  %s\n",
                times[i].seconds * 1e3 / static_cast<double>(repeats),
                static_cast<double>(times[i].count) / static_cast<double>(repeats),
                times[i].name.c_str());
  }
}
#endif

void report_decode(StepModel& model, const Options& options, int64_t batch, int64_t context) {
  const int64_t room = model.max_sequences(context + options.steps);
  if (batch > room) {
    std::printf("decode  batch %3lld context %5lld: does not fit, largest batch %lld\n",
                static_cast<long long>(batch),
                static_cast<long long>(context),
                static_cast<long long>(room));
    return;
  }
  decode_seconds(model, options, batch, context);  // warm-up
  const double bandwidth = model.bandwidth_blocking();
  const double seconds = decode_seconds(model, options, batch, context);
  const double weights = model.weight_bytes_per_step(batch);
  const double cache = model.cache_bytes_per_step(batch, context);
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
#ifdef TESSERA_HAS_CUPTI
  if (options.shows_kernels) {
    report_kernels([&] { decode_seconds(model, options, batch, context); }, options.steps);
  }
#endif
}

void report_prefill(StepModel& model, const Options& options, int64_t prompt) {
  prefill_seconds(model, options, prompt);  // warm-up: primitives are made on first use
  const double seconds = prefill_seconds(model, options, prompt);
  std::printf("prefill %lld tokens: %.1f tokens/s, %.2f ms\n",
              static_cast<long long>(prompt),
              static_cast<double>(prompt) / seconds,
              seconds * 1e3);
#ifdef TESSERA_HAS_CUPTI
  if (options.shows_kernels) {
    report_kernels([&] { prefill_seconds(model, options, prompt); }, 5);
  }
#endif
}

Status run(Options& options) {
  const int64_t context = largest(options.contexts) + options.steps;
  const int64_t prompt = largest(options.prompts);
  if (options.worker.attention_sharding != "replicated" && prompt > options.chunk) {
    return invalid_argument(str_cat("--prompt ",
                                    prompt,
                                    " --chunk ",
                                    options.chunk,
                                    ": ranks that share attention take a prompt as one chunk"));
  }
  const StepModelSize size{.max_batch = largest(options.batches),
                           .max_context = std::max(context, prompt),
                           .max_chunk = std::min(options.chunk, prompt)};
  options.worker.max_num_seqs = size.max_batch;
  const int64_t unit = kBlockTokens * options.worker.tensor_parallel_size;  // of a dcp group
  options.worker.max_model_len = (size.max_context + unit - 1) / unit * unit;
  TESSERA_TRY(const auto model, StepModel::create(options.worker, size));
  std::printf("%s: %s\n", options.worker.model.c_str(), model->description().c_str());
  for (const int64_t tokens : options.contexts) {
    for (const int64_t batch : options.batches) {
      report_decode(*model, options, batch, tokens);
    }
  }
  for (const int64_t tokens : options.prompts) {
    report_prefill(*model, options, tokens);
  }
  return Status::ok();
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera::bench;
  Options options;
  tessera::WorkerConfig& worker = options.worker;
  worker.device = "cpu";
  worker.dtype = "bfloat16";
  worker.attention_sharding = "replicated";
  worker.tensor_parallel_size = 1;
  CLI::App app("Decode and prefill speed of a model in one decode mode, beside the bound");
  app.add_option("model", worker.model, "checkpoint folder")->required();
  app.add_option("--dtype", worker.dtype)->check(CLI::IsMember({"bfloat16", "float32"}));
  app.add_option("--kv-cache-dtype", worker.kv_cache_dtype)
      ->check(CLI::IsMember({"auto", "fp8_e4m3"}));
  app.add_option("--load-format", worker.load_format)->check(CLI::IsMember({"auto", "dummy"}));
  app.add_option("--threads", worker.threads)->check(CLI::Range(1, 256));
  app.add_option("--device", worker.device)->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--nccl-library", worker.nccl_library);
  app.add_option("--all-reduce", worker.all_reduce)->check(CLI::IsMember({"auto", "nccl"}));
  app.add_option("--ranks", worker.tensor_parallel_size)->check(CLI::Range(1, 64));
  app.add_option("--attention", worker.attention_sharding, "slices of tpla: one a rank")
      ->check(CLI::IsMember({"replicated", "dcp", "tpla"}));
  app.add_option("--context", options.contexts)->check(CLI::Range(1, 1 << 20));
  app.add_option("--chunk", options.chunk, "tokens of a prefill step")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--steps", options.steps)->check(CLI::Range(1, 1 << 16));
  app.add_option("--prompt", options.prompts, "0: none")->check(CLI::Range(0, 1 << 16));
  app.add_option("--batch", options.batches)->check(CLI::Range(1, 1024));
#ifdef TESSERA_HAS_CUPTI
  app.add_flag("--kernels", options.shows_kernels, "where the GPU's time goes");
#endif
  CLI11_PARSE(app, argc, argv);
  worker.tpla_slices = worker.tensor_parallel_size;
  worker.tpla_basis = "hadamard";
  options.prompts.erase(std::remove(options.prompts.begin(), options.prompts.end(), 0),
                        options.prompts.end());
  const tessera::Status status = run(options);
  if (!status.is_ok()) {
    std::fprintf(stderr, "step_bench: %s\n", status.to_string().c_str());
    return 1;
  }
  return 0;
}
