// Products of few rows with a weight: what a decode step of a small batch consists of. Such a
// product is a stream of the weight's bytes and nothing else.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/cuda/blas.h"

namespace tessera::kernels::cuda {

/// More rows than this are cuBLASLt's.
inline constexpr int64_t kMaxFewRows = 16;

/// bfloat16, 1 to kMaxFewRows rows, everything read aligned to 16 bytes.
[[nodiscard]] bool can_use_few_rows(const BlasProblem& problem);

/// `problem` is one that can_use_few_rows() allows. Reads the weight before the kernel before it
/// has ended: weights are written once, before any step.
void launch_few_rows(const BlasProblem& problem, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
