#include "tests/unit/engine/transport/role_memory.h"

#include <cstring>

#include "kernels/core/check.h"
#include "tests/support/fake_image_mover.h"
#ifdef TESSERA_HAS_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif

namespace tessera {

RoleMemory::RoleMemory(const std::string& kind, int64_t num_bytes) {
  if (kind == "host") {
    host_.resize(static_cast<size_t>(num_bytes));
    data_ = host_.data();
    return;
  }
  if (kind.starts_with("fake")) {
    mover_ = std::make_unique<testing::FakeImageMover>(8, kind == "fake-cuda");
  }
#ifdef TESSERA_HAS_CUDA
  if (kind.starts_with("cuda:")) {
    backend_ = kernels::cuda::create_cuda_backend(std::stoi(kind.substr(5)));
    mover_ = backend_->device().make_image_mover();
  }
#endif
  TESSERA_CHECK(mover_ != nullptr, "no such memory: " + kind);
  buffer_ = mover_->allocate(num_bytes);
  data_ = static_cast<std::byte*>(buffer_.data());
}

void RoleMemory::write(int64_t offset, std::span<const char> bytes) {
  if (mover_ != nullptr) {
    mover_->write_blocking(data_ + offset, bytes.data(), static_cast<int64_t>(bytes.size()));
    return;
  }
  std::memcpy(data_ + offset, bytes.data(), bytes.size());
}

std::vector<char> RoleMemory::read(int64_t offset, int64_t num_bytes) {
  std::vector<char> bytes(static_cast<size_t>(num_bytes));
  if (mover_ != nullptr) {
    mover_->read_blocking(bytes.data(), data_ + offset, num_bytes);
  } else {
    std::memcpy(bytes.data(), data_ + offset, bytes.size());
  }
  return bytes;
}

}  // namespace tessera
