// Runs another backend's operations on operands in host memory: each call copies them to that
// backend's device, padding and gaps included, and all of them back. So the tests of one backend
// are tests of every other.
#pragma once

#include <memory>

#include "kernels/ops/backend.h"

namespace tessera::testing {

/// Addresses keep their alignment, up to 256 bytes, on the way. Slow: every call allocates.
[[nodiscard]] std::unique_ptr<kernels::Backend> mirror_to_host(
    std::unique_ptr<kernels::Backend> backend);

}  // namespace tessera::testing
