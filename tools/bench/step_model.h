// A model on the ranks of one decode mode, without scheduler and server, whose whole cache holds
// random numbers: steps of any batch and context can be timed without running what came before.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "engine/config/worker_config.h"
#include "engine/runner/parallel_runner.h"

namespace tessera::bench {

/// The longest of everything that will be timed.
struct StepModelSize {
  int64_t max_batch = 1;
  int64_t max_context = 1;  ///< tokens of a sequence
  int64_t max_chunk = 1;    ///< tokens of a prefill step
};

class StepModel final {
 public:
  /// As a decode worker with these options makes it, but with no more blocks than asked for or than
  /// there is memory for. Errors: those of a worker's.
  [[nodiscard]] static Result<std::unique_ptr<StepModel>> create(const WorkerConfig& worker,
                                                                 const StepModelSize& size);

  /// Seconds of a step of `batch` decode rows at `position`; sequences have room for `max_tokens`.
  [[nodiscard]] double decode_seconds(int64_t batch, int64_t position, int64_t max_tokens);
  /// Seconds of one chunk, tokens [begin, end) of a prompt of `num_tokens`.
  [[nodiscard]] double chunk_seconds(int64_t begin, int64_t end, int64_t num_tokens);

  /// Sequences of `num_tokens` that the cache has room for.
  [[nodiscard]] int64_t max_sequences(int64_t num_tokens) const;
  /// Bytes that a decode step reads on the rank that reads most: of weights, experts by the mean
  /// number of distinct ones that `batch` uniform choices name; of the cache.
  [[nodiscard]] double weight_bytes_per_step(int64_t batch) const;
  [[nodiscard]] double cache_bytes_per_step(int64_t batch, int64_t context) const;
  /// Bytes per second that bounds a step: on the CPU that at which the same threads read a buffer
  /// of the weights' size, on a GPU that of a copy within it, bytes read and written.
  [[nodiscard]] double bandwidth_blocking();
  /// One line.
  [[nodiscard]] std::string description() const;

 private:
  StepModel() = default;
  [[nodiscard]] int64_t blocks_per_sequence(int64_t num_tokens) const;
  void fill_tables(int64_t num_tokens, int64_t count, ModelInput& input) const;
  [[nodiscard]] int32_t some_token(int64_t i) const;
  [[nodiscard]] double run_seconds(const ModelInput& input, const SamplingInput& sampling);

  ModelConfig config_;
  std::string attention_;  // of the ranks, for people
  int64_t num_blocks_ = 0;
  int num_threads_ = 1;
  bool is_on_cpu_ = true;
  std::unique_ptr<ParallelRunner> runner_;
};

}  // namespace tessera::bench
