#include "kernels/cuda/pinned_staging.h"

#include <algorithm>
#include <cstring>

namespace tessera::kernels::cuda {

PinnedStaging::PinnedStaging() : out_(make_pinned(kOutBytes)) {
  for (Half& half : halves_) {
    half.memory = make_pinned(kHalfBytes);
    half.copied = make_event();
  }
}

PinnedStaging::Half& PinnedStaging::half_for(cudaStream_t stream) {
  Half& half = halves_[current_];
  if (half.used == 0 || (half.used < kHalfBytes && half.stream == stream)) {
    half.stream = stream;
    return half;
  }
  TESSERA_CUDA(cudaEventRecord(half.copied.get(), half.stream));
  current_ = 1 - current_;
  Half& next = halves_[current_];
  if (next.used > 0) {
    TESSERA_CUDA(cudaEventSynchronize(next.copied.get()));
  }
  next.used = 0;
  next.stream = stream;
  return next;
}

void PinnedStaging::copy_in(void* device,
                            const void* host,
                            int64_t num_bytes,
                            cudaStream_t stream) {
  const std::scoped_lock lock(mutex_);
  for (int64_t done = 0; done < num_bytes;) {
    Half& half = half_for(stream);
    const int64_t piece = std::min(num_bytes - done, kHalfBytes - half.used);
    char* pinned = half.memory.get() + half.used;
    std::memcpy(pinned, static_cast<const char*>(host) + done, static_cast<size_t>(piece));
    TESSERA_CUDA(cudaMemcpyAsync(static_cast<char*>(device) + done,
                                 pinned,
                                 static_cast<size_t>(piece),
                                 cudaMemcpyHostToDevice,
                                 stream));
    done += piece;
    half.used = std::min(kHalfBytes, (half.used + piece + 63) / 64 * 64);
  }
}

void PinnedStaging::copy_out(void* host,
                             const void* device,
                             int64_t num_bytes,
                             cudaStream_t stream) {
  if (num_bytes == 0) {
    return;
  }
  const std::scoped_lock lock(mutex_);
  const bool fits = num_bytes <= kOutBytes - out_used_;
  void* target = fits ? out_.get() + out_used_ : host;
  TESSERA_CUDA(cudaMemcpyAsync(
      target, device, static_cast<size_t>(num_bytes), cudaMemcpyDeviceToHost, stream));
  if (fits) {
    reads_.push_back({host, out_used_, num_bytes, stream});
    out_used_ += (num_bytes + 63) / 64 * 64;
  }
}

void PinnedStaging::finish_blocking(cudaStream_t stream) {
  TESSERA_CUDA(cudaStreamSynchronize(stream));
  const std::scoped_lock lock(mutex_);
  for (const Read& read : reads_) {
    if (read.stream == stream) {
      std::memcpy(read.host, out_.get() + read.offset, static_cast<size_t>(read.num_bytes));
    }
  }
  std::erase_if(reads_, [&](const Read& read) { return read.stream == stream; });
  if (reads_.empty()) {
    out_used_ = 0;
  }
}

}  // namespace tessera::kernels::cuda
