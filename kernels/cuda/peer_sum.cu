#include <algorithm>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peer_memory.h"
#include "kernels/cuda/peer_sum.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kMaxBlocks = 128;
constexpr int kVector = 2;     ///< elements of a line
constexpr int kNormPairs = 8;  ///< of a row that a thread keeps
constexpr int kSlots = 2;      ///< a member can be one call ahead of another
constexpr int kBusySpins = 32;
constexpr unsigned kPause = 40;  ///< ns
constexpr int kSpinsPerLook = 1024;
constexpr uint64_t kMaxWait = 60'000'000'000;  ///< ns for a member that is late

/// Two values as they travel, each beside the number of the call: a GPU writes 8 bytes at once, so
/// that a value is there when its number is, and nobody waits for a fence (the LL protocol of
/// NCCL's documentation).
using Line = uint4;

/// Every block works by itself, with a region of the inboxes and a count of its calls of its own:
/// its peers are the blocks of the same index on the other GPUs.
struct PeerSumParams {
  float* x = nullptr;
  int64_t count = 0;
  int64_t per_block = 0;  ///< elements, a multiple of kVector
  int64_t region = 0;     ///< lines of an inbox that one block of one sender may fill
  int member = 0;
  int num_members = 0;
  Line* inboxes[PeerSum::kMaxMembers] = {};  ///< [kSlots, senders, kMaxBlocks, region] of each
  uint32_t* calls = nullptr;                 ///< [kMaxBlocks], this member's
  const volatile int* is_aborted = nullptr;  ///< in host memory
};

__device__ Line* region_of(const PeerSumParams& p, int receiver, int sender, uint32_t call) {
  const int64_t at = (int64_t{call % kSlots} * p.num_members + sender) * kMaxBlocks + blockIdx.x;
  return p.inboxes[receiver] + at * p.region;
}

__device__ uint64_t nanoseconds() {
  uint64_t now = 0;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

__device__ void send_line(Line* to, float2 value, uint32_t call) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to),
               "r"(__float_as_uint(value.x)),
               "r"(call),
               "r"(__float_as_uint(value.y)),
               "r"(call)
               : "memory");
}

__device__ Line load_line(const Line* from) {
  Line line;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(line.x), "=r"(line.y), "=r"(line.z), "=r"(line.w)
               : "l"(from)
               : "memory");
  return line;
}

/// Waits for the line of this call.
__device__ float2 receive_line(const PeerSumParams& p, const Line* from, uint32_t call) {
  Line line = load_line(from);
  uint64_t begin = 0;
  for (int spins = 1; line.y != call || line.w != call; ++spins) {
    if (spins > kBusySpins) {
      __nanosleep(kPause);  // leave the memory to who writes the line
    }
    line = load_line(from);
    if (spins % kSpinsPerLook != 0) {
      continue;
    }
    if (*p.is_aborted != 0) {
      break;
    }
    const uint64_t now = nanoseconds();
    begin = begin == 0 ? now : begin;
    if (now - begin > kMaxWait) {
      __trap();  // an error of the device for whoever waits for the stream
    }
  }
  return {__uint_as_float(line.x), __uint_as_float(line.z)};
}

__device__ float2 load_pair(const float* from, int64_t count) {
  return count >= kVector ? *reinterpret_cast<const float2*>(from) : float2{*from, 0.0F};
}
__device__ void store_pair(float* to, float2 value, int64_t count) {
  if (count >= kVector) {
    *reinterpret_cast<float2*>(to) = value;
  } else {
    *to = value.x;
  }
}

/// This call's number, of the block. By all threads; also waits for the kernel before.
__device__ uint32_t begin_call(const PeerSumParams& p) {
  __shared__ uint32_t shared_call;
  wait_for_kernel_before();
  if (threadIdx.x == 0) {
    shared_call = ++p.calls[blockIdx.x];
  }
  __syncthreads();
  return shared_call;
}

/// To line `line` of the block's region in the inbox of every other member.
__device__ void send_pair(const PeerSumParams& p, int64_t line, float2 value, uint32_t call) {
  for (int peer = 0; peer < p.num_members; ++peer) {
    if (peer != p.member) {
      send_line(region_of(p, peer, p.member, call) + line, value, call);
    }
  }
}

/// The sum over the members, in their order, of what came to line `line` and of this one's `own`.
__device__ float2 sum_pairs(const PeerSumParams& p, int64_t line, float2 own, uint32_t call) {
  float2 sum = {};
  for (int sender = 0; sender < p.num_members; ++sender) {
    const float2 value = sender == p.member
                             ? own
                             : receive_line(p, region_of(p, p.member, sender, call) + line, call);
    sum.x += value.x;
    sum.y += value.y;
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads) peer_sum_kernel(const PeerSumParams p) {
  const uint32_t call = begin_call(p);
  const int64_t begin = blockIdx.x * p.per_block;
  const int64_t count = min(p.count - begin, p.per_block);
  float* x = p.x + begin;
  for (int64_t i = threadIdx.x * kVector; i < count; i += kThreads * kVector) {
    send_pair(p, i / kVector, load_pair(x + i, count - i), call);
  }
  for (int64_t i = threadIdx.x * kVector; i < count; i += kThreads * kVector) {
    store_pair(x + i, sum_pairs(p, i / kVector, load_pair(x + i, count - i), call), count - i);
  }
}

/// p.x: [rows, members, width]; p.count and p.per_block are of one member's part.
__global__ void __launch_bounds__(kThreads)
    peer_scatter_kernel(const PeerSumParams p, float* out, int width) {
  const uint32_t call = begin_call(p);
  const int64_t begin = blockIdx.x * p.per_block;
  const int64_t count = min(p.count - begin, p.per_block);
  const auto pair_of = [&](int64_t i, int member) {
    const int64_t row = (begin + i) / width;
    const int64_t at = (row * p.num_members + member) * width + (begin + i) % width;
    return *reinterpret_cast<const float2*>(p.x + at);
  };
  for (int64_t i = threadIdx.x * kVector; i < count; i += kThreads * kVector) {
    for (int peer = 0; peer < p.num_members; ++peer) {
      if (peer != p.member) {
        send_line(region_of(p, peer, p.member, call) + i / kVector, pair_of(i, peer), call);
      }
    }
  }
  for (int64_t i = threadIdx.x * kVector; i < count; i += kThreads * kVector) {
    store_pair(out + begin + i, sum_pairs(p, i / kVector, pair_of(i, p.member), call), kVector);
  }
}

/// A block has every gridDim.x-th row. sum.x are rows of `width` elements back to back.
template <typename Out>
struct PeerNorm {
  PeerSumParams sum;
  DeviceRows<float> hidden;
  const float* weight = nullptr;
  DeviceRows<Out> out;
  int64_t rows = 0;
  int width = 0;
  float epsilon = 0.0F;
};

template <typename Out>
__global__ void __launch_bounds__(kThreads) peer_sum_norm_kernel(const PeerNorm<Out> p) {
  __shared__ float warp_sums[kThreads / kWarp];
  const int lines = p.width / kVector;
  float2 weights[kNormPairs] = {};
#pragma unroll
  for (int k = 0; k < kNormPairs; ++k) {
    if (const int i = static_cast<int>(threadIdx.x) + k * kThreads; i < lines) {
      weights[k] = *reinterpret_cast<const float2*>(p.weight + i * kVector);
    }
  }
  const uint32_t call = begin_call(p.sum);
  const auto own = [&](int64_t row, int i) {
    return *reinterpret_cast<const float2*>(p.sum.x + row * p.width + i * kVector);
  };
  int64_t line = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, line += lines) {
    for (int i = static_cast<int>(threadIdx.x); i < lines; i += kThreads) {
      send_pair(p.sum, line + i, own(row, i), call);
    }
  }
  line = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, line += lines) {
    float2 kept[kNormPairs] = {};
    float squares = 0.0F;
#pragma unroll
    for (int k = 0; k < kNormPairs; ++k) {
      if (const int i = static_cast<int>(threadIdx.x) + k * kThreads; i < lines) {
        float2* hidden = reinterpret_cast<float2*>(p.hidden.row(row) + i * kVector);
        const float2 sum = sum_pairs(p.sum, line + i, own(row, i), call);
        kept[k] = {hidden->x + sum.x, hidden->y + sum.y};
        *hidden = kept[k];
        squares += kept[k].x * kept[k].x + kept[k].y * kept[k].y;
      }
    }
    squares = block_sum<kThreads>(squares, warp_sums);
    const float factor = 1.0F / sqrtf(squares / static_cast<float>(p.width) + p.epsilon);
    Out* out = p.out.row(row);
#pragma unroll
    for (int k = 0; k < kNormPairs; ++k) {
      if (const int i = static_cast<int>(threadIdx.x) + k * kThreads; i < lines) {
        out[i * kVector] = from_float<Out>(kept[k].x * factor * weights[k].x);
        out[i * kVector + 1] = from_float<Out>(kept[k].y * factor * weights[k].y);
      }
    }
  }
}

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

bool reach_each_other(std::span<const int> devices) {
  for (const int from : devices) {
    for (const int to : devices) {
      int is_possible = from == to ? 1 : 0;
      if (from != to) {
        TESSERA_CUDA(cudaDeviceCanAccessPeer(&is_possible, from, to));
      }
      if (is_possible == 0) {
        return false;
      }
    }
  }
  return true;
}

std::vector<int> indices_of(std::span<Device* const> devices) {
  std::vector<int> indices;
  for (const Device* device : devices) {
    indices.push_back(static_cast<const CudaDevice*>(device)->index());
  }
  return indices;
}

/// Host memory that every GPU reads.
class AbortWord final {
 public:
  AbortWord() {
    void* memory = nullptr;
    TESSERA_CUDA(cudaHostAlloc(&memory, sizeof(int), cudaHostAllocMapped | cudaHostAllocPortable));
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
      : region_(round_up((max_elements + kMaxBlocks - 1) / kMaxBlocks, kThreads * kVector) /
                kVector) {
    const auto num_members = static_cast<int64_t>(devices.size());
    const int64_t inbox = kSlots * num_members * kMaxBlocks * region_ * int64_t{sizeof(Line)};
    const int64_t calls = kMaxBlocks * int64_t{sizeof(uint32_t)};
    const std::vector<int> indices = indices_of(devices);
    for (Device* device : devices) {
      auto* own = static_cast<CudaDevice*>(device);
      static_cast<void>(own->enter({}));
      Member& member =
          members_.emplace_back(Member{own, PeerMemory(own->index(), indices, inbox + calls)});
      member.inbox = reinterpret_cast<Line*>(member.memory.data());
      member.calls = reinterpret_cast<uint32_t*>(member.memory.data() + inbox);
    }
  }

  void run(int member, float* x, int64_t count, StreamView stream) override {
    TESSERA_CHECK(count <= max_elements(), "a tensor above max_elements");
    PeerSumParams params = params_of(member, x);
    launch_early("peer_sum",
                 peer_sum_kernel,
                 {share_out(count, params), kThreads},
                 members_[static_cast<size_t>(member)].device->enter(stream),
                 params);
  }
  bool run_scatter(int member, const PeerScatter& scatter, StreamView stream) override {
    const int64_t count = scatter.rows * scatter.width;
    if (scatter.width % kVector != 0 || count > max_elements()) {
      return false;
    }
    PeerSumParams params = params_of(member, const_cast<float*>(scatter.partial));  // read only
    launch_early("peer_scatter",
                 peer_scatter_kernel,
                 {share_out(count, params), kThreads},
                 members_[static_cast<size_t>(member)].device->enter(stream),
                 params,
                 scatter.out,
                 static_cast<int>(scatter.width));
    return true;
  }
  bool run_norm(int member, const RmsNormParams& norm, StreamView stream) override {
    const int64_t rows = norm.x.dim(0);
    const int64_t width = norm.x.dim(1);
    const int64_t num_blocks = std::min<int64_t>(rows, kMaxBlocks);
    const bool is_in_pairs = width % kVector == 0 && norm.x.stride[0] % kVector == 0;
    if (!is_in_pairs || width > int64_t{kNormPairs} * kThreads * kVector ||
        ceil_div(rows, kMaxBlocks) * width > region_ * kVector) {
      return false;
    }
    auto* add = const_cast<float*>(norm.add.as<float>());  // read only
    visit_dtype(norm.out.dtype, [&](auto tag) {
      using Out = decltype(tag);
      launch_early("peer_sum_norm",
                   peer_sum_norm_kernel<Out>,
                   {to_grid(num_blocks), kThreads},
                   members_[static_cast<size_t>(member)].device->enter(stream),
                   PeerNorm<Out>{.sum = params_of(member, add),
                                 .hidden = rows_of<float>(norm.x),
                                 .weight = norm.weight.as<float>(),
                                 .out = rows_of<Out>(norm.out),
                                 .rows = rows,
                                 .width = static_cast<int>(width),
                                 .epsilon = norm.epsilon});
    });
    return true;
  }
  void abort() noexcept override { abort_.set(); }
  [[nodiscard]] int64_t max_elements() const noexcept override {
    return region_ * kVector * kMaxBlocks;
  }

 private:
  struct Member {
    CudaDevice* device = nullptr;
    PeerMemory memory;
    Line* inbox = nullptr;
    uint32_t* calls = nullptr;
  };
  /// Sets the elements of each block; returns how many blocks: as many as the tensor allows, the
  /// same on every member.
  static unsigned share_out(int64_t count, PeerSumParams& params) {
    const int64_t num_blocks = std::min<int64_t>(ceil_div(count, kThreads * kVector), kMaxBlocks);
    params.count = count;
    params.per_block = num_blocks == 0 ? 0 : round_up(ceil_div(count, num_blocks), kVector);
    return to_grid(num_blocks);
  }
  [[nodiscard]] PeerSumParams params_of(int member, float* x) const {
    PeerSumParams params;
    params.x = x;
    params.region = region_;
    params.member = member;
    params.num_members = static_cast<int>(members_.size());
    for (size_t i = 0; i < members_.size(); ++i) {
      params.inboxes[i] = members_[i].inbox;
    }
    params.calls = members_[static_cast<size_t>(member)].calls;
    params.is_aborted = abort_.get();
    return params;
  }

  const int64_t region_;
  std::vector<Member> members_;
  AbortWord abort_;
};

}  // namespace

std::unique_ptr<PeerSum> PeerSum::create(std::span<Device* const> devices, int64_t max_elements) {
  if (devices.size() < 2 || devices.size() > static_cast<size_t>(kMaxMembers)) {
    return nullptr;
  }
  if (!reach_each_other(indices_of(devices))) {
    return nullptr;
  }
  return std::make_unique<DevicePeerSum>(devices, max_elements);
}

}  // namespace tessera::kernels::cuda
