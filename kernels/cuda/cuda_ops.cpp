#include "kernels/cuda/cuda_ops.h"

#include <vector>

#include "kernels/cuda/attention/decode_sm90.h"

namespace tessera::kernels::cuda {

CudaOps::CudaOps(CudaDevice& device)
    : device_(device),
      blas_(device),
      scratch_(device.allocate(kScratchBytes)),
      decode_tickets_(device.allocate(sm90_decode_ticket_bytes())),
      float8_dense_(device, blas_, scratch_) {
  const std::vector<char> zeros(static_cast<size_t>(decode_tickets_.num_bytes()));
  device.copy_from_host(decode_tickets_.data(), zeros.data(), decode_tickets_.num_bytes(), {});
  device.synchronize_blocking({});
}

CudaOps::~CudaOps() = default;

}  // namespace tessera::kernels::cuda
