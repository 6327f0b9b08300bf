// What Hopper's instructions look like from C++: mbarriers, the bulk tensor copy engine, wgmma.
// Source: PTX ISA 9.0, sections on mbarrier, cp.async.bulk.tensor and wgmma.
#pragma once

#include <cstdint>

#include <cuda.h>
#include <cuda_bf16.h>

namespace tessera::kernels::cuda::sm90 {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
/// The first address of dynamic shared memory that swizzled tiles may begin at: 1,024 bytes apart.
/// Added to the pointer, since one made of a number is no longer known to be of shared memory.
__device__ __forceinline__ uint8_t* align_tiles(uint8_t* shared) {
  return shared + (-shared_address(shared) & 1023U);
}

// ---- mbarrier

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t num_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
               "r"(num_bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra WAIT;\n"
      "DONE:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// Meeting of kThreads threads of the block (hardware barrier kId, 1 to 15).
template <int kId, int kThreads>
__device__ __forceinline__ void named_barrier() {
  asm volatile("barrier.sync.aligned %0, %1;" ::"n"(kId), "n"(kThreads) : "memory");
}
/// The same for threads that do not wait for the others.
template <int kId, int kThreads>
__device__ __forceinline__ void named_barrier_arrive() {
  asm volatile("barrier.arrive.aligned %0, %1;" ::"n"(kId), "n"(kThreads) : "memory");
}
/// Ordinary stores to shared memory before it are seen by copy engine and wgmma after it.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- bulk tensor copy

__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
/// What the L2 cache is told about the lines of a copy.
inline constexpr uint64_t kEvictFirst = 0x12F0000000000000ULL;
inline constexpr uint64_t kEvictNormal = 0x1000000000000000ULL;

/// One box of a 3-dimensional tensor into shared memory; `barrier` counts its bytes.
__device__ __forceinline__ void copy_box(
    uint32_t to, const CUtensorMap* map, int x, int y, int z, uint32_t barrier, uint64_t hint) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(map),
      "r"(x),
      "r"(y),
      "r"(z),
      "r"(barrier),
      "l"(hint)
      : "memory");
}
template <uint64_t kHint>
__device__ __forceinline__ void copy_box(
    uint32_t to, const CUtensorMap* map, int x, int y, int z, uint32_t barrier) {
  copy_box(to, map, x, y, z, barrier, kHint);
}
/// One box out of shared memory; what lies outside of the tensor is not written.
__device__ __forceinline__ void store_box(
    const CUtensorMap* map, uint32_t from, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(map),
      "r"(x),
      "r"(y),
      "r"(z),
      "r"(from)
      : "memory");
}
__device__ __forceinline__ void store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// The calling thread's stores, but for the last kPending groups, have read what they store.
template <int kPending>
__device__ __forceinline__ void store_wait() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

// ---- wgmma

__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// Keeps the compiler from moving uses of an accumulator over asynchronous products.
template <int kCount>
__device__ __forceinline__ void pin(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    asm volatile("" : "+f"(values[i])::"memory");
  }
}

/// The same for packed left operands: in use until the products are done.
template <int kRows, int kColumns>
__device__ __forceinline__ void pin(uint32_t (&values)[kRows][kColumns]) {
#pragma unroll
  for (int i = 0; i < kRows * kColumns; ++i) {
    asm volatile("" : "+r"(values[i / kColumns][i % kColumns])::"memory");
  }
}

/// Descriptor of a tile in 128-byte swizzle: panels of rows of 128 bytes, 8 rows to an atom of 1024
/// bytes. `panel_bytes` matters only where the tile is read along its columns (MN-major).
__device__ __forceinline__ uint64_t tile_descriptor(uint32_t address, uint32_t panel_bytes) {
  return static_cast<uint64_t>((address & 0x3FFFFU) >> 4U) |
         (static_cast<uint64_t>(panel_bytes >> 4U) << 16U) |
         (static_cast<uint64_t>(1024U >> 4U) << 32U) | (uint64_t{1} << 62U);
}

#define TESSERA_ACC4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define TESSERA_ACC16(d, i) \
  TESSERA_ACC4(d, i), TESSERA_ACC4(d, i + 4), TESSERA_ACC4(d, i + 8), TESSERA_ACC4(d, i + 12)
#define TESSERA_ACC32(d, i) TESSERA_ACC16(d, i), TESSERA_ACC16(d, i + 16)
#define TESSERA_ACC64(d, i) TESSERA_ACC32(d, i), TESSERA_ACC32(d, i + 32)
#define TESSERA_ACC96(d, i) TESSERA_ACC64(d, i), TESSERA_ACC32(d, i + 64)
#define TESSERA_ACC128(d, i) TESSERA_ACC64(d, i), TESSERA_ACC64(d, i + 64)

#define TESSERA_D32                                                                    \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22," \
  "%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define TESSERA_D64                                                                           \
  TESSERA_D32                                                                                 \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
  "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define TESSERA_D96                                                                           \
  TESSERA_D64                                                                                 \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85," \
  "%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define TESSERA_D128                                                                           \
  TESSERA_D64                                                                                  \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,"  \
  "%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,"     \
  "%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123," \
  "%124,%125,%126,%127"

/// sum[64, 2 kHalf] (+)= a[64, 16] b[2 kHalf, 16]^T, both in shared memory along their rows.
template <int kHalf>
__device__ __forceinline__ void wgmma_rows(float (&sum)[kHalf],
                                           uint64_t a,
                                           uint64_t b,
                                           int accumulate) {
  if constexpr (kHalf == 128) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" TESSERA_D128
        "}, %128, %129, p, 1, 1, 0, 0;\n}"
        : TESSERA_ACC128(sum, 0)
        : "l"(a), "l"(b), "r"(accumulate));
  } else if constexpr (kHalf == 64) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" TESSERA_D64
        "}, %64, %65, p, 1, 1, 0, 0;\n}"
        : TESSERA_ACC64(sum, 0)
        : "l"(a), "l"(b), "r"(accumulate));
  } else {
    static_assert(kHalf == 32);
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TESSERA_D32
        "}, %32, %33, p, 1, 1, 0, 0;\n}"
        : TESSERA_ACC32(sum, 0)
        : "l"(a), "l"(b), "r"(accumulate));
  }
}

/// sum[64, 64] += a[64, 16] b[64, 16]^T: a in registers, b in shared memory along its rows.
__device__ __forceinline__ void wgmma_held_rows(float (&sum)[32],
                                                const uint32_t (&a)[4],
                                                uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TESSERA_D32
               "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 0;"
               : TESSERA_ACC32(sum, 0)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/// sum[64, 2 kHalf] += a[64, 16] b[16, 2 kHalf]: a in registers, b in shared memory, read along its
/// columns.
template <int kHalf>
__device__ __forceinline__ void wgmma_pv(float (&sum)[kHalf], const uint32_t (&a)[4], uint64_t b) {
  if constexpr (kHalf == 128) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" TESSERA_D128
                 "}, {%128,%129,%130,%131}, %132, 1, 1, 1, 1;"
                 : TESSERA_ACC128(sum, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else if constexpr (kHalf == 96) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" TESSERA_D96
                 "}, {%96,%97,%98,%99}, %100, 1, 1, 1, 1;"
                 : TESSERA_ACC96(sum, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else if constexpr (kHalf == 64) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" TESSERA_D64
                 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
                 : TESSERA_ACC64(sum, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else {
    static_assert(kHalf == 32);
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TESSERA_D32
                 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
                 : TESSERA_ACC32(sum, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
}

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace tessera::kernels::cuda::sm90
