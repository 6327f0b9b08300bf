// What a decode mode costs on the CPU backend beside exact decode on as many threads: seconds to
// load, cache bytes of a token and rank, milliseconds of a decode step. Steps of all modes take
// turns, so that noise of the machine meets each of them; ratios are to the first mode.
//
//   mode_bench MODEL_FOLDER --modes replicated:2,tpla:2:hadamard,tpla:2:FILE [--batch 8]
//       [--context 896] [--steps 64] [--loads 3] [--dtype bfloat16] [--threads 2]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "engine/quality/decode_mode.h"
#include "engine/quality/measured_model.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/weight_loader.h"
#include "kernels/cpu/cpu_backend.h"

namespace tessera::bench {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> modes = {"replicated:2", "tpla:2:hadamard"};
  std::string dtype = "bfloat16";
  int threads = static_cast<int>(std::max(2U, std::thread::hardware_concurrency()));
  int64_t batch = 8;
  int64_t context = 896;
  int64_t steps = 64;
  int64_t loads = 3;
};

/// One mode: its model, and what was measured of it.
struct Candidate {
  std::string label;
  ModeSetup setup;
  std::unique_ptr<MeasuredModel> model;
  std::vector<double> load_seconds;
  std::vector<double> step_seconds;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <typename Work>
double seconds_of(const Work& work) {
  const auto before = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
}

int32_t some_token(const ModelConfig& config, int64_t i) {
  return static_cast<int32_t>((i * 7919 + 13) % config.vocab_size);
}

Result<std::vector<Candidate>> make_candidates(const Options& options, const ModelConfig& config) {
  TESSERA_TRY(const std::vector<DecodeMode> modes, parse_decode_modes(options.modes));
  std::vector<Candidate> candidates;
  for (const DecodeMode& mode : modes) {
    TESSERA_TRY(ModeSetup setup, resolve_mode(mode, config));
    candidates.push_back({.label = mode.label(),
                          .setup = std::move(setup),
                          .model = nullptr,
                          .load_seconds = {},
                          .step_seconds = {}});
  }
  return candidates;
}

/// Loads every mode `loads` times, in turns; the last stay.
Status load(const Options& options,
            const MeasuredParts& parts,
            std::vector<Candidate>& candidates) {
  for (int64_t repeat = 0; repeat < options.loads; ++repeat) {
    for (Candidate& candidate : candidates) {
      const MeasuredOptions wanted{.sharding = candidate.setup.sharding,
                                   .transform = &candidate.setup.transform,
                                   .dtype = options.dtype == "float32" ? kernels::DType::kFloat32
                                                                       : kernels::DType::kBFloat16,
                                   .num_threads = options.threads,
                                   .num_sequences = options.batch,
                                   .max_prompt = options.context,
                                   .max_length = options.context + options.steps};
      candidate.model.reset();
      Status status;
      candidate.load_seconds.push_back(seconds_of([&] {
        auto model = MeasuredModel::create(parts, wanted);
        status = model.status();
        if (model.is_ok()) {
          candidate.model = std::move(model).value();
        }
      }));
      if (!status.is_ok()) {
        return status.with_context(candidate.label);
      }
    }
  }
  return Status::ok();
}

void fill_caches(const Options& options, const ModelConfig& config, MeasuredModel& model) {
  std::vector<int32_t> prompt;
  for (int64_t sequence = 0; sequence < options.batch; ++sequence) {
    prompt.clear();
    for (int64_t i = 0; i < options.context; ++i) {
      prompt.push_back(some_token(config, sequence * options.context + i));
    }
    model.prefill_blocking(sequence, 0, prompt);
  }
}

void run_steps(const Options& options, const ModelConfig& config, std::vector<Candidate>& modes) {
  std::vector<MeasuredModel::Row> rows(static_cast<size_t>(options.batch));
  for (int64_t step = 0; step < options.steps; ++step) {
    for (int64_t sequence = 0; sequence < options.batch; ++sequence) {
      rows[static_cast<size_t>(sequence)] = {
          .sequence = sequence,
          .position = options.context + step,
          .id = some_token(config, step * options.batch + sequence)};
    }
    for (Candidate& mode : modes) {
      mode.step_seconds.push_back(
          seconds_of([&] { static_cast<void>(mode.model->decode_blocking(rows)); }));
    }
  }
}

void print_table(const Options& options, const std::vector<Candidate>& candidates) {
  std::printf("%s, %s, %d threads, batch %lld, context %lld\n",
              options.model.c_str(),
              options.dtype.c_str(),
              options.threads,
              static_cast<long long>(options.batch),
              static_cast<long long>(options.context));
  std::printf("%-48s %8s %8s %14s %8s %9s %8s\n",
              "mode",
              "load s",
              "ratio",
              "bytes/token",
              "ratio",
              "step ms",
              "ratio");
  const Candidate& first = candidates.front();
  for (const Candidate& mode : candidates) {
    const double load = median(mode.load_seconds);
    const double bytes = mode.model->bytes_per_token();
    const double step = median(mode.step_seconds);
    std::printf("%-48s %8.2f %8.2f %14.0f %8.3f %9.3f %8.3f\n",
                mode.label.c_str(),
                load,
                load / median(first.load_seconds),
                bytes,
                bytes / first.model->bytes_per_token(),
                step * 1e3,
                step / median(first.step_seconds));
  }
}

Status run(const Options& options) {
  TESSERA_TRY(const ModelConfig config, ModelConfig::load(options.model));
  TESSERA_TRY(const Checkpoint checkpoint, Checkpoint::open(options.model));
  const MeasuredParts parts{
      .config = config,
      .load_weights =
          [&](kernels::Backend& backend, const LoadOptions& load) {
            return load_model_weights(config, checkpoint, backend, load);
          },
      .make_backend = [](int, int threads) { return kernels::cpu::create_cpu_backend(threads); }};
  TESSERA_TRY(std::vector<Candidate> candidates, make_candidates(options, config));
  TESSERA_RETURN_IF_ERROR(load(options, parts, candidates));
  for (Candidate& candidate : candidates) {
    fill_caches(options, config, *candidate.model);
  }
  run_steps(options, config, candidates);  // warm-up: primitives are made on first use
  for (Candidate& candidate : candidates) {
    candidate.step_seconds.clear();
  }
  run_steps(options, config, candidates);
  print_table(options, candidates);
  return Status::ok();
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera::bench;
  Options options;
  CLI::App app("What decode modes cost on the CPU backend: load, cache bytes, step");
  app.add_option("model", options.model, "checkpoint folder")->required();
  app.add_option("--modes", options.modes, "as of tessera eval");
  app.add_option("--dtype", options.dtype)->check(CLI::IsMember({"bfloat16", "float32"}));
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 256));
  app.add_option("--batch", options.batch)->check(CLI::Range(1, 256));
  app.add_option("--context", options.context)->check(CLI::Range(1, 1 << 20));
  app.add_option("--steps", options.steps)->check(CLI::Range(1, 1 << 16));
  app.add_option("--loads", options.loads)->check(CLI::Range(1, 100));
  CLI11_PARSE(app, argc, argv);
  const tessera::Status status = run(options);
  if (!status.is_ok()) {
    std::fprintf(stderr, "mode_bench: %s\n", status.to_string().c_str());
    return 1;
  }
  return 0;
}
