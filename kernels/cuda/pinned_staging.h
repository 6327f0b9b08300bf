// Copies between pageable host memory and the device through pinned memory, so that neither side
// waits: a source may be reused as soon as its copy was submitted, and what is read lands in pinned
// memory until the stream is synchronised. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

#include "kernels/cuda/cuda_handles.h"

namespace tessera::kernels::cuda {

class PinnedStaging final {
 public:
  /// On the current device, like all members.
  PinnedStaging();

  /// Waits only when copies of kHalfBytes and more are on their way.
  void copy_in(void* device, const void* host, int64_t num_bytes, cudaStream_t stream);
  /// Complete after finish_blocking(stream).
  void copy_out(void* host, const void* device, int64_t num_bytes, cudaStream_t stream);
  /// Waits for the stream; what copy_out() read through it is then where it belongs.
  void finish_blocking(cudaStream_t stream);

 private:
  static constexpr int64_t kHalfBytes = int64_t{4} << 20;
  static constexpr int64_t kOutBytes = int64_t{1} << 20;

  /// One half of the memory for copies to the device.
  struct Half {
    PinnedMemory memory;
    Event copied;  ///< the last copy out of it
    cudaStream_t stream = nullptr;
    int64_t used = 0;
  };
  struct Read {
    void* host = nullptr;
    int64_t offset = 0;  ///< in out_
    int64_t num_bytes = 0;
    cudaStream_t stream = nullptr;
  };

  /// The half to fill, with room and on this stream.
  Half& half_for(cudaStream_t stream);

  std::mutex mutex_;  // guards all below
  std::array<Half, 2> halves_;
  size_t current_ = 0;
  PinnedMemory out_;
  int64_t out_used_ = 0;
  std::vector<Read> reads_;
};

}  // namespace tessera::kernels::cuda
