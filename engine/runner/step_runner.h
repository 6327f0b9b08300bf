// Runs one step on the device: forward pass, then sampling. The engine loop sees only this.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/model/model_input.h"
#include "kernels/ops/sampling_params.h"

namespace tessera {

/// Host arrays of the rows to sample; `rows[i].logits_row` counts within ModelInput::logits_rows.
struct SamplingInput {
  std::vector<kernels::SampleRow> rows;
  std::vector<int32_t> history_ids;
  std::vector<int32_t> history_counts;
  std::vector<int32_t> bias_ids;
  std::vector<float> bias_values;
  void clear() noexcept {
    rows.clear();
    history_ids.clear();
    history_counts.clear();
    bias_ids.clear();
    bias_values.clear();
  }
};

/// One entry per row of SamplingInput.
struct StepOutput {
  std::vector<int32_t> token_ids;
  std::vector<float> logprobs;
  std::vector<int32_t> top_ids;     ///< [rows, kMaxTopLogprobs]
  std::vector<float> top_logprobs;  ///< [rows, kMaxTopLogprobs]
};

/// Where a prompt of `num_tokens` tokens that another worker computed lies, to fill its window
/// from: its blocks with this rank's images, and beside them, for window_blocks()[k] and each other
/// slice (slice + 1 + o) mod g, the block that holds its image, at k (g - 1) + o. Ids mean the same
/// on every rank.
struct LandedWindow {
  int64_t ring = 0;
  int64_t num_tokens = 0;
  std::span<const int32_t> blocks;
  std::span<const int32_t> other_images;
};

class StepRunner {
 public:
  StepRunner() = default;
  virtual ~StepRunner() = default;
  StepRunner(const StepRunner&) = delete;
  StepRunner& operator=(const StepRunner&) = delete;

  /// Runs the step and waits for its result. Engine thread only. Throws DeviceError.
  virtual void run_blocking(const ModelInput& input,
                            const SamplingInput& sampling,
                            StepOutput& output) = 0;
  /// Copies all layers of block `source` to block `destination` (a forked sequence's last block).
  virtual void copy_block(int32_t source, int32_t destination) = 0;
  /// Writes the window rows of a landed prompt into its ring, on every rank; has read the blocks
  /// when it returns. Only with a window.
  virtual void fill_window(const LandedWindow& /*landed*/) {
    TESSERA_CHECK(false, "a runner that keeps no window");
  }
  /// Copies the window rows of one sequence over another's (a fork). Only with a window.
  virtual void copy_window(int64_t /*source_ring*/, int64_t /*destination_ring*/) {
    TESSERA_CHECK(false, "a runner that keeps no window");
  }
};

}  // namespace tessera
