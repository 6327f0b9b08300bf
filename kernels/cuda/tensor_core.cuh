// Tensor-core building blocks for kernels in bfloat16: asynchronous copies to shared memory, matrix
// fragments, and a layout of shared memory that neither of them conflicts in.
// Source: PTX ISA, sections "cp.async", "ldmatrix" and "mma" (m16n8k16).
#pragma once

#include <cstdint>

#include "kernels/cuda/device_math.cuh"

namespace tessera::kernels::cuda {

/// Elements of one panel of a shared-memory row: 128 bytes, eight chunks of 16 bytes.
inline constexpr int kPanelColumns = 64;
inline constexpr int kChunkColumns = 8;
inline constexpr unsigned kPanelChunks = kPanelColumns / kChunkColumns;
inline constexpr unsigned kPanelBytes = kPanelColumns * 2;

/// Byte of chunk `chunk` of row `row` in a tile of `row_panels` panels a row. Eight rows' chunks of
/// one number lie in different banks.
__device__ inline unsigned tile_byte(int row, int row_panels, int chunk) {
  // Unsigned: a signed remainder takes more instructions than the rest.
  const auto at = static_cast<unsigned>(chunk);
  const unsigned panel = at / kPanelChunks;
  const unsigned swizzled = (at ^ static_cast<unsigned>(row)) % kPanelChunks;
  return static_cast<unsigned>(row * row_panels) * kPanelBytes + panel * kPanelBytes +
         swizzled * 16U;
}

__device__ inline unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

/// 16 bytes; zeros when `is_valid` is false (`from` is still an address of the device).
__device__ inline void copy_async(unsigned to, const void* from, bool is_valid) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(is_valid ? 16 : 0)
      : "memory");
}
__device__ inline void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most kPending of this thread's last groups are on their way.
template <int kPending>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

struct Fragment4 {
  unsigned r[4];
};

/// Four 8x8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline Fragment4 load_matrix(unsigned address) {
  Fragment4 f;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3])
               : "r"(address)
               : "memory");
  return f;
}
__device__ inline Fragment4 load_matrix_transposed(unsigned address) {
  Fragment4 f;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3])
               : "r"(address)
               : "memory");
  return f;
}

/// sums [16, 8] += a [16, 16] * b [16, 8]. A thread holds (row g, columns 2t, 2t + 1) and the same
/// of row g + 8, with g = lane / 4 and t = lane % 4.
__device__ inline void multiply_add(float (&sums)[4],
                                    const Fragment4& a,
                                    unsigned b0,
                                    unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}

__device__ inline unsigned pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}

/// The 16 x 16 block of rows [row, row + 16) and chunks chunk, chunk + 1 as operand A.
__device__ inline Fragment4 load_rows(unsigned tile, int row_panels, int row, int chunk, int lane) {
  return load_matrix(tile + tile_byte(row + lane % 16, row_panels, chunk + lane / 16));
}

/// Operand B of two products at once, from a tile whose rows are B's columns: registers 0 and 1
/// are of rows [row, row + 8), 2 and 3 of the next eight; chunks chunk and chunk + 1 are the 16
/// terms of the sums.
__device__ inline Fragment4 load_columns(
    unsigned tile, int row_panels, int row, int chunk, int lane) {
  return load_matrix(tile +
                     tile_byte(row + lane % 8 + lane / 16 * 8, row_panels, chunk + lane / 8 % 2));
}

/// Operand B of two products at once, from a tile whose rows [row, row + 16) are the terms of the
/// sums: registers 0 and 1 are of the columns of chunk `first`, 2 and 3 of those of `second`.
__device__ inline Fragment4 load_values(
    unsigned tile, int row_panels, int row, int first, int second, int lane) {
  return load_matrix_transposed(tile +
                                tile_byte(row + lane % 16, row_panels, lane < 16 ? first : second));
}

}  // namespace tessera::kernels::cuda
