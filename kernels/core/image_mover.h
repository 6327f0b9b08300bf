// What a transport does with block images in the memory of a device that the host cannot read: sums
// them, copies them, and waits for that without making anyone else wait.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/device.h"

namespace tessera::kernels {

/// Works on a stream of its own. One thread at a time, but for enter() and allocate(): any thread.
/// All members throw DeviceError when the device fails.
class ImageMover {
 public:
  /// Checksummed (image_checksum.h), and copied on the way when there is a destination: the sum is
  /// that of the bytes which the copy stored, also when the source changes meanwhile. Both ends are
  /// in the device's memory, at any alignment; multiples of 16 bytes are fast.
  struct Image {
    void* destination = nullptr;
    const void* source = nullptr;
    int64_t num_bytes = 0;
  };

  ImageMover() = default;
  virtual ~ImageMover() = default;
  ImageMover(const ImageMover&) = delete;
  ImageMover& operator=(const ImageMover&) = delete;

  /// Whether UCX has to be told that this is CUDA's memory.
  [[nodiscard]] virtual bool is_cuda() const noexcept = 0;
  /// Of one batch.
  [[nodiscard]] virtual int64_t max_images() const noexcept = 0;
  /// Makes the device the calling thread's, for libraries that ask which one that is.
  virtual void enter() = 0;
  /// Memory that other processes can be given; the mover outlives it.
  [[nodiscard]] virtual DeviceBuffer allocate(int64_t num_bytes) = 0;

  /// Queues one batch of at most max_images(), without waiting; sources stay as they are and no
  /// destination is read until finish_blocking(). What is begun is finished, once. Batches are done
  /// in order: one without images is done when the earlier ones are, those that threw too.
  [[nodiscard]] virtual int64_t begin(std::span<const Image> images) = 0;
  /// Whether finish_blocking() would not wait. What was copied is then seen by everyone.
  [[nodiscard]] virtual bool is_done(int64_t batch) = 0;
  /// Waits for the batch; what was copied is seen by all work that is queued later, on any stream.
  /// Returns the checksums.
  [[nodiscard]] virtual std::vector<uint64_t> finish_blocking(int64_t batch) = 0;
  /// What other processes wrote into this memory before this call is what later batches read.
  virtual void see_remote_writes() = 0;

  /// From and to the host. Small pieces, not on the way of images.
  virtual void write_blocking(void* destination, const void* source, int64_t num_bytes) = 0;
  virtual void read_blocking(void* destination, const void* source, int64_t num_bytes) = 0;
};

}  // namespace tessera::kernels
