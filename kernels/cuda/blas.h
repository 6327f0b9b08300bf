// Dense and strided-batched products through cuBLASLt, in float32 (never TF32), bfloat16 or scaled
// float8 with float32 sums. What its heuristics choose for a problem is kept. One thread at a time.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "kernels/core/dtype.h"
#include "kernels/cuda/cuda_device.h"

namespace tessera::kernels::cuda {

/// out[b, t, n] = sum_k x[b, t, k] * weight[b, n, k], rows of K and N adjacent elements. Strides
/// are counted in elements.
struct BlasProblem {
  const void* x = nullptr;
  const void* weight = nullptr;
  void* out = nullptr;
  int64_t rows = 0;  ///< T
  int64_t out_features = 0;
  int64_t in_features = 0;
  int64_t batch = 1;
  int64_t x_stride = 0;  ///< between rows; at least K
  int64_t x_batch_stride = 0;
  int64_t out_stride = 0;  ///< between rows; at least N
  int64_t out_batch_stride = 0;
  DType dtype = DType::kFloat32;  ///< of x and weight
  DType out_dtype = DType::kFloat32;
  /// Of float8_e4m3: a scale for each block of 128 x 128 of the weight, rows of them a multiple of
  /// 4 apart, and for each row and 128 columns of x: [blocks of columns, rows].
  const float* weight_scales = nullptr;
  const float* x_scales = nullptr;
};

class Blas final {
 public:
  /// `device` outlives it.
  explicit Blas(CudaDevice& device);
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  /// False, with nothing done, for problems that cuBLASLt has no algorithm for.
  [[nodiscard]] bool run(const BlasProblem& problem, cudaStream_t stream);

 private:
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

  /// What the choice of an algorithm depends on.
  struct Key {
    int64_t rows, out_features, in_features, batch;
    int64_t x_stride, x_batch_stride, out_stride, out_batch_stride;
    int64_t form;  ///< element types and alignments
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const noexcept;
  };
  struct Choice {
    bool is_possible = false;
    cublasLtMatmulAlgo_t algorithm = {};
  };
  struct Descriptors;

  [[nodiscard]] Choice choose(Descriptors& descriptors, const BlasProblem& problem) const;

  BlasHandle handle_;
  DeviceBuffer workspace_;
  std::unordered_map<Key, Choice, KeyHash> choices_;
};

}  // namespace tessera::kernels::cuda
