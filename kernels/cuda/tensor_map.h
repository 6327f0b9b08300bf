// Tensor maps: how the bulk copy engine of Hopper GPUs addresses a tensor of bfloat16, or of bytes,
// box by box.
#pragma once

#include <array>
#include <cstdint>

#include <cuda.h>

namespace tessera::kernels::cuda {

/// A view of three dimensions, the innermost first and dense, and the boxes it is copied in. A
/// box's rows are 64 columns (128 bytes), and lie in shared memory in 128-byte swizzle.
struct BoxedTensor {
  const void* base = nullptr;
  std::array<int64_t, 3> size = {};
  std::array<int64_t, 2> stride = {};  ///< of the outer two, in elements
  std::array<int64_t, 2> box = {};     ///< extent in the outer two
};

/// The same of bytes. A box's rows are multiples of 16 bytes, 256 at most, and lie in shared memory
/// one behind the other.
struct BoxedBytes {
  const void* base = nullptr;
  std::array<int64_t, 3> size = {};
  std::array<int64_t, 2> stride = {};  ///< of the outer two
  std::array<int64_t, 3> box = {};
};

/// Box columns; the copy engine swizzles rows of this many.
inline constexpr int64_t kBoxColumns = 64;

/// Aligned as the copy engine needs it (16 bytes).
[[nodiscard]] bool is_copy_aligned(const void* address);
[[nodiscard]] bool is_copy_aligned(int64_t stride);  ///< in elements

/// What lies outside of the tensor comes as zeros. Base and strides are copy-aligned.
[[nodiscard]] CUtensorMap make_tensor_map(const BoxedTensor& tensor);
[[nodiscard]] CUtensorMap make_byte_map(const BoxedBytes& tensor);

}  // namespace tessera::kernels::cuda
