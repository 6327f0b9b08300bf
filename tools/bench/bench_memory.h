// Memory that a transfer is measured from or into: the host's or a GPU's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/core/image_mover.h"
#include "kernels/ops/backend.h"

namespace tessera::bench {

class BenchMemory final {
 public:
  /// `gpu`: below 0 the host's, in large pages where there are any. All bytes are `fill`; each page
  /// is touched. Ends the process when there is none.
  BenchMemory(int gpu, int64_t num_bytes, int fill);

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  /// Null for the host's.
  [[nodiscard]] kernels::ImageMover* mover() const noexcept { return mover_.get(); }
  [[nodiscard]] bool is_cuda() const noexcept { return mover_ != nullptr; }

 private:
  std::unique_ptr<kernels::Backend> backend_;
  std::unique_ptr<kernels::ImageMover> mover_;
  kernels::DeviceBuffer buffer_;
  std::byte* data_ = nullptr;  // the host's is unmapped by the process's end
};

}  // namespace tessera::bench
