#include "kernels/core/device.h"

#include <utility>

#include "kernels/core/image_mover.h"

namespace tessera::kernels {

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      num_bytes_(std::exchange(other.num_bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this != &other) {
    reset();
    device_ = std::exchange(other.device_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    num_bytes_ = std::exchange(other.num_bytes_, 0);
  }
  return *this;
}

void DeviceBuffer::reset() noexcept {
  if (data_ != nullptr) {
    device_->deallocate(data_);
  }
  device_ = nullptr;
  data_ = nullptr;
  num_bytes_ = 0;
}

std::unique_ptr<DeviceGraph> Device::record(StreamView, const std::function<void()>&) {
  return nullptr;
}

std::unique_ptr<ImageMover> Device::make_image_mover() {
  return nullptr;
}

}  // namespace tessera::kernels
