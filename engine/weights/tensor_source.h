// Where the packer reads a model's tensors: a checkpoint or a random generator.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/core/tensor_view.h"
#include "kernels/ops/random_weight.h"

namespace tessera {

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
  /// Stored bytes of all expected tensors and of those that were read so far.
  [[nodiscard]] virtual int64_t num_bytes() const = 0;
  [[nodiscard]] virtual int64_t num_bytes_read() const = 0;
};

}  // namespace tessera
