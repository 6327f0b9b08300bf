// Parts of matrices that are stored in FP8, stacked to one: bytes and scales as the checkpoint has
// them, also where a rank's part cuts their blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/config/model_config.h"
#include "engine/weights/shard_plan.h"
#include "kernels/ops/linear_params.h"

namespace tessera {

/// Some rows and columns of a matrix that is stored in FP8.
struct Float8Part {
  IndexRange rows;
  IndexRange columns;
  BlockQuantization blocks;
};

/// Whether a backend's scales can be those of the parts, stacked: blocks as wide as a backend's,
/// and the same columns of all parts.
[[nodiscard]] bool can_stack_float8(const std::vector<Float8Part>& parts);

/// The stacked parts' scales: one for the rows of a block, or one a row where a part begins inside
/// a block of its matrix or of the stack.
[[nodiscard]] kernels::BlockScales stacked_scales(const std::vector<Float8Part>& parts);

/// One stack at a time, in memory of its own.
class Float8Stack final {
 public:
  /// Forgets what was added. `parts` are what is to be added, in that order.
  void begin(const std::vector<Float8Part>& parts);
  /// The next part, of the whole stored matrix.
  void add(const kernels::Float8Matrix& stored);
  /// Of all parts. Valid until the next begin().
  [[nodiscard]] kernels::Float8Matrix matrix() const;

 private:
  void add_scales(const Float8Part& part, const kernels::ConstTensorView& stored);

  std::vector<Float8Part> parts_;
  size_t num_added_ = 0;
  kernels::BlockScales layout_;
  std::vector<uint8_t> values_;
  std::vector<float> scales_;
};

}  // namespace tessera
