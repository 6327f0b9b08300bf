// The backend of this executable: the CPU.

#include "kernels/cpu/cpu_backend.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {

std::unique_ptr<kernels::Backend> make_host_backend(int num_threads) {
  return kernels::cpu::create_cpu_backend(num_threads);
}

std::vector<int> tested_thread_counts() {
  return {1, 2, 3};
}

}  // namespace tessera::testing
