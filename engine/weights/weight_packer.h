// Turns tensors of a source into packed products and device vectors, one staging buffer at a time.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/weights/float8_stack.h"
#include "engine/weights/model_weights.h"
#include "engine/weights/tensor_source.h"
#include "engine/weights/weight_loader.h"
#include "kernels/ops/backend.h"

namespace tessera {

class WeightPacker final {
 public:
  /// All three outlive the packer.
  WeightPacker(TensorSource& source, kernels::Backend& backend, const LoadOptions& options)
      : source_(source), backend_(backend), options_(options) {}

  /// An empty product of options.dtype; fill its groups with `load`.
  [[nodiscard]] LinearWeightPtr make_linear(int64_t num_groups, int64_t rows, int64_t columns);
  /// Some rows and columns of a tensor.
  struct Part {
    std::string name;
    std::optional<IndexRange> rows = std::nullopt;     ///< none: all
    std::optional<IndexRange> columns = std::nullopt;  ///< none: all
  };
  void load(kernels::LinearWeight& weight, int64_t group, const kernels::ConstTensorView& matrix);
  /// One group of the parts, stacked: as they are stored where all are stored in FP8 and the
  /// backend multiplies by such weights, else in options.dtype.
  [[nodiscard]] LinearWeightPtr linear(const std::vector<Part>& parts);
  /// Likewise a group for each list of whole tensors: [rows, columns], stacked. Fill each with
  /// `load`.
  [[nodiscard]] LinearWeightPtr make_linear(const std::vector<std::vector<Part>>& groups,
                                            int64_t rows,
                                            int64_t columns);
  void load(kernels::LinearWeight& weight, int64_t group, const std::vector<Part>& parts);
  /// One group in `dtype`.
  [[nodiscard]] LinearWeightPtr linear(const kernels::ConstTensorView& matrix,
                                       kernels::DType dtype);
  /// Rows of the tensors (all columns) stacked in order, float32 in the packer's staging: the
  /// caller may change them. Valid until the next call that stacks.
  [[nodiscard]] kernels::TensorView stack(const std::vector<Part>& parts);
  /// The tensors' elements one after another behind `num_zeros` zeros, in host memory.
  [[nodiscard]] std::vector<float> floats(const std::vector<std::string>& names,
                                          int64_t num_zeros = 0);
  /// float32 on the device.
  [[nodiscard]] WeightTensor upload(const std::vector<float>& values);
  /// float32 on the device, the tensors' elements one after another behind `num_zeros` zeros.
  [[nodiscard]] WeightTensor vector(const std::vector<std::string>& names, int64_t num_zeros = 0);
  /// A matrix on the device in options.dtype, row-major.
  [[nodiscard]] WeightTensor table(const kernels::ConstTensorView& matrix);
  /// The tensor in host memory, valid until the next call of a member that takes names.
  [[nodiscard]] kernels::ConstTensorView read(const std::string& name);
  /// Of products and tables.
  [[nodiscard]] kernels::DType dtype() const noexcept { return options_.dtype; }
  /// Device bytes of everything made so far.
  [[nodiscard]] int64_t num_bytes() const noexcept { return num_bytes_; }

 private:
  void load_float8(kernels::LinearWeight& weight, int64_t group, const std::vector<Part>& parts);
  /// True when the source makes them for the backend: `weight` has them then.
  [[nodiscard]] bool take_random(kernels::LinearWeight& weight,
                                 int64_t group,
                                 const std::vector<Part>& parts);
  /// A single tensor is not copied.
  [[nodiscard]] kernels::ConstTensorView read_stacked(const std::vector<Part>& parts);
  /// What to stack so that the weight stays as it is stored; empty: it is not to.
  [[nodiscard]] std::vector<Float8Part> float8_parts(const std::vector<Part>& parts) const;
  [[nodiscard]] LinearWeightPtr make(const kernels::LinearShape& shape);
  void report(const std::string& name) const;  // progress

  TensorSource& source_;
  kernels::Backend& backend_;
  const LoadOptions& options_;
  std::vector<float> staging_;
  Float8Stack float8_;
  int64_t num_bytes_ = 0;
};

}  // namespace tessera
