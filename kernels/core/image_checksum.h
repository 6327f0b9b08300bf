// The formula of the checksum of block images, for loops on every processor. What it detects is in
// engine/transport/checksum.h.
//
//   The image is cut into rows of 1024 little-endian 32-bit words, the last one padded with zeros.
//   row r:   S(r) = sum over k of word(r, k) * t(k)        mod 2^64
//   image:   C = num_bytes * L + sum over r of S(r) * m(r)   mod 2^64
#pragma once

#include <cstdint>

namespace tessera::kernels {

inline constexpr int64_t kChecksumRowBytes = 4096;
inline constexpr int64_t kChecksumRowWords = kChecksumRowBytes / 4;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): consecutive numbers become unrelated.
constexpr uint64_t checksum_mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31U);
}

/// t(k): odd.
constexpr uint32_t checksum_word_factor(uint64_t word) {
  return static_cast<uint32_t>(checksum_mix(word) >> 32U) | 1U;
}

/// m(r): odd.
constexpr uint64_t checksum_row_factor(int64_t row) {
  return checksum_mix(~static_cast<uint64_t>(row)) | 1U;
}

/// num_bytes * L, L odd.
constexpr uint64_t checksum_of_length(int64_t num_bytes) {
  return static_cast<uint64_t>(num_bytes) * 0xd6e8feb86659fd93ULL;
}

}  // namespace tessera::kernels
