// The memory that a role of the transport tests keeps its images in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/image_mover.h"
#include "kernels/ops/backend.h"

namespace tessera {

class RoleMemory final {
 public:
  /// `kind`: "host", "fake" (a device whose memory is the host's), "fake-cuda" (the same that says
  /// it were a GPU), or "cuda:0" where this test is built for GPUs.
  RoleMemory(const std::string& kind, int64_t num_bytes);

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  /// Null for the host's.
  [[nodiscard]] kernels::ImageMover* mover() const noexcept { return mover_.get(); }
  void write(int64_t offset, std::span<const char> bytes);
  [[nodiscard]] std::vector<char> read(int64_t offset, int64_t num_bytes);

 private:
  std::unique_ptr<kernels::Backend> backend_;
  std::unique_ptr<kernels::ImageMover> mover_;
  kernels::DeviceBuffer buffer_;
  std::vector<std::byte> host_;
  std::byte* data_ = nullptr;
};

}  // namespace tessera
