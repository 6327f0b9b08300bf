// Products of any number of rows with one matrix in float8. Few and some rows go to
// float8_linear.h. Of many, where cuBLASLt offers products of float8 with block scales and has
// proved here that it computes them, the rows are rounded to float8 too, with a scale for each row
// and 128 columns (as DeepSeek-V3 is trained: arXiv 2412.19437 section 3.3.2), but for up to three
// rows behind the last multiple of four, which stay bfloat16, as few rows do; elsewhere the weight
// becomes bfloat16, a part at a time, in scratch memory. One thread at a time.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/float8_linear.h"

namespace tessera::kernels::cuda {

class Float8Dense final {
 public:
  /// All outlive it. `scratch` is any operation's.
  Float8Dense(CudaDevice& device, Blas& blas, const DeviceBuffer& scratch)
      : device_(device), blas_(blas), scratch_(scratch) {}

  /// The first call compares cuBLASLt's product with that of an own kernel; start-up only.
  [[nodiscard]] bool is_usable_blocking();
  /// x, out, rows and types of `product`, with the weight's only group.
  void run(const CudaLinearWeight& weight, const GroupedProduct& product, cudaStream_t stream);

 private:
  /// False where cuBLASLt has no such product; some rows may be written then.
  [[nodiscard]] bool run_in_float8(const Float8Product& product, cudaStream_t stream);
  void run_in_bfloat16(const Float8Product& product, cudaStream_t stream);
  [[nodiscard]] bool compare_blocking();

  CudaDevice& device_;
  Blas& blas_;
  const DeviceBuffer& scratch_;
  std::optional<bool> is_usable_;
};

}  // namespace tessera::kernels::cuda
