// The checksum of a block image on its way: 64 bits, sensitive to position, cheap on a CPU and a
// sum of independent rows, so that a GPU can compute it in any order. The formula, which holds for
// both, is in kernels/core/image_checksum.h.
//
// Any change within one word changes it: the difference is below 2^32 and not zero, its factor is
// odd. So does exchanging two words of one row, because their factors differ. Everything else (rows
// shifted, torn writes) is caught up to chance. It is no defence against a peer that wants to
// deceive.
#pragma once

#include <cstdint>

#include "kernels/core/image_checksum.h"

namespace tessera {

using kernels::kChecksumRowBytes;

[[nodiscard]] uint64_t image_checksum(const void* image, int64_t num_bytes);

/// Copies and returns the checksum of the bytes that it stored at `destination`, also when `source`
/// changes meanwhile; they are visible to others before any later store is. Goes past the caches
/// where `destination` is aligned to 32 bytes: what is copied so is read next by another processor,
/// or much later.
[[nodiscard]] uint64_t copy_with_checksum(void* destination, const void* source, int64_t num_bytes);

}  // namespace tessera
