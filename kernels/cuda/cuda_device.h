// One NVIDIA GPU as a Device. Every call makes it the calling thread's current device, so threads
// of several ranks may each use their own.
#pragma once

#include <memory>
#include <string>

#include "kernels/core/device.h"
#include "kernels/cuda/cuda_handles.h"

namespace tessera::kernels::cuda {

class PinnedStaging;

class CudaDevice final : public Device {
 public:
  /// Throws DeviceError when there is no such device.
  explicit CudaDevice(int index);
  ~CudaDevice() override;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  [[nodiscard]] DeviceBuffer allocate(int64_t num_bytes) override;
  /// Through pinned memory: `source` may be reused on return.
  void copy_from_host(void* destination,
                      const void* source,
                      int64_t num_bytes,
                      StreamView stream) override;
  void copy_to_host(void* destination,
                    const void* source,
                    int64_t num_bytes,
                    StreamView stream) override;
  void copy(void* destination, const void* source, int64_t num_bytes, StreamView stream) override;
  void synchronize_blocking(StreamView stream) override;
  [[nodiscard]] bool can_record() const noexcept override { return true; }
  [[nodiscard]] std::unique_ptr<DeviceGraph> record(StreamView stream,
                                                    const std::function<void()>& work) override;
  [[nodiscard]] std::unique_ptr<ImageMover> make_image_mover() override;
  [[nodiscard]] std::string description() const override { return description_; }

  /// Makes this the thread's current device; the stream that `stream` names. The default stream is
  /// one of this device's own, which a graph can be captured from.
  [[nodiscard]] cudaStream_t enter(StreamView stream) const;
  [[nodiscard]] int index() const noexcept { return index_; }
  [[nodiscard]] int num_multiprocessors() const noexcept { return num_multiprocessors_; }
  /// Bytes that can be allocated now.
  [[nodiscard]] int64_t free_bytes() const;

 private:
  void deallocate(void* data) noexcept override;

  int index_ = 0;
  int num_multiprocessors_ = 0;
  std::string description_;
  Stream default_stream_;
  std::unique_ptr<PinnedStaging> staging_;
};

}  // namespace tessera::kernels::cuda
