// A weight on a GPU: [G, N, K], row-major, in the products' type or in float8. Behind the latter
// lie the scales, float32 [G, scale_rows, scale_stride].
#pragma once

#include <utility>

#include "kernels/core/device.h"
#include "kernels/ops/linear_params.h"

namespace tessera::kernels::cuda {

class CudaLinearWeight final : public LinearWeight {
 public:
  CudaLinearWeight(const LinearShape& shape, DeviceBuffer buffer)
      : LinearWeight(shape), buffer_(std::move(buffer)) {}
  [[nodiscard]] static int64_t num_bytes(const LinearShape& shape) noexcept {
    const int64_t values = shape.num_groups * group_bytes(shape);
    return shape.scales ? scales_begin(shape) + shape.num_groups * group_scales(shape) * kScaleBytes
                        : values;
  }
  [[nodiscard]] int64_t num_bytes() const noexcept override { return buffer_.num_bytes(); }
  [[nodiscard]] char* group(int64_t index) const noexcept {
    return static_cast<char*>(buffer_.data()) + index * group_bytes();
  }
  [[nodiscard]] int64_t group_bytes() const noexcept { return group_bytes(shape()); }
  /// Of a weight in float8.
  [[nodiscard]] float* scales(int64_t group) const noexcept {
    char* begin = static_cast<char*>(buffer_.data()) + scales_begin(shape());
    return reinterpret_cast<float*>(begin) + group * group_scales();
  }
  [[nodiscard]] int64_t group_scales() const noexcept { return group_scales(shape()); }
  /// Numbers between rows of scales: a multiple of 4, as cuBLASLt has them.
  [[nodiscard]] int64_t scale_stride() const noexcept { return scale_stride(shape()); }

 private:
  static constexpr int64_t kScaleBytes = sizeof(float);

  static int64_t group_bytes(const LinearShape& shape) noexcept {
    return shape.out_features * shape.in_features *
           dtype_bytes(shape.scales ? DType::kFloat8E4M3 : shape.dtype);
  }
  static int64_t scales_begin(const LinearShape& shape) noexcept {
    return (shape.num_groups * group_bytes(shape) + 255) / 256 * 256;
  }
  static int64_t scale_stride(const LinearShape& shape) noexcept {
    return (shape.scale_columns() + 3) / 4 * 4;
  }
  static int64_t group_scales(const LinearShape& shape) noexcept {
    return shape.scale_rows() * scale_stride(shape);
  }

  DeviceBuffer buffer_;
};

[[nodiscard]] inline const CudaLinearWeight& on_device(const LinearWeight* weight) {
  return static_cast<const CudaLinearWeight&>(*weight);
}

}  // namespace tessera::kernels::cuda
