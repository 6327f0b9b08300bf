#include "kernels/cuda/blas.h"

#include <algorithm>

#include "kernels/cuda/cuda_check.h"

namespace tessera::kernels::cuda {
namespace {

/// Step sizes vary from one prefill step to the next: forget all rather than grow without bound.
constexpr size_t kMaxChoices = 16'384;

cudaDataType_t data_type(DType dtype) {
  if (dtype == DType::kFloat8E4M3) {
    return CUDA_R_8F_E4M3;
  }
  return dtype == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
}

/// Largest power of two, up to 256, that divides the address.
uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer) | 256U;
  return static_cast<uint32_t>(address & (~address + 1));
}

}  // namespace

/// cuBLASLt is column-major: our rows are its columns, and out^T = weight * x^T.
struct Blas::Descriptors {
  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t weight, x, out;
  bool is_possible = true;  ///< in this version of cuBLASLt

  explicit Descriptors(const BlasProblem& p) {
    const cudaDataType_t type = data_type(p.dtype);
    TESSERA_CUBLAS(cublasLtMatmulDescInit(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transpose = CUBLAS_OP_T;
    TESSERA_CUBLAS(cublasLtMatmulDescSetAttribute(
        &product, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose)));
    is_possible = p.dtype != DType::kFloat8E4M3 || set_scales(p);
    init(weight, {p.in_features, p.out_features, p.in_features, type});
    init(x, {p.in_features, p.rows, p.x_stride, type});
    init(out, {p.out_features, p.rows, p.out_stride, data_type(p.out_dtype)});
    if (p.batch > 1) {
      set_batch(weight, p.batch, p.out_features * p.in_features);
      set_batch(x, p.batch, p.x_batch_stride);
      set_batch(out, p.batch, p.out_batch_stride);
    }
  }

 private:
  struct Matrix {
    int64_t rows, columns;
    int64_t stride;  ///< between columns
    cudaDataType_t type;
  };

  static void init(cublasLtMatrixLayoutOpaque_t& layout, const Matrix& matrix) {
    TESSERA_CUBLAS(cublasLtMatrixLayoutInit(&layout,
                                            matrix.type,
                                            static_cast<uint64_t>(matrix.rows),
                                            static_cast<uint64_t>(matrix.columns),
                                            matrix.stride));
  }
  bool set_scales(const BlasProblem& p) {
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      return cublasLtMatmulDescSetAttribute(&product, attribute, &value, sizeof(value)) ==
             CUBLAS_STATUS_SUCCESS;
    };
    return set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
               static_cast<int32_t>(CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F)) &&
           set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE,
               static_cast<int32_t>(CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F)) &&
           set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.weight_scales) &&
           set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.x_scales);
  }
  static void set_batch(cublasLtMatrixLayoutOpaque_t& layout, int64_t batch, int64_t stride) {
    const auto count = static_cast<int32_t>(batch);
    TESSERA_CUBLAS(cublasLtMatrixLayoutSetAttribute(
        &layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof(count)));
    TESSERA_CUBLAS(cublasLtMatrixLayoutSetAttribute(
        &layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof(stride)));
  }
};

Blas::Blas(CudaDevice& device) {
  static_cast<void>(device.enter({}));
  handle_ = make_blas_handle();
  workspace_ = device.allocate(kWorkspaceBytes);
}

Blas::~Blas() = default;

size_t Blas::KeyHash::operator()(const Key& key) const noexcept {
  uint64_t hash = 0;
  for (const int64_t part : {key.rows,
                             key.out_features,
                             key.in_features,
                             key.batch,
                             key.x_stride,
                             key.x_batch_stride,
                             key.out_stride,
                             key.out_batch_stride,
                             key.form}) {
    hash = (hash ^ static_cast<uint64_t>(part)) * 0x9e3779b97f4a7c15U;
    hash ^= hash >> 32U;
  }
  return hash;
}

Blas::Choice Blas::choose(Descriptors& descriptors, const BlasProblem& problem) const {
  cublasLtMatmulPreferenceOpaque_t preference;
  TESSERA_CUBLAS(cublasLtMatmulPreferenceInit(&preference));
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    TESSERA_CUBLAS(
        cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
  // Parts of a sum that is split are added up in float32, never in the output's type.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(problem.weight));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(problem.x));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(problem.out));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(problem.out));
  cublasLtMatmulHeuristicResult_t result;
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_.get(),
                                                               &descriptors.product,
                                                               &descriptors.weight,
                                                               &descriptors.x,
                                                               &descriptors.out,
                                                               &descriptors.out,
                                                               &preference,
                                                               1,
                                                               &result,
                                                               &found);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0) {
    return {};
  }
  return {true, result.algo};
}

bool Blas::run(const BlasProblem& problem, cudaStream_t stream) {
  Descriptors descriptors(problem);
  if (!descriptors.is_possible) {
    return false;
  }
  const Key key{problem.rows,
                problem.out_features,
                problem.in_features,
                problem.batch,
                problem.x_stride,
                problem.x_batch_stride,
                problem.out_stride,
                problem.out_batch_stride,
                static_cast<int64_t>(problem.dtype) | static_cast<int64_t>(problem.out_dtype) << 4 |
                    static_cast<int64_t>(alignment_of(problem.weight)) << 8 |
                    static_cast<int64_t>(alignment_of(problem.x)) << 20 |
                    static_cast<int64_t>(alignment_of(problem.out)) << 32};
  auto found = choices_.find(key);
  if (found == choices_.end()) {
    if (choices_.size() >= kMaxChoices) {
      choices_.clear();
    }
    found = choices_.emplace(key, choose(descriptors, problem)).first;
  }
  if (!found->second.is_possible) {
    return false;
  }
  const float one = 1.0F;
  const float zero = 0.0F;
  const cublasStatus_t status = cublasLtMatmul(handle_.get(),
                                               &descriptors.product,
                                               &one,
                                               problem.weight,
                                               &descriptors.weight,
                                               problem.x,
                                               &descriptors.x,
                                               &zero,
                                               problem.out,
                                               &descriptors.out,
                                               problem.out,
                                               &descriptors.out,
                                               &found->second.algorithm,
                                               workspace_.data(),
                                               kWorkspaceBytes,
                                               stream);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED && problem.dtype == DType::kFloat8E4M3) {
    found->second.is_possible = false;  // what the heuristics promised
    return false;
  }
  TESSERA_CUBLAS(status);
  return true;
}

}  // namespace tessera::kernels::cuda
