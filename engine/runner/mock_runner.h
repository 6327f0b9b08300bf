// A group without a model: a step waits as long as a model of the given speed would take.
// Scheduler, cache, handoff and everything above run as with a model. Each token's row in the cache
// holds a hash of the sequence up to it, and the next token follows from the last row, so that a
// block that was lost, dealt wrong or recomputed wrong shows in the text. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/runner/group_runner.h"
#include "engine/runner/parallel_runner.h"

namespace tessera {

/// A step takes the time of its prompt tokens and, where a sequence decodes, that of a decode step.
struct MockSpeed {
  int64_t prefill_tokens_per_s = 1;
  std::chrono::milliseconds decode_step{0};
};

class MockRunner final : public GroupRunner {
 public:
  /// Cache and vocabulary are those of `setup`, nothing is loaded. Tokens come from the middle half
  /// of the vocabulary, where tokenizers keep whole words, and are no end tokens: sequences end by
  /// their length. Errors: those of PagedLatentCache::create(); UNIMPLEMENTED with a window.
  [[nodiscard]] static Result<std::unique_ptr<MockRunner>> create(
      const ParallelSetup& setup,
      const MockSpeed& speed,
      std::vector<std::unique_ptr<kernels::Backend>> backends);

  /// Greedy rows depend on the sequence alone, others on seed and choice too. Log-probabilities are
  /// made up.
  void run_blocking(const ModelInput& input,
                    const SamplingInput& sampling,
                    StepOutput& output) override;
  void copy_block(int32_t source, int32_t destination) override;

  [[nodiscard]] int num_ranks() const noexcept override { return static_cast<int>(ranks_.size()); }
  [[nodiscard]] PagedLatentCache& cache(int rank) override {
    return ranks_[static_cast<size_t>(rank)].cache;
  }
  [[nodiscard]] kernels::Backend& backend(int rank) override {
    return *ranks_[static_cast<size_t>(rank)].backend;
  }
  [[nodiscard]] bool has_probes() const noexcept override { return false; }
  [[nodiscard]] std::vector<kernels::ProbeSum> landed_probes_blocking(
      std::span<const int32_t> block_ids, int64_t begin, int64_t end) override;

 private:
  struct Rank {
    std::unique_ptr<kernels::Backend> backend;  // host memory
    PagedLatentCache cache;
  };

  MockRunner(const ParallelSetup& setup, const MockSpeed& speed, std::vector<Rank> ranks);
  [[nodiscard]] std::chrono::nanoseconds step_time(const ModelInput& input) const;
  void run_rows(const ModelInput& input, int64_t begin, int64_t num_rows, int64_t table_row);
  [[nodiscard]] uint64_t load(int32_t block, int64_t position) const;
  void store(int64_t slot, uint64_t hash);
  [[nodiscard]] int32_t draw(uint64_t hash, std::span<const int32_t> forbidden) const;

  const MockSpeed speed_;
  const int32_t first_token_;
  const int32_t num_tokens_;  // that may be drawn, end tokens among them left out
  const std::vector<int64_t> eos_ids_;
  const bool is_striped_;  // blocks are dealt to the ranks by id
  std::vector<Rank> ranks_;
  std::vector<uint64_t> hashes_;    // by row of the step
  std::vector<int32_t> forbidden_;  // of one sampled row
};

}  // namespace tessera
