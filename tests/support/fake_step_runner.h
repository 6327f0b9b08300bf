// A StepRunner without a model. It holds a paged cache of (token, latent) and reads every context
// through the block tables, as attention does, so that a wrong slot, table, prefix hit, copy or
// preemption changes tokens; and it lists what broke the contract of ModelInput.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/text.h"
#include "engine/cache/latent_layout.h"
#include "engine/runner/step_runner.h"
#include "tests/support/fake_model.h"

namespace tessera::testing {

class FakeStepRunner final : public StepRunner {
 public:
  FakeStepRunner(int64_t num_blocks, int32_t vocab_size)
      : vocab_size_(vocab_size),
        cells_(static_cast<size_t>(num_blocks * kBlockTokens)),
        written_in_step_(cells_.size(), -1) {}

  /// The bytes of a block, for a transport.
  [[nodiscard]] char* block_address(int32_t id) noexcept {
    return reinterpret_cast<char*>(&cells_[index(id * kBlockTokens)]);
  }
  [[nodiscard]] static constexpr int64_t block_bytes() noexcept {
    return kBlockTokens * static_cast<int64_t>(sizeof(Cell));
  }

  /// Called before each step with its number from 0; may wait or throw.
  std::function<void(int64_t step)> before_step;
  int64_t max_tokens_seen = 0;  ///< tokens of the largest step
  int64_t max_rows_seen = 0;    ///< sampled rows of the largest step
  int64_t num_steps = 0;
  int64_t num_copies = 0;

  /// What broke the contract, at most a few.
  [[nodiscard]] const std::vector<std::string>& faults() const noexcept { return faults_; }

  void run_blocking(const ModelInput& input,
                    const SamplingInput& sampling,
                    StepOutput& output) override {
    if (before_step) {
      before_step(num_steps);
    }
    ++num_steps;
    max_tokens_seen = std::max(max_tokens_seen, input.num_tokens());
    max_rows_seen = std::max(max_rows_seen, static_cast<int64_t>(sampling.rows.size()));
    check_shapes(input);
    latents_.assign(input.token_ids.size(), 0);
    for (int64_t row = 0; row < input.num_decode; ++row) {
      expect(input.decode_lengths[index(row)] == input.positions[index(row)] + 1,
             "a decode row's length includes its own token");
      run_rows(input, row, 1, row);
    }
    for (const PrefillChunk& chunk : input.chunks) {
      expect(chunk.num_tokens > 0, "a chunk has tokens");
      expect(input.positions[index(chunk.row_begin)] == chunk.context_begin,
             "a chunk begins where its context ends");
      run_rows(input, chunk.row_begin, chunk.num_tokens, chunk.table_row);
    }
    sample(input, sampling, output);
  }

  void copy_block(int32_t source, int32_t destination) override {
    ++num_copies;
    expect(source != destination, "a block is copied to another one");
    for (int64_t i = 0; i < kBlockTokens; ++i) {
      cells_[index(destination * kBlockTokens + i)] = cells_[index(source * kBlockTokens + i)];
    }
  }

 private:
  struct Cell {
    int32_t token_id = -1;
    uint64_t latent = 0;
  };

  static size_t index(int64_t i) noexcept { return static_cast<size_t>(i); }

  void expect(bool condition, const char* what) {
    if (!condition && faults_.size() < 10) {
      faults_.push_back(str_cat("step ", num_steps - 1, ": ", what));
    }
  }

  void check_shapes(const ModelInput& input) {
    const size_t num_tokens = input.token_ids.size();
    expect(num_tokens > 0, "a step has tokens");
    expect(input.positions.size() == num_tokens && input.slots.size() == num_tokens,
           "one position and slot a token");
    expect(input.decode_lengths.size() == index(input.num_decode), "one length a decode row");
    const int64_t num_tables = input.num_decode + static_cast<int64_t>(input.chunks.size());
    expect(input.block_tables.size() == index(num_tables * input.max_blocks_per_sequence),
           "one table a decode row and chunk");
    int64_t next_row = input.num_decode;
    for (const PrefillChunk& chunk : input.chunks) {
      expect(chunk.row_begin == next_row, "chunks lie back to back");
      next_row += chunk.num_tokens;
    }
    expect(next_row == input.num_tokens(), "rows and chunks cover all tokens");
    for (size_t i = 1; i < input.logits_rows.size(); ++i) {
      expect(input.logits_rows[i - 1] < input.logits_rows[i], "logits rows ascend");
    }
  }

  int64_t slot_of(const ModelInput& input, int64_t table_row, int64_t position) {
    const int64_t block = position / kBlockTokens;
    expect(block < input.max_blocks_per_sequence, "a position lies inside its table");
    const int32_t id = input.block_tables[index(table_row * input.max_blocks_per_sequence + block)];
    return id * kBlockTokens + position % kBlockTokens;
  }

  void run_rows(const ModelInput& input, int64_t begin, int64_t num_rows, int64_t table_row) {
    uint64_t latent = kFakeLatentBegin;
    const int64_t context = input.positions[index(begin)];
    for (int64_t position = 0; position < context; ++position) {
      const Cell& cell = cells_[index(slot_of(input, table_row, position))];
      latent = fake_latent(latent, cell.token_id);
      expect(cell.latent == latent, "the cache holds this context");
    }
    for (int64_t i = 0; i < num_rows; ++i) {
      const size_t row = index(begin + i);
      expect(input.positions[row] == context + i, "a chunk's positions follow each other");
      expect(input.slots[row] == slot_of(input, table_row, context + i),
             "a slot is the table's place of the position");
      latent = fake_latent(latent, input.token_ids[row]);
      int64_t& written_in_step = written_in_step_[index(input.slots[row])];
      expect(written_in_step != num_steps, "one step writes a slot once");
      written_in_step = num_steps;
      cells_[index(input.slots[row])] = {input.token_ids[row], latent};
      latents_[row] = latent;
    }
  }

  void sample(const ModelInput& input, const SamplingInput& sampling, StepOutput& output) {
    const size_t num_rows = sampling.rows.size();
    output.token_ids.resize(num_rows);
    output.logprobs.resize(num_rows);
    output.top_ids.resize(num_rows * index(kernels::kMaxTopLogprobs));
    output.top_logprobs.resize(num_rows * index(kernels::kMaxTopLogprobs));
    for (size_t i = 0; i < num_rows; ++i) {
      const kernels::SampleRow& row = sampling.rows[i];
      FakeDraw draw{.temperature = row.temperature,
                    .seed = row.seed,
                    .choice = row.choice,
                    .position = row.position};
      for (int64_t h = row.history_begin; h < row.history_end; ++h) {
        draw.history +=
            fake_history_entry(sampling.history_ids[index(h)], sampling.history_counts[index(h)]);
      }
      for (int64_t b = row.bias_begin; b < row.bias_end; ++b) {
        if (sampling.bias_values[index(b)] == -std::numeric_limits<float>::infinity()) {
          draw.forbidden.push_back(sampling.bias_ids[index(b)]);
        }
      }
      const int32_t logits_row = input.logits_rows[index(row.logits_row)];
      const int32_t token = fake_token(latents_[index(logits_row)], draw, vocab_size_);
      output.token_ids[i] = token;
      output.logprobs[i] = -0.5F;
      for (int64_t k = 0; k < kernels::kMaxTopLogprobs; ++k) {
        output.top_ids[i * index(kernels::kMaxTopLogprobs) + index(k)] =
            (token + static_cast<int32_t>(k)) % vocab_size_;
        output.top_logprobs[i * index(kernels::kMaxTopLogprobs) + index(k)] =
            -0.5F - static_cast<float>(k);
      }
    }
  }

  int32_t vocab_size_;
  std::vector<Cell> cells_;  // by slot
  std::vector<int64_t> written_in_step_;
  std::vector<uint64_t> latents_;  // by row of the step
  std::vector<std::string> faults_;
};

}  // namespace tessera::testing
