#include "kernels/cuda/cuda_ops.h"

namespace tessera::kernels::cuda {

CudaOps::CudaOps(CudaDevice& device)
    : device_(device),
      blas_(device),
      scratch_(device.allocate(kScratchBytes)),
      float8_dense_(device, blas_, scratch_) {}

CudaOps::~CudaOps() = default;

}  // namespace tessera::kernels::cuda
