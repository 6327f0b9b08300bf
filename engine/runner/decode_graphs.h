// Decode steps as recorded graphs, one for each size of batch and of block tables, so that a step
// costs the host one launch. A step is padded to the next size with rows of no context, whose
// results nobody reads. Devices that record nothing never get here. Rank thread only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "engine/model/causal_lm.h"
#include "engine/model/model_input.h"
#include "kernels/core/device.h"

namespace tessera {

/// Rows that a step of `num_rows` decode rows is padded to: at most an eighth more from 8 rows on,
/// and at most `max_rows`.
[[nodiscard]] int64_t padded_decode_rows(int64_t num_rows, int64_t max_rows) noexcept;

/// Fills `padded` with the step `input` of decode rows, grown to `num_rows` rows and to block
/// tables of `table_width` blocks.
void pad_decode_step(const ModelInput& input,
                     int64_t num_rows,
                     int64_t table_width,
                     ModelInput& padded);

class DecodeGraphs final {
 public:
  /// `model`, what `cache` names and `device` outlive it.
  DecodeGraphs(CausalLm& model,
               const StepCache& cache,
               const StepLimits& limits,
               kernels::Device& device);

  /// Whether `input` is a step that it runs: decode rows, each with its logits.
  [[nodiscard]] bool can_run(const ModelInput& input) const noexcept;
  /// CausalLm::forward() of that step. Records the graph of a size on its second use.
  [[nodiscard]] kernels::TensorView run(const ModelInput& input, kernels::StreamView stream);

 private:
  struct Size {
    std::unique_ptr<kernels::DeviceGraph> graph;  ///< null until recorded
    kernels::TensorView logits;                   ///< of all padded rows
    bool has_run = false;
  };

  CausalLm& model_;
  const StepCache cache_;
  kernels::Device& device_;
  const int64_t max_rows_;
  const int64_t max_table_width_;
  const bool is_enabled_;                              // by a device that records
  std::map<std::pair<int64_t, int64_t>, Size> sizes_;  // by rows and table width
  ModelInput padded_;
};

}  // namespace tessera
