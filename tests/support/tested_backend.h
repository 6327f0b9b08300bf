// The backend that a test executable is about: one test source may be built once for each backend.
#pragma once

#include <memory>

#include "kernels/ops/backend.h"

namespace tessera::testing {

/// Defined in tested_backend_cpu.cpp and tested_backend_cuda.cpp. GPUs ignore `num_threads`.
[[nodiscard]] std::unique_ptr<kernels::Backend> make_tested_backend(int num_threads);

}  // namespace tessera::testing
