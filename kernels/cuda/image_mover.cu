// Checksums and copies of block images (kernels/core/image_checksum.h): a warp is a row of 4 KiB.
// It loads every word once, stores it and sums it from the register, so that the sum is that of
// what was stored, whatever another process writes into the source meanwhile.

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/core/image_checksum.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/image_mover.h"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMaxImages = 64;
/// Enough loads in flight for the memory's full speed; a decode step finds room beside them.
constexpr int64_t kBlocksPerMultiprocessor = 2;
/// 16 bytes a lane at a time.
constexpr int kLoadsPerRow = static_cast<int>(kChecksumRowBytes) / (kWarp * 16);
/// Batches under way without further allocation.
constexpr int kWarmBatches = 8;

struct RowFactors {
  uint32_t values[kChecksumRowWords];
};

constexpr RowFactors make_row_factors() {
  RowFactors factors{};
  for (int64_t k = 0; k < kChecksumRowWords; ++k) {
    factors.values[k] = checksum_word_factor(static_cast<uint64_t>(k));
  }
  return factors;
}

__device__ __align__(16) const RowFactors kRowFactors = make_row_factors();

struct ImageBatch {
  ImageMover::Image images[kMaxImages];
  unsigned long long* sums = nullptr;
};

__device__ uint4 load_once(const char* from) {
  uint4 words;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(from)
               : "memory");
  return words;
}

__device__ uint64_t products(const uint4& words, const uint4& factors) {
  return uint64_t{words.x} * factors.x + uint64_t{words.y} * factors.y +
         uint64_t{words.z} * factors.z + uint64_t{words.w} * factors.w;
}

/// This lane's part of the sum of a whole row whose ends are at multiples of 16 bytes.
__device__ uint64_t whole_row(char* to, const char* from, int lane) {
  uint4 words[kLoadsPerRow];
#pragma unroll
  for (int i = 0; i < kLoadsPerRow; ++i) {
    words[i] = load_once(from + (i * kWarp + lane) * 16);
  }
  uint64_t sum = 0;
#pragma unroll
  for (int i = 0; i < kLoadsPerRow; ++i) {
    const int k = (i * kWarp + lane) * 4;
    if (to != nullptr) {
      *reinterpret_cast<uint4*>(to + k * 4) = words[i];
    }
    sum += products(words[i], *reinterpret_cast<const uint4*>(&kRowFactors.values[k]));
  }
  return sum;
}

/// The same of the first `num_bytes` bytes, byte by byte.
__device__ uint64_t part_row(char* to, const char* from, int64_t num_bytes, int lane) {
  uint64_t sum = 0;
  for (int64_t offset = lane * 4; offset < num_bytes; offset += kWarp * 4) {
    uint32_t word = 0;
    for (int64_t i = offset; i < min(offset + 4, num_bytes); ++i) {
      const auto byte = *reinterpret_cast<const volatile unsigned char*>(from + i);
      word |= uint32_t{byte} << (8 * (i - offset));
      if (to != nullptr) {
        to[i] = static_cast<char>(byte);
      }
    }
    sum += uint64_t{word} * kRowFactors.values[offset / 4];
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads) move_images(const __grid_constant__ ImageBatch batch) {
  const ImageMover::Image& image = batch.images[blockIdx.y];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto* from = static_cast<const char*>(image.source);
  auto* to = static_cast<char*>(image.destination);
  const bool is_aligned =
      (reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to)) % 16 == 0;
  uint64_t total = 0;
  const int64_t num_rows = (image.num_bytes + kChecksumRowBytes - 1) / kChecksumRowBytes;
  for (int64_t row = blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarp; row < num_rows;
       row += gridDim.x * int64_t{kWarps}) {
    const int64_t offset = row * kChecksumRowBytes;
    const int64_t num_bytes = min(kChecksumRowBytes, image.num_bytes - offset);
    char* row_to = to == nullptr ? nullptr : to + offset;
    const uint64_t sum = is_aligned && num_bytes == kChecksumRowBytes
                             ? whole_row(row_to, from + offset, lane)
                             : part_row(row_to, from + offset, num_bytes, lane);
    total += sum * checksum_row_factor(row);
  }
  total = warp_sum(total);
  if (lane == 0) {
    atomicAdd(&batch.sums[blockIdx.y], static_cast<unsigned long long>(total));
  }
}

/// One batch under way: its sums on the device and where they go.
struct Place {
  DeviceBuffer sums;
  PinnedMemory result;
  Event done;
  std::vector<int64_t> num_bytes;
};

/// Ahead of other work, which is many kernels that can wait for a few blocks of threads.
Stream make_urgent_stream() {
  int least = 0;
  int greatest = 0;
  TESSERA_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  cudaStream_t stream = nullptr;
  TESSERA_CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
  return Stream(stream);
}

/// Whether writes of network adapters have to be flushed before a kernel may read them.
bool needs_flush(int device) {
  int ordering = 0;
  int options = 0;
  TESSERA_CUDA(cudaDeviceGetAttribute(&ordering, cudaDevAttrGPUDirectRDMAWritesOrdering, device));
  TESSERA_CUDA(
      cudaDeviceGetAttribute(&options, cudaDevAttrGPUDirectRDMAFlushWritesOptions, device));
  return ordering < cudaGPUDirectRDMAWritesOrderingOwner &&
         (options & cudaFlushGPUDirectRDMAWritesOptionHost) != 0;
}

class CudaImageMover final : public ImageMover {
 public:
  explicit CudaImageMover(CudaDevice& device) : device_(device) {
    enter();
    stream_ = make_urgent_stream();
    needs_flush_ = needs_flush(device.index());
    for (int i = 0; i < kWarmBatches; ++i) {
      add_place();
    }
  }
  CudaImageMover(const CudaImageMover&) = delete;
  CudaImageMover& operator=(const CudaImageMover&) = delete;
  ~CudaImageMover() override {
    ignore_cuda(cudaSetDevice(device_.index()));
    ignore_cuda(cudaStreamSynchronize(stream_.get()));
  }

  [[nodiscard]] bool is_cuda() const noexcept override { return true; }
  [[nodiscard]] int64_t max_images() const noexcept override { return kMaxImages; }
  void enter() override { static_cast<void>(device_.enter({})); }
  [[nodiscard]] DeviceBuffer allocate(int64_t num_bytes) override {
    return device_.allocate(num_bytes);
  }
  [[nodiscard]] int64_t begin(std::span<const Image> images) override;
  [[nodiscard]] bool is_done(int64_t batch) override;
  [[nodiscard]] std::vector<uint64_t> finish_blocking(int64_t batch) override;
  void see_remote_writes() override {
    enter();
    if (needs_flush_) {
      TESSERA_CUDA(cudaDeviceFlushGPUDirectRDMAWrites(
          cudaFlushGPUDirectRDMAWritesTargetCurrentDevice, cudaFlushGPUDirectRDMAWritesToOwner));
    }
  }
  void write_blocking(void* destination, const void* source, int64_t num_bytes) override {
    copy_blocking(destination, source, num_bytes, cudaMemcpyHostToDevice);
  }
  void read_blocking(void* destination, const void* source, int64_t num_bytes) override {
    copy_blocking(destination, source, num_bytes, cudaMemcpyDeviceToHost);
  }

 private:
  static constexpr int64_t kSumBytes = kMaxImages * static_cast<int64_t>(sizeof(uint64_t));

  void queue(std::span<const Image> images, const Place& place);
  void add_place() {
    free_.push_back(static_cast<int64_t>(places_.size()));
    places_.push_back({device_.allocate(kSumBytes), make_pinned(kSumBytes), make_event(), {}});
  }
  void copy_blocking(void* to, const void* from, int64_t num_bytes, cudaMemcpyKind kind) {
    enter();
    TESSERA_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(num_bytes), kind, stream_.get()));
    TESSERA_CUDA(cudaStreamSynchronize(stream_.get()));
  }

  CudaDevice& device_;
  Stream stream_;
  bool needs_flush_ = false;
  std::vector<Place> places_;
  std::vector<int64_t> free_;
};

int64_t CudaImageMover::begin(std::span<const Image> images) {
  TESSERA_CHECK(images.size() <= kMaxImages, "a batch of at most 64 images");
  enter();
  if (free_.empty()) {
    add_place();
  }
  const int64_t number = free_.back();
  Place& place = places_[static_cast<size_t>(number)];
  place.num_bytes.clear();
  for (const Image& image : images) {
    place.num_bytes.push_back(image.num_bytes);
  }
  if (!images.empty()) {
    queue(images, place);
  }
  TESSERA_CUDA(cudaEventRecord(place.done.get(), stream_.get()));
  free_.pop_back();
  return number;
}

void CudaImageMover::queue(std::span<const Image> images, const Place& place) {
  ImageBatch batch;
  batch.sums = static_cast<unsigned long long*>(place.sums.data());
  std::copy(images.begin(), images.end(), batch.images);
  int64_t most_rows = 1;
  for (const Image& image : images) {
    most_rows = std::max(most_rows, ceil_div(image.num_bytes, kChecksumRowBytes));
  }
  const auto num_images = static_cast<int64_t>(images.size());
  const int64_t num_blocks = std::clamp<int64_t>(
      ceil_div(device_.num_multiprocessors() * kBlocksPerMultiprocessor, num_images),
      1,
      ceil_div(most_rows, kWarps));
  const auto sum_bytes = static_cast<size_t>(num_images) * sizeof(uint64_t);
  TESSERA_CUDA(cudaMemsetAsync(batch.sums, 0, sum_bytes, stream_.get()));
  launch("move_images",
         move_images,
         {dim3(to_grid(num_blocks), to_grid(num_images)), kThreads},
         stream_.get(),
         batch);
  TESSERA_CUDA(cudaMemcpyAsync(
      place.result.get(), batch.sums, sum_bytes, cudaMemcpyDeviceToHost, stream_.get()));
}

bool CudaImageMover::is_done(int64_t batch) {
  enter();
  const cudaError_t code = cudaEventQuery(places_.at(static_cast<size_t>(batch)).done.get());
  if (code == cudaErrorNotReady) {
    return false;
  }
  check_cuda(code, "cudaEventQuery");
  return true;
}

std::vector<uint64_t> CudaImageMover::finish_blocking(int64_t batch) {
  enter();
  Place& place = places_.at(static_cast<size_t>(batch));
  free_.push_back(batch);
  TESSERA_CUDA(cudaEventSynchronize(place.done.get()));
  const auto* results = reinterpret_cast<const uint64_t*>(place.result.get());
  std::vector<uint64_t> sums(results, results + place.num_bytes.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    sums[i] += checksum_of_length(place.num_bytes[i]);
  }
  return sums;
}

}  // namespace

std::unique_ptr<ImageMover> create_cuda_image_mover(CudaDevice& device) {
  return std::make_unique<CudaImageMover>(device);
}

}  // namespace tessera::kernels::cuda
