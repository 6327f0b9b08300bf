// The backend of this executable: the first GPU, on operands in host memory.

#include "kernels/cuda/cuda_backend.h"
#include "tests/support/mirrored_backend.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {

std::unique_ptr<kernels::Backend> make_host_backend(int) {
  return mirror_to_host(kernels::cuda::create_cuda_backend(0));
}

std::vector<int> tested_thread_counts() {
  return {1};
}

}  // namespace tessera::testing
