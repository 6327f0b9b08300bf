// Where the packer reads a model's tensors: a checkpoint or a random generator.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/config/model_config.h"
#include "engine/weights/shard_plan.h"
#include "kernels/core/tensor_view.h"
#include "kernels/ops/linear_params.h"
#include "kernels/ops/random_weight.h"

namespace tessera {

/// How a matrix is stored in FP8.
struct StoredBlocks {
  int64_t rows = 0;     ///< of the matrix
  int64_t columns = 0;  ///< of the matrix
  BlockQuantization blocks;
};

class TensorSource {
 public:
  TensorSource() = default;
  virtual ~TensorSource() = default;
  TensorSource(const TensorSource&) = delete;
  TensorSource& operator=(const TensorSource&) = delete;

  /// The tensor `name` of expected_tensors(config) as contiguous, aligned float32, bfloat16 or
  /// float16 in host memory. Valid until the next call. Each tensor is read once.
  [[nodiscard]] virtual kernels::ConstTensorView read(const std::string& name) = 0;
  /// Takes the matrix `name` as numbers that a backend makes by itself, instead of read(); nothing:
  /// it has to be read.
  [[nodiscard]] virtual std::optional<kernels::RandomRows> take_random(
      const std::string& /*name*/) {
    return std::nullopt;
  }
  /// Of a matrix that is stored in FP8; nothing: it is not.
  [[nodiscard]] virtual std::optional<StoredBlocks> stored_blocks(
      const std::string& /*name*/) const {
    return std::nullopt;
  }
  /// A matrix with stored_blocks() as it is stored and whole, instead of read(); of its values
  /// those of `rows` and `columns` will be used. Its scales have ceil(rows / block_rows) rows and
  /// ceil(columns / block_columns) columns.
  [[nodiscard]] virtual kernels::Float8Matrix read_float8(const std::string& name,
                                                          const IndexRange& rows,
                                                          const IndexRange& columns) = 0;
  /// Stored bytes of all expected tensors and of those that were read so far.
  [[nodiscard]] virtual int64_t num_bytes() const = 0;
  [[nodiscard]] virtual int64_t num_bytes_read() const = 0;
};

}  // namespace tessera
