// A StepRunner without a model. It holds a paged cache of (token, latent) and reads every context
// through the block tables, as attention does, so that a wrong slot, table, prefix hit, copy or
// preemption changes tokens; and it lists what broke the contract of ModelInput. With an exact
// window it keeps the rows of its rings likewise, and looks whether they are those of the context.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/text.h"
#include "engine/cache/latent_layout.h"
#include "engine/cache/window_cache.h"
#include "engine/runner/step_runner.h"
#include "tests/support/fake_model.h"

namespace tessera::testing {

class FakeStepRunner final : public StepRunner {
 public:
  FakeStepRunner(int64_t num_blocks,
                 int32_t vocab_size,
                 const kernels::WindowRing& ring = {},
                 int64_t num_rings = 0)
      : vocab_size_(vocab_size),
        cells_(static_cast<size_t>(num_blocks * kBlockTokens)),
        written_in_step_(cells_.size(), -1),
        ring_(ring),
        window_cells_(static_cast<size_t>(num_rings * ring.rows_per_sequence())) {}

  /// The bytes of a block, for a transport.
  [[nodiscard]] char* block_address(int32_t id) noexcept {
    return reinterpret_cast<char*>(&cells_[index(id * kBlockTokens)]);
  }
  [[nodiscard]] static constexpr int64_t block_bytes() noexcept {
    return kBlockTokens * static_cast<int64_t>(sizeof(Cell));
  }

  /// Called before each step with its number from 0; may wait or throw.
  std::function<void(int64_t step)> before_step;
  int64_t num_images = 1;       ///< of a block at prefill, all alike; set before use
  int64_t max_tokens_seen = 0;  ///< tokens of the largest step
  int64_t max_rows_seen = 0;    ///< sampled rows of the largest step
  int64_t num_steps = 0;
  int64_t num_copies = 0;
  int64_t num_window_fills = 0;
  int64_t num_window_copies = 0;

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
      check_window(input, row);
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

  void fill_window(const LandedWindow& landed) override {
    ++num_window_fills;
    expect(!ring_.window.is_empty(), "a window is filled where there is one");
    const auto blocks = window_blocks(ring_.window, landed.num_tokens);
    expect(landed.other_images.size() == blocks.size() * index(num_images - 1),
           "all other images of the window's blocks have landed");
    for (size_t i = 0; i < landed.other_images.size(); ++i) {
      const int64_t block = blocks[i / index(num_images - 1)];
      const int64_t tokens = std::min(kBlockTokens, landed.num_tokens - block * kBlockTokens);
      for (int64_t at = 0; at < tokens; ++at) {
        expect(cells_[index(landed.other_images[i] * kBlockTokens + at)].latent ==
                   cells_[index(landed.blocks[index(block)] * kBlockTokens + at)].latent,
               "an other image is of the window's block");
      }
    }
    for (int64_t position = 0; position < landed.num_tokens; ++position) {
      if (ring_.is_kept(position, landed.num_tokens)) {
        const int32_t block = landed.blocks[index(position / kBlockTokens)];
        window_cell(landed.ring, position) =
            cells_[index(block * kBlockTokens + position % kBlockTokens)];
      }
    }
  }

  void copy_window(int64_t source_ring, int64_t destination_ring) override {
    ++num_window_copies;
    expect(source_ring != destination_ring, "a ring is copied to another one");
    const int64_t rows = ring_.rows_per_sequence();
    for (int64_t row = 0; row < rows; ++row) {
      window_cells_[index(destination_ring * rows + row)] =
          window_cells_[index(source_ring * rows + row)];
    }
  }

 private:
  struct Cell {
    int32_t token_id = -1;
    uint64_t latent = 0;
  };

  Cell& window_cell(int64_t ring, int64_t position) {
    return window_cells_[index(ring * ring_.rows_per_sequence() + ring_.row(position))];
  }

  /// Whether a decode row finds those tokens of the window that went before it.
  void check_window(const ModelInput& input, int64_t row) {
    if (ring_.window.is_empty()) {
      return;
    }
    const int64_t ring = input.window_first_slots[index(row)] / ring_.rows_per_sequence();
    const int64_t own = input.positions[index(row)];
    for (int64_t position = 0; position < own; ++position) {
      if (ring_.window.contains(position, own + 1)) {
        const Cell& paged = cells_[index(slot_of(input, row, position))];
        const Cell& kept = window_cell(ring, position);
        expect(kept.token_id == paged.token_id && kept.latent == paged.latent,
               "the window holds this context");
      }
    }
    expect(!ring_.window.contains(own, own + 1) || input.window_slots[index(row)] >= 0,
           "a decode row writes its own row of the window");
  }

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
    const bool has_window = !ring_.window.is_empty();
    expect(input.window_slots.size() == (has_window ? num_tokens : 0) &&
               input.window_first_slots.size() == (has_window ? index(input.num_decode) : 0),
           "one row of the window a token, one ring a decode row, or none");
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
      if (!input.window_slots.empty() && input.window_slots[row] >= 0) {
        window_cells_[index(input.window_slots[row])] = cells_[index(input.slots[row])];
      }
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
  kernels::WindowRing ring_;
  std::vector<Cell> window_cells_;  // by slot of the window
  std::vector<uint64_t> latents_;   // by row of the step
  std::vector<std::string> faults_;
};

}  // namespace tessera::testing
