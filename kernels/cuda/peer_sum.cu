#include <algorithm>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peer_sum.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kMaxBlocks = 64;
constexpr int kVector = 4;
constexpr int kSlots = 2;  ///< a member can be one call ahead of another
constexpr int kSpinsPerLook = 1024;
constexpr uint64_t kMaxWait = 60'000'000'000;  ///< ns for a member that is late

/// Every block works by itself, with regions, flags and a count of its calls of its own: its peers
/// are the blocks of the same index on the other GPUs.
struct PeerSumParams {
  float* x = nullptr;
  int64_t count = 0;
  int64_t per_block = 0;  ///< elements, a multiple of kVector
  int64_t region = 0;     ///< elements of an inbox that one block of one sender may fill
  int member = 0;
  int num_members = 0;
  float* inboxes[PeerSum::kMaxMembers] = {};   ///< [kSlots, senders, kMaxBlocks, region] of each
  uint32_t* flags[PeerSum::kMaxMembers] = {};  ///< [senders, kMaxBlocks] of each: calls written
  uint32_t* calls = nullptr;                   ///< [kMaxBlocks], this member's
  const volatile int* is_aborted = nullptr;    ///< in host memory
};

__device__ void store_release(uint32_t* to, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ uint32_t load_acquire(const uint32_t* from) {
  uint32_t value = 0;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

__device__ float* region_of(const PeerSumParams& p, int receiver, int sender, uint32_t call) {
  const int64_t at = (int64_t{call % kSlots} * p.num_members + sender) * kMaxBlocks + blockIdx.x;
  return p.inboxes[receiver] + at * p.region;
}

__device__ uint64_t nanoseconds() {
  uint64_t now = 0;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

__device__ void wait_for(const PeerSumParams& p, int sender, uint32_t call) {
  const uint32_t* flag = p.flags[p.member] + sender * kMaxBlocks + blockIdx.x;
  const uint64_t begin = nanoseconds();
  for (int spins = 1; static_cast<int32_t>(load_acquire(flag) - call) < 0; ++spins) {
    if (spins % kSpinsPerLook != 0) {
      continue;
    }
    if (*p.is_aborted != 0) {
      return;
    }
    if (nanoseconds() - begin > kMaxWait) {
      __trap();  // an error of the device for whoever waits for the stream
    }
  }
}

__device__ float4 load4(const float* from, int64_t count) {
  if (count >= kVector) {
    return __ldcg(reinterpret_cast<const float4*>(from));  // peers write past this GPU's L1
  }
  float4 value = {};
  value.x = __ldcg(from);
  value.y = count > 1 ? __ldcg(from + 1) : 0.0F;
  value.z = count > 2 ? __ldcg(from + 2) : 0.0F;
  return value;
}
__device__ void store4(float* to, const float4& value, int64_t count) {
  if (count >= kVector) {
    *reinterpret_cast<float4*>(to) = value;
    return;
  }
  to[0] = value.x;
  if (count > 1) {
    to[1] = value.y;
  }
  if (count > 2) {
    to[2] = value.z;
  }
}

__global__ void __launch_bounds__(kThreads) peer_sum_kernel(const PeerSumParams p) {
  __shared__ uint32_t shared_call;
  if (threadIdx.x == 0) {
    shared_call = ++p.calls[blockIdx.x];
  }
  __syncthreads();
  const uint32_t call = shared_call;
  const int64_t begin = blockIdx.x * p.per_block;
  const int64_t count = min(p.count - begin, p.per_block);
  float* x = p.x + begin;
  for (int64_t i = threadIdx.x * kVector; i < count; i += kThreads * kVector) {
    const float4 value = load4(x + i, count - i);
    for (int peer = 0; peer < p.num_members; ++peer) {
      if (peer != p.member) {
        store4(region_of(p, peer, p.member, call) + i, value, kVector);
      }
    }
  }
  __threadfence_system();
  __syncthreads();
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < p.num_members && peer != p.member) {
    store_release(p.flags[peer] + p.member * kMaxBlocks + blockIdx.x, call);
    wait_for(p, peer, call);
  }
  __syncthreads();
  for (int64_t i = threadIdx.x * kVector; i < count; i += kThreads * kVector) {
    float4 sum = {};
    for (int sender = 0; sender < p.num_members; ++sender) {
      const float4 value = sender == p.member
                               ? load4(x + i, count - i)
                               : load4(region_of(p, p.member, sender, call) + i, kVector);
      sum.x += value.x;
      sum.y += value.y;
      sum.z += value.z;
      sum.w += value.w;
    }
    store4(x + i, sum, count - i);
  }
}

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

/// Makes `from` reach the memory of `to`; false where it cannot.
bool enable_access(const CudaDevice& from, const CudaDevice& to) {
  static_cast<void>(from.enter({}));
  int is_possible = 0;
  TESSERA_CUDA(cudaDeviceCanAccessPeer(&is_possible, from.index(), to.index()));
  if (is_possible == 0) {
    return false;
  }
  const cudaError_t result = cudaDeviceEnablePeerAccess(to.index(), 0);
  if (result == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();  // clears it
    return true;
  }
  check_cuda(result, "cudaDeviceEnablePeerAccess");
  return true;
}

/// Host memory that every GPU reads.
class AbortWord final {
 public:
  AbortWord() {
    void* memory = nullptr;
    TESSERA_CUDA(
        cudaHostAlloc(&memory, sizeof(int), cudaHostAllocMapped | cudaHostAllocPortable));
    word_ = static_cast<volatile int*>(memory);
    *word_ = 0;
  }
  ~AbortWord() { cudaFreeHost(const_cast<int*>(word_)); }
  AbortWord(const AbortWord&) = delete;
  AbortWord& operator=(const AbortWord&) = delete;
  void set() noexcept { *word_ = 1; }
  [[nodiscard]] const volatile int* get() const noexcept { return word_; }

 private:
  volatile int* word_ = nullptr;
};

class DevicePeerSum final : public PeerSum {
 public:
  DevicePeerSum(std::span<Device* const> devices, int64_t max_elements)
      : region_(round_up((max_elements + kMaxBlocks - 1) / kMaxBlocks, kThreads * kVector)) {
    const auto num_members = static_cast<int64_t>(devices.size());
    const int64_t inbox = kSlots * num_members * kMaxBlocks * region_ * int64_t{sizeof(float)};
    const int64_t flags = num_members * kMaxBlocks * int64_t{sizeof(uint32_t)};
    const int64_t calls = kMaxBlocks * int64_t{sizeof(uint32_t)};
    for (Device* device : devices) {
      Member& member = members_.emplace_back();
      member.device = static_cast<CudaDevice*>(device);
      member.memory = device->allocate(inbox + flags + calls);
      const cudaStream_t stream = member.device->enter({});
      TESSERA_CUDA(cudaMemsetAsync(member.memory.data(), 0, inbox + flags + calls, stream));
      device->synchronize_blocking({});
      auto* base = static_cast<char*>(member.memory.data());
      member.inbox = reinterpret_cast<float*>(base);
      member.flags = reinterpret_cast<uint32_t*>(base + inbox);
      member.calls = reinterpret_cast<uint32_t*>(base + inbox + flags);
    }
  }

  void run(int member, float* x, int64_t count, StreamView stream) override {
    TESSERA_CHECK(count <= max_elements(), "a tensor above max_elements");
    const Member& own = members_[static_cast<size_t>(member)];
    const cudaStream_t on = own.device->enter(stream);
    // As wide as the tensor allows, the same on every member.
    const int64_t wanted = (count + kThreads * kVector - 1) / (kThreads * kVector);
    const int64_t num_blocks = std::min<int64_t>(wanted, kMaxBlocks);
    PeerSumParams params;
    params.x = x;
    params.count = count;
    params.per_block =
        num_blocks == 0 ? 0 : round_up((count + num_blocks - 1) / num_blocks, kVector);
    params.region = region_;
    params.member = member;
    params.num_members = static_cast<int>(members_.size());
    for (size_t i = 0; i < members_.size(); ++i) {
      params.inboxes[i] = members_[i].inbox;
      params.flags[i] = members_[i].flags;
    }
    params.calls = own.calls;
    params.is_aborted = abort_.get();
    launch("peer_sum", peer_sum_kernel, {to_grid(num_blocks), kThreads}, on, params);
  }
  void abort() noexcept override { abort_.set(); }
  [[nodiscard]] int64_t max_elements() const noexcept override { return region_ * kMaxBlocks; }

 private:
  struct Member {
    CudaDevice* device = nullptr;
    DeviceBuffer memory;
    float* inbox = nullptr;
    uint32_t* flags = nullptr;
    uint32_t* calls = nullptr;
  };
  const int64_t region_;
  std::vector<Member> members_;
  AbortWord abort_;
};

}  // namespace

std::unique_ptr<PeerSum> PeerSum::create(std::span<Device* const> devices, int64_t max_elements) {
  if (devices.size() < 2 || devices.size() > static_cast<size_t>(kMaxMembers)) {
    return nullptr;
  }
  for (const Device* from : devices) {
    for (const Device* to : devices) {
      if (from != to && !enable_access(static_cast<const CudaDevice&>(*from),
                                       static_cast<const CudaDevice&>(*to))) {
        return nullptr;
      }
    }
  }
  return std::make_unique<DevicePeerSum>(devices, max_elements);
}

}  // namespace tessera::kernels::cuda
