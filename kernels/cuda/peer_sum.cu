#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "kernels/core/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peer_memory.h"
#include "kernels/cuda/peer_sum.h"
#include "kernels/cuda/peer_wire.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr int kBatch = 4;  ///< quads that a thread sends, then receives, at a time
/// Quads of a row that a thread keeps, for the norm.
constexpr int kNormQuads = 4;
constexpr int kShortNormQuads = 2;

/// A block has the elements from blockIdx.x * per_block on.
struct Share {
  int64_t count = 0;
  int64_t per_block = 0;  ///< a multiple of kPeerQuad
  [[nodiscard]] __device__ int64_t begin() const { return blockIdx.x * per_block; }
  [[nodiscard]] __device__ int64_t size() const { return min(count - begin(), per_block); }
};

__device__ float4 load_quad(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}
__device__ void store_quad(float* to, float4 value) {
  *reinterpret_cast<float4*>(to) = value;
}
__device__ void store_quad(Bf16* to, float4 value) {
  *reinterpret_cast<uint2*>(to) = uint2{pack_bf16(value.x, value.y), pack_bf16(value.z, value.w)};
}
/// Of a tensor that may lie anywhere and end within a quad; `count`: elements from `from` on.
__device__ float4 load_some(const float* from, int64_t count) {
  if (count >= kPeerQuad && reinterpret_cast<uintptr_t>(from) % sizeof(float4) == 0) {
    return load_quad(from);
  }
  const auto at = [&](int i) { return i < count ? from[i] : 0.0F; };
  return {at(0), at(1), at(2), at(3)};
}
__device__ void store_some(float* to, float4 value, int64_t count) {
  if (count >= kPeerQuad && reinterpret_cast<uintptr_t>(to) % sizeof(float4) == 0) {
    store_quad(to, value);
    return;
  }
  const auto put = [&](int i, float element) {
    if (i < count) {
      to[i] = element;
    }
  };
  put(0, value.x);
  put(1, value.y);
  put(2, value.z);
  put(3, value.w);
}

/// work(range) for `num_quads` quads, kBatch of each thread at a time.
template <typename Work>
__device__ void for_batches(int64_t num_quads, const Work& work) {
  constexpr int64_t kQuads = int64_t{kBatch} * kPeerThreads;
  for (int64_t begin = 0; begin < num_quads; begin += kQuads) {
    work(QuadRange{begin, min(begin + kQuads, num_quads)});
  }
}

struct SumParams {
  PeerParams peers;
  Share share;
  float* x = nullptr;
};

__global__ void __launch_bounds__(kPeerThreads)
    peer_sum_kernel(const __grid_constant__ SumParams p) {
  const PeerCall call(p.peers);
  float* x = p.x + p.share.begin();
  const int64_t count = p.share.size();
  const int64_t num_quads = (count + kPeerQuad - 1) / kPeerQuad;
  const auto own = [&](int64_t i) { return load_some(x + i * kPeerQuad, count - i * kPeerQuad); };
  for_batches(num_quads, [&](QuadRange range) {
    float4 values[kBatch];
    for_quads<kBatch>(range, [&](int k, int64_t i) { values[k] = own(i); });
    for_peers(p.peers, [&](int peer) {
      for_quads<kBatch>(range, [&](int k, int64_t i) { call.send(peer, i, values[k]); });
    });
  });
  for_batches(num_quads, [&](QuadRange range) {
    float4 sums[kBatch];
    call.sum(range, own, sums);
    for_quads<kBatch>(range, [&](int k, int64_t i) {
      store_some(x + i * kPeerQuad, sums[k], count - i * kPeerQuad);
    });
  });
}

/// partial: [rows, members, width]; the share is of one member's part.
template <typename Out>
struct ScatterParams {
  PeerParams peers;
  Share share;
  const float* partial = nullptr;
  Out* out = nullptr;
  int width = 0;
};

template <typename Out>
__global__ void __launch_bounds__(kPeerThreads)
    peer_scatter_kernel(const __grid_constant__ ScatterParams<Out> p) {
  const PeerCall call(p.peers);
  const int64_t num_quads = p.share.size() / kPeerQuad;
  const auto first = static_cast<int>(p.share.begin());
  const auto part_of = [&](int member, int64_t i) {
    const int element = first + static_cast<int>(i) * kPeerQuad;
    const int row = element / p.width;
    const int64_t part = int64_t{row} * p.peers.num_members + member;
    return load_quad(p.partial + part * p.width + (element - row * p.width));
  };
  for_batches(num_quads, [&](QuadRange range) {
    for_peers(p.peers, [&](int peer) {
      float4 part[kBatch];
      for_quads<kBatch>(range, [&](int k, int64_t i) { part[k] = part_of(peer, i); });
      for_quads<kBatch>(range, [&](int k, int64_t i) { call.send(peer, i, part[k]); });
    });
  });
  for_batches(num_quads, [&](QuadRange range) {
    float4 sums[kBatch];
    call.sum(
        range, [&](int64_t i) { return part_of(p.peers.member, i); }, sums);
    for_quads<kBatch>(range, [&](int k, int64_t i) {
      store_quad(p.out + p.share.begin() + i * kPeerQuad, sums[k]);
    });
  });
}

/// A block has every gridDim.x-th row. add: rows of `width` elements back to back.
template <typename Out>
struct NormParams {
  PeerParams peers;
  const float* add = nullptr;
  DeviceRows<float> hidden;
  const float* weight = nullptr;
  DeviceRows<Out> out;
  int64_t rows = 0;
  int width = 0;
  float epsilon = 0.0F;
};

__device__ float4 add_quads(float4 a, float4 b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

/// N quads of a row at most for each thread.
template <int N, typename Out>
__global__ void __launch_bounds__(kPeerThreads)
    peer_sum_norm_kernel(const __grid_constant__ NormParams<Out> p) {
  __shared__ float warp_sums[kPeerThreads / kWarp];
  const int num_quads = p.width / kPeerQuad;
  const QuadRange row_quads = {0, num_quads};
  float4 weights[N];
  for_quads<N>(row_quads,
               [&](int k, int64_t i) { weights[k] = load_quad(p.weight + i * kPeerQuad); });
  const PeerCall call(p.peers);
  int64_t begin = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, begin += num_quads) {
    const float* add = p.add + row * p.width;
    float4 values[N];
    for_quads<N>(row_quads, [&](int k, int64_t i) { values[k] = load_quad(add + i * kPeerQuad); });
    for_peers(p.peers, [&](int peer) {
      for_quads<N>(row_quads, [&](int k, int64_t i) { call.send(peer, begin + i, values[k]); });
    });
  }
  begin = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, begin += num_quads) {
    const float* add = p.add + row * p.width;
    float4 kept[N];
    call.sum(
        {begin, begin + num_quads},
        [&](int64_t i) { return load_quad(add + (i - begin) * kPeerQuad); },
        kept);
    float squares = 0.0F;
    for_quads<N>(row_quads, [&](int k, int64_t i) {
      float* hidden = p.hidden.row(row) + i * kPeerQuad;
      kept[k] = add_quads(load_quad(hidden), kept[k]);
      store_quad(hidden, kept[k]);
      squares += kept[k].x * kept[k].x + kept[k].y * kept[k].y + kept[k].z * kept[k].z +
                 kept[k].w * kept[k].w;
    });
    squares = block_sum<kPeerThreads>(squares, warp_sums);
    const float factor = 1.0F / sqrtf(squares / static_cast<float>(p.width) + p.epsilon);
    for_quads<N>(row_quads, [&](int k, int64_t i) {
      store_quad(p.out.row(row) + i * kPeerQuad,
                 {kept[k].x * factor * weights[k].x,
                  kept[k].y * factor * weights[k].y,
                  kept[k].z * factor * weights[k].z,
                  kept[k].w * factor * weights[k].w});
    });
  }
}

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

void check_aligned(std::initializer_list<const void*> tensors) {
  for (const void* tensor : tensors) {
    TESSERA_CHECK(reinterpret_cast<uintptr_t>(tensor) % sizeof(float4) == 0,
                  "a tensor of a sum over GPUs that is not aligned to 16 bytes");
  }
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
      : region_(round_up(ceil_div(max_elements, kPeerBlocks), kPeerThreads * kPeerQuad) /
                kPeerQuad) {
    const int64_t regions = kPeerSlots * static_cast<int64_t>(devices.size()) * kPeerBlocks;
    const int64_t inbox = regions * region_ * int64_t{sizeof(float4)};
    const int64_t calls = kPeerBlocks * int64_t{sizeof(uint32_t)};
    const int64_t all = inbox + calls + int64_t{sizeof(PeerWatch)};
    const std::vector<int> indices = indices_of(devices);
    for (Device* device : devices) {
      auto* own = static_cast<CudaDevice*>(device);
      static_cast<void>(own->enter({}));
      Member& member =
          members_.emplace_back(Member{own, PeerMemory(own->index(), indices, all, kNothingByte)});
      member.inbox = reinterpret_cast<float4*>(member.memory.data());
      member.calls = reinterpret_cast<uint32_t*>(member.memory.data() + inbox);
      member.watch = reinterpret_cast<PeerWatch*>(member.memory.data() + inbox + calls);
    }
  }

  void run(int member, float* x, int64_t count, StreamView stream) override {
    TESSERA_CHECK(count <= max_elements(), "a tensor above max_elements");
    const auto [share, num_blocks] = share_out(count);
    launch_early("peer_sum",
                 peer_sum_kernel,
                 {num_blocks, kPeerThreads},
                 stream_of(member, stream),
                 SumParams{params_of(member), share, x});
  }
  bool run_scatter(int member,
                   const float* partial,
                   const TensorView& out,
                   StreamView stream) override {
    const int64_t width = out.dim(1);
    const int64_t count = out.dim(0) * width;
    if (width % kPeerQuad != 0 || count > max_elements()) {
      return false;
    }
    check_aligned({partial, out.data});
    const auto [share, num_blocks] = share_out(count);
    visit_dtype(out.dtype, [&](auto tag) {
      using Out = decltype(tag);
      launch_early("peer_scatter",
                   peer_scatter_kernel<Out>,
                   {num_blocks, kPeerThreads},
                   stream_of(member, stream),
                   ScatterParams<Out>{.peers = params_of(member),
                                      .share = share,
                                      .partial = partial,
                                      .out = out.as<Out>(),
                                      .width = static_cast<int>(width)});
    });
    return true;
  }
  bool run_norm(int member, const RmsNormParams& norm, StreamView stream) override {
    const int64_t rows = norm.x.dim(0);
    const int64_t width = norm.x.dim(1);
    constexpr int64_t kRowStep = int64_t{kPeerThreads} * kPeerQuad;
    const bool is_in_quads = width % kPeerQuad == 0 && norm.x.stride[0] % kPeerQuad == 0 &&
                             norm.out.stride[0] % kPeerQuad == 0;
    if (!is_in_quads || width > kNormQuads * kRowStep ||
        ceil_div(rows, kPeerBlocks) * width > region_ * kPeerQuad) {
      return false;
    }
    check_aligned({norm.add.data, norm.x.data, norm.weight.data, norm.out.data});
    visit_dtype(norm.out.dtype, [&](auto tag) {
      using Out = decltype(tag);
      launch_early("peer_sum_norm",
                   width <= kShortNormQuads * kRowStep ? peer_sum_norm_kernel<kShortNormQuads, Out>
                                                       : peer_sum_norm_kernel<kNormQuads, Out>,
                   {to_grid(std::min<int64_t>(rows, kPeerBlocks)), kPeerThreads},
                   stream_of(member, stream),
                   NormParams<Out>{.peers = params_of(member),
                                   .add = norm.add.as<float>(),
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
    return region_ * kPeerQuad * kPeerBlocks;
  }

 private:
  struct Member {
    CudaDevice* device = nullptr;
    PeerMemory memory;
    float4* inbox = nullptr;
    uint32_t* calls = nullptr;
    PeerWatch* watch = nullptr;
  };
  /// As many blocks as the tensor allows, the same on every member.
  static std::pair<Share, unsigned> share_out(int64_t count) {
    static_assert(kPeerBlocks <= kPeerThreads);  // so that rounding up leaves the last one a share
    const int64_t num_blocks =
        std::min<int64_t>(ceil_div(count, kPeerThreads * kPeerQuad), kPeerBlocks);
    const int64_t per_block =
        num_blocks == 0 ? 0 : round_up(ceil_div(count, num_blocks), kPeerQuad);
    return {Share{count, per_block}, to_grid(num_blocks)};
  }
  [[nodiscard]] cudaStream_t stream_of(int member, StreamView stream) const {
    return members_[static_cast<size_t>(member)].device->enter(stream);
  }
  [[nodiscard]] PeerParams params_of(int member) const {
    PeerParams params;
    for (size_t i = 0; i < members_.size(); ++i) {
      params.inboxes[i] = members_[i].inbox;
    }
    params.region = region_;
    params.member = member;
    params.num_members = static_cast<int>(members_.size());
    params.calls = members_[static_cast<size_t>(member)].calls;
    params.watch = members_[static_cast<size_t>(member)].watch;
    params.is_aborted = abort_.get();
    return params;
  }

  const int64_t region_;  // quads of an inbox that one block of one sender may fill
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
