#include "kernels/cpu/cpu_backend.h"
#include "tests/support/tested_backend.h"

namespace tessera::testing {

std::unique_ptr<kernels::Backend> make_tested_backend(int num_threads) {
  return kernels::cpu::create_cpu_backend(num_threads);
}

}  // namespace tessera::testing
