// How values travel between the GPUs of a PeerSum. Every thread block works by itself: its peers
// are the blocks of the same index on the other GPUs, with regions of the inboxes and a count of
// calls of their own.
//
// A word of a region that nothing has come to is kNothing, a NaN that is not sent: that another
// value is there says that it has come, and nobody waits for a fence, a flag or a number beside it
// (published as the Lamport style of TensorRT-LLM's all-reduces). Who has read a word makes it
// kNothing again. Calls take two regions in turns: one that is written anew, two calls later, has
// been read and cleared, since the call between was received from the block that reads it, which
// begins a call only after the one before. That takes the same grid on every member, a share of the
// tensor for each of its blocks, and kernels that wait for the end of the one before, with which
// its stores are done. (The order of a clear and of the next store from afar is the hardware's, by
// these ends of kernels; PTX has no word for it.)
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/peer_sum.h"

namespace tessera::kernels::cuda {

inline constexpr int kPeerThreads = 512;
inline constexpr int kPeerBlocks = 128;  ///< at most
inline constexpr int kPeerSlots = 2;     ///< a member can be one call ahead of another
/// Elements of a quad, which a thread sends and receives at once.
inline constexpr int kPeerQuad = 4;
static_assert(kPeerQuad * sizeof(float) == sizeof(float4));
/// All bytes of an inbox before the first call.
inline constexpr int kNothingByte = 0xff;

/// Of a member, in its own memory: what its waiting warps know of an abort. The word of the host is
/// far away: 2,048 warps that read it take 1.5 ms, in which the other members wait, and begin to
/// read it too.
struct PeerWatch {
  uint64_t looked_at = 0;  ///< ns, when one of them last read the host's word; from any number on
  uint32_t state = 0;      ///< kAborted or any other number
};

struct PeerParams {
  /// [kPeerSlots, senders, kPeerBlocks, region] of each.
  float4* inboxes[PeerSum::kMaxMembers] = {};
  int64_t region = 0;  ///< quads that one block of one sender may fill
  int member = 0;
  int num_members = 0;
  uint32_t* calls = nullptr;  ///< [kPeerBlocks], this member's; from any number on
  PeerWatch* watch = nullptr;
  const volatile int* is_aborted = nullptr;  ///< in host memory
};

namespace detail {

inline constexpr int kBusySpins = 32;
inline constexpr unsigned kPause = 40;  ///< ns
inline constexpr int kSpinsPerLook = 64;
inline constexpr int64_t kLookPeriod = 1'000'000;  ///< ns between two looks at the host's word
inline constexpr uint32_t kAborted = 1;
inline constexpr uint64_t kMaxPeerWait = 60'000'000'000;  ///< ns for a member that is late
inline constexpr uint32_t kNothing = 0xffffffff;
static_assert(kNothing == kNothingByte * 0x01010101U);
inline constexpr uint32_t kNan = 0x7fffffff;  ///< what arithmetic gives

__device__ inline uint64_t nanoseconds() {
  uint64_t now = 0;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}

__device__ inline bool is_first_active_lane() {
  return static_cast<int>(threadIdx.x % 32) == __ffs(static_cast<int>(__activemask())) - 1;
}

/// Of all warps that wait one reads the host's word once in a period, and tells the others.
__device__ inline bool is_aborted(const PeerParams& p, uint64_t now) {
  auto* looked_at = reinterpret_cast<unsigned long long*>(&p.watch->looked_at);
  const auto is_due = [now](uint64_t before) {
    return static_cast<int64_t>(now - before) > kLookPeriod;
  };
  const volatile PeerWatch& watch = *p.watch;
  if (is_first_active_lane() && is_due(watch.looked_at) && is_due(atomicExch(looked_at, now)) &&
      *p.is_aborted != 0) {
    atomicExch(&p.watch->state, kAborted);
  }
  return watch.state == kAborted;
}

/// Until `has_come()`, or the sum has been aborted.
template <typename HasCome>
__device__ void wait_for_peer(const PeerParams& p, const HasCome& has_come) {
  uint64_t begin = 0;
  for (int spins = 1; !has_come(); ++spins) {
    if (spins > kBusySpins) {
      __nanosleep(kPause);  // leave the memory to who writes
    }
    if (spins % kSpinsPerLook != 0) {
      continue;
    }
    const uint64_t now = nanoseconds();
    if (is_aborted(p, now)) {
      break;
    }
    begin = begin == 0 ? now : begin;
    if (now - begin > kMaxPeerWait) {
      __trap();  // an error of the device for whoever waits for the stream
    }
  }
}

__device__ inline void store_words(float4* to, uint4 words) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to),
               "r"(words.x),
               "r"(words.y),
               "r"(words.z),
               "r"(words.w)
               : "memory");
}
__device__ inline uint4 load_words(const float4* from) {
  uint4 words;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(from)
               : "memory");
  return words;
}

__device__ inline uint32_t to_word(float value) {
  const uint32_t word = __float_as_uint(value);
  return word == kNothing ? kNan : word;
}
__device__ inline bool is_whole(uint4 words) {
  return words.x != kNothing && words.y != kNothing && words.z != kNothing && words.w != kNothing;
}
__device__ inline float4 to_quad(uint4 words) {
  return {__uint_as_float(words.x),
          __uint_as_float(words.y),
          __uint_as_float(words.z),
          __uint_as_float(words.w)};
}

}  // namespace detail

/// Quads of one block and call.
struct QuadRange {
  int64_t begin = 0;
  int64_t end = 0;
};

/// work(k, i) for the i = begin + thread + k * kPeerThreads of `range`, k < N.
template <int N, typename Work>
__device__ void for_quads(QuadRange range, const Work& work) {
#pragma unroll
  for (int k = 0; k < N; ++k) {
    if (const int64_t i = range.begin + threadIdx.x + k * kPeerThreads; i < range.end) {
      work(k, i);
    }
  }
}

/// work(peer) for every other member, each member in another order.
template <typename Work>
__device__ void for_peers(const PeerParams& p, const Work& work) {
  for (int next = 1; next < p.num_members; ++next) {
    const int peer = p.member + next;
    work(peer < p.num_members ? peer : peer - p.num_members);
  }
}

/// One call of a block. Quads are numbered from 0 in each.
class PeerCall {
 public:
  /// By all threads; also waits for the kernel before.
  __device__ explicit PeerCall(const PeerParams& p) : p_(p) {
    __shared__ uint32_t shared_slot;
    wait_for_kernel_before();
    if (threadIdx.x == 0) {
      shared_slot = ++p.calls[blockIdx.x] % kPeerSlots;
    }
    __syncthreads();
    slot_ = shared_slot;
  }

  __device__ void send(int peer, int64_t quad, float4 value) const {
    detail::store_words(region(peer, p_.member) + quad,
                        {detail::to_word(value.x),
                         detail::to_word(value.y),
                         detail::to_word(value.z),
                         detail::to_word(value.w)});
  }
  /// Waits for the quads of for_quads<N>(range).
  template <int N>
  __device__ void receive(int sender, QuadRange range, float4 (&values)[N]) const {
    float4* from = region(p_.member, sender);
    detail::wait_for_peer(p_, [&] {
      bool has_come = true;
      for_quads<N>(range, [&](int k, int64_t i) {
        const uint4 words = detail::load_words(from + i);
        has_come = has_come && detail::is_whole(words);
        values[k] = detail::to_quad(words);
      });
      return has_come;
    });
    constexpr uint32_t kNone = detail::kNothing;
    for_quads<N>(range, [&](int /*k*/, int64_t i) {
      detail::store_words(from + i, {kNone, kNone, kNone, kNone});
    });
  }
  /// The sums over the members, in their order, of what came as the quads of for_quads<N>(range)
  /// and of this one's, own(i).
  template <int N, typename Own>
  __device__ void sum(QuadRange range, const Own& own, float4 (&sums)[N]) const {
#pragma unroll
    for (int k = 0; k < N; ++k) {
      sums[k] = {};
    }
    for (int sender = 0; sender < p_.num_members; ++sender) {
      float4 values[N];
      if (sender == p_.member) {
        for_quads<N>(range, [&](int k, int64_t i) { values[k] = own(i); });
      } else {
        receive(sender, range, values);
      }
      for_quads<N>(range, [&](int k, int64_t /*i*/) {
        sums[k].x += values[k].x;
        sums[k].y += values[k].y;
        sums[k].z += values[k].z;
        sums[k].w += values[k].w;
      });
    }
  }

 private:
  [[nodiscard]] __device__ float4* region(int receiver, int sender) const {
    const int64_t at = (int64_t{slot_} * p_.num_members + sender) * kPeerBlocks + blockIdx.x;
    return p_.inboxes[receiver] + at * p_.region;
  }

  const PeerParams& p_;
  uint32_t slot_ = 0;
};

}  // namespace tessera::kernels::cuda
