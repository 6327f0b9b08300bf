// A weight on a GPU: [G, N, K], row-major, in the products' type.
#pragma once

#include <utility>

#include "kernels/core/device.h"
#include "kernels/ops/linear_params.h"

namespace tessera::kernels::cuda {

class CudaLinearWeight final : public LinearWeight {
 public:
  CudaLinearWeight(const LinearShape& shape, DeviceBuffer buffer)
      : LinearWeight(shape), buffer_(std::move(buffer)) {}
  [[nodiscard]] int64_t num_bytes() const noexcept override { return buffer_.num_bytes(); }
  [[nodiscard]] char* group(int64_t index) const noexcept {
    return static_cast<char*>(buffer_.data()) + index * group_bytes();
  }
  [[nodiscard]] int64_t group_bytes() const noexcept {
    return shape().out_features * shape().in_features * dtype_bytes(shape().dtype);
  }

 private:
  DeviceBuffer buffer_;
};

[[nodiscard]] inline const CudaLinearWeight& on_device(const LinearWeight* weight) {
  return static_cast<const CudaLinearWeight&>(*weight);
}

}  // namespace tessera::kernels::cuda
