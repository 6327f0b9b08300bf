#include "tools/bench/bench_memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <sys/mman.h>

#ifdef TESSERA_HAS_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif

namespace tessera::bench {
namespace {

constexpr int64_t kPieceBytes = int64_t{64} << 20U;

std::byte* map_host(int64_t num_bytes, int fill) {
  const auto size = static_cast<size_t>(num_bytes);
  void* pages = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) {
    std::perror("mmap");
    std::_Exit(1);
  }
  madvise(pages, size, MADV_HUGEPAGE);
  std::memset(pages, fill, size);
  return static_cast<std::byte*>(pages);
}

}  // namespace

BenchMemory::BenchMemory(int gpu, int64_t num_bytes, int fill) {
  if (gpu < 0) {
    data_ = map_host(num_bytes, fill);
    return;
  }
#ifdef TESSERA_HAS_CUDA
  backend_ = kernels::cuda::create_cuda_backend(gpu);
  mover_ = backend_->device().make_image_mover();
  mover_->enter();
  buffer_ = mover_->allocate(num_bytes);
  data_ = static_cast<std::byte*>(buffer_.data());
  const std::vector<char> piece(static_cast<size_t>(kPieceBytes), static_cast<char>(fill));
  for (int64_t done = 0; done < num_bytes; done += kPieceBytes) {
    mover_->write_blocking(data_ + done, piece.data(), std::min(kPieceBytes, num_bytes - done));
  }
#else
  std::fprintf(stderr, "built without the CUDA backend\n");
  std::_Exit(1);
#endif
}

}  // namespace tessera::bench
