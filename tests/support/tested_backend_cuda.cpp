#include "kernels/cuda/cuda_backend.h"
#include "tests/support/tested_backend.h"

namespace tessera::testing {

std::unique_ptr<kernels::Backend> make_tested_backend(int) {
  return kernels::cuda::create_cuda_backend(0);
}

}  // namespace tessera::testing
