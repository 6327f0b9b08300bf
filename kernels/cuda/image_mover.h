// The CUDA ImageMover. No CUDA header is needed to include this one.
#pragma once

#include <memory>

#include "kernels/core/image_mover.h"

namespace tessera::kernels::cuda {

class CudaDevice;

/// `device` outlives it. Throws DeviceError.
[[nodiscard]] std::unique_ptr<ImageMover> create_cuda_image_mover(CudaDevice& device);

}  // namespace tessera::kernels::cuda
