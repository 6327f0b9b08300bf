// Turns tensors of a source into packed products and device vectors, one staging buffer at a time.
#pragma once

#include <optional>
#include <string>
#include <vector>

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
  /// Some rows of a tensor.
  struct RowPart {
    std::string name;
    std::optional<IndexRange> rows = std::nullopt;  ///< none: all
  };
  /// Packs the tensors, rows stacked in order, as one group.
  void load(kernels::LinearWeight& weight, int64_t group, const std::vector<std::string>& names);
  void load(kernels::LinearWeight& weight, int64_t group, const kernels::ConstTensorView& matrix);
  /// One group of the tensors' stacked rows, in options.dtype or in `dtype`.
  [[nodiscard]] LinearWeightPtr linear(const std::vector<std::string>& names);
  [[nodiscard]] LinearWeightPtr linear(const kernels::ConstTensorView& matrix,
                                       kernels::DType dtype);
  /// Rows of the tensors stacked in order, float32 in the packer's staging: the caller may change
  /// them. Valid until the next call that stacks.
  [[nodiscard]] kernels::TensorView stack(const std::vector<RowPart>& parts);
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
  /// A single whole tensor is not copied.
  [[nodiscard]] kernels::ConstTensorView read_stacked(const std::vector<std::string>& names);
  [[nodiscard]] LinearWeightPtr make(const kernels::LinearShape& shape);
  void report(const std::string& name) const;  // progress

  TensorSource& source_;
  kernels::Backend& backend_;
  const LoadOptions& options_;
  std::vector<float> staging_;
  int64_t num_bytes_ = 0;
};

}  // namespace tessera
