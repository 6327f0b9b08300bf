#include "engine/transport/checksum.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace tessera {
namespace {

constexpr int64_t kRowWords = kChecksumRowBytes / static_cast<int64_t>(sizeof(uint32_t));
constexpr uint64_t kLengthFactor = 0xd6e8feb86659fd93ULL;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): consecutive numbers become unrelated.
constexpr uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31U);
}

using RowFactors = std::array<uint32_t, kRowWords>;

constexpr RowFactors make_row_factors() {
  RowFactors factors{};
  for (uint64_t k = 0; k < factors.size(); ++k) {
    factors[k] = static_cast<uint32_t>(mix(k) >> 32U) | 1U;
  }
  return factors;
}

constexpr bool are_distinct(RowFactors factors) {
  std::sort(factors.begin(), factors.end());
  for (size_t k = 1; k < factors.size(); ++k) {
    if (factors[k] == factors[k - 1]) {
      return false;
    }
  }
  return true;
}

constexpr RowFactors kRowFactors = make_row_factors();
static_assert(are_distinct(kRowFactors));

constexpr uint64_t image_factor(int64_t row) {
  return mix(~static_cast<uint64_t>(row)) | 1U;
}

/// `words` need no alignment.
uint64_t sum_of_row(const char* words) {
  uint64_t sum = 0;
  for (size_t k = 0; k < kRowFactors.size(); ++k) {
    uint32_t word = 0;
    std::memcpy(&word, words + (k * sizeof(word)), sizeof(word));
    sum += uint64_t{word} * kRowFactors[k];
  }
  return sum;
}

uint64_t sum_of_last_row(const char* begin, int64_t num_bytes) {
  std::array<char, kChecksumRowBytes> padded{};
  std::memcpy(padded.data(), begin, static_cast<size_t>(num_bytes));
  return sum_of_row(padded.data());
}

/// `prepare_row(offset, bytes)` runs before a row of `image` is read.
template <typename PrepareRow>
uint64_t sum_of_image(const char* image, int64_t num_bytes, const PrepareRow& prepare_row) {
  uint64_t sum = static_cast<uint64_t>(num_bytes) * kLengthFactor;
  const int64_t num_full_rows = num_bytes / kChecksumRowBytes;
  for (int64_t row = 0; row < num_full_rows; ++row) {
    const int64_t offset = row * kChecksumRowBytes;
    prepare_row(offset, kChecksumRowBytes);
    sum += sum_of_row(image + offset) * image_factor(row);
  }
  const int64_t offset = num_full_rows * kChecksumRowBytes;
  if (offset < num_bytes) {
    prepare_row(offset, num_bytes - offset);
    sum += sum_of_last_row(image + offset, num_bytes - offset) * image_factor(num_full_rows);
  }
  return sum;
}

}  // namespace

uint64_t image_checksum(const void* image, int64_t num_bytes) {
  return sum_of_image(static_cast<const char*>(image), num_bytes, [](int64_t, int64_t) {});
}

uint64_t copy_with_checksum(void* destination, const void* source, int64_t num_bytes) {
  char* to = static_cast<char*>(destination);
  const char* from = static_cast<const char*>(source);
  return sum_of_image(to, num_bytes, [to, from](int64_t offset, int64_t row_bytes) {
    std::memcpy(to + offset, from + offset, static_cast<size_t>(row_bytes));
  });
}

}  // namespace tessera
