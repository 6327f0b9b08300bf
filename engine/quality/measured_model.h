// A checkpoint on the ranks of one decode mode, without a scheduler: sequences in fixed blocks,
// each step built by hand, logits on the host. What a measurement compares. One caller at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/config/model_config.h"
#include "engine/runner/parallel_runner.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/shard_plan.h"
#include "engine/weights/tpla_transform.h"
#include "kernels/ops/backend.h"

namespace tessera {

/// Makes a rank's backend; on the CPU it computes on so many threads.
using BackendFactory = std::function<std::unique_ptr<kernels::Backend>(int rank, int num_threads)>;

/// load_model_weights or make_dummy_weights.
using WeightSource = std::function<Result<ModelWeights>(kernels::Backend&, const LoadOptions&)>;

/// What all measured models of a run share. References and what the functions refer to outlive
/// them.
struct MeasuredParts {
  const ModelConfig& config;
  WeightSource load_weights;
  BackendFactory make_backend;
  CommunicatorFactory make_communicators = nullptr;  ///< of ParallelSetup
};

struct MeasuredOptions {
  ShardOptions sharding = {};  ///< default: the exact model, one rank that keeps everything
  const TplaTransform* transform = nullptr;  ///< outlives create() only; null: none
  kernels::DType dtype = kernels::DType::kFloat32;
  std::optional<kernels::DType> cache_dtype = {};  ///< of ParallelSetup
  int num_threads = 1;                             ///< shared by the ranks, at least one each
  int64_t num_sequences = 1;                       ///< side by side
  int64_t max_prompt = 512;                        ///< longest chunk of prefill_blocking
  int64_t max_length = 1024;                       ///< longest sequence
};

class MeasuredModel final {
 public:
  /// Tokens of the context at which the bytes of an exact window are counted.
  static constexpr int64_t kWindowContext = 1024;

  /// One decoded token: `id` stands at `position`, everything before it is cached or in the same
  /// call.
  struct Row {
    int64_t sequence = 0;
    int64_t position = 0;
    int32_t id = 0;
  };

  /// Errors: those of ParallelRunner::create(); INVALID_ARGUMENT when the model has fewer positions
  /// than `max_length`.
  [[nodiscard]] static Result<std::unique_ptr<MeasuredModel>> create(
      const MeasuredParts& parts, const MeasuredOptions& options);

  /// Exact: tokens [begin, begin + ids.size()) of a sequence as one chunk in up-projected form. A
  /// group whose ranks share the attention takes whole prompts only (begin 0).
  void prefill_blocking(int64_t sequence, int64_t begin, std::span<const int32_t> ids);
  /// The same, with the logits [ids.size(), V] of all of them: at most max_rows() tokens. Valid
  /// until the next call.
  [[nodiscard]] std::span<const float> prefill_logits_blocking(int64_t sequence,
                                                               int64_t begin,
                                                               std::span<const int32_t> ids);
  /// Decode rows in the mode's attention, at most max_rows(): logits [rows, V], valid until the
  /// next call. Rows of one sequence at consecutive positions see each other as if they were run
  /// one after the other: every layer writes all rows' latents before it attends, each row up to
  /// its own position.
  [[nodiscard]] std::span<const float> decode_blocking(std::span<const Row> rows);

  /// Rows of one step: so many that their logits stay small beside the weights of a large model.
  [[nodiscard]] int64_t max_rows() const noexcept { return max_rows_; }
  [[nodiscard]] int64_t max_prompt() const noexcept { return max_prompt_; }
  [[nodiscard]] int64_t max_length() const noexcept { return max_length_; }
  [[nodiscard]] int64_t num_sequences() const noexcept { return num_sequences_; }
  [[nodiscard]] int64_t vocab_size() const noexcept { return vocab_size_; }
  /// Cache bytes that a token takes on the rank that keeps most, on average over the tokens of a
  /// context of kWindowContext, over which an exact window spreads.
  [[nodiscard]] double bytes_per_token() const;
  [[nodiscard]] ParallelRunner& runner() noexcept { return *runner_; }

 private:
  MeasuredModel(const MeasuredParts& parts, const MeasuredOptions& options);
  void add_token(int64_t sequence, int64_t position, int32_t id);
  void add_table(int64_t sequence);
  [[nodiscard]] double window_bytes_per_token(int rank) const;
  void add_chunk(int64_t sequence, int64_t begin, std::span<const int32_t> ids);
  [[nodiscard]] std::span<const float> run();

  const int64_t vocab_size_;
  const int64_t max_rows_;
  const int64_t max_prompt_;
  const int64_t max_length_;
  const int64_t num_sequences_;
  const int64_t blocks_per_sequence_;  // a multiple of the ranks: keeps the rule of striped groups
  std::unique_ptr<ParallelRunner> runner_;
  ModelInput input_;
  std::vector<float> logits_;  // [rows, V]
};

}  // namespace tessera
