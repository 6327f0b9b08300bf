#include "engine/transport/checksum_rows.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "engine/transport/checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tessera {
namespace {

using RowFactors = std::array<uint32_t, kernels::kChecksumRowWords>;

constexpr RowFactors make_row_factors() {
  RowFactors factors{};
  for (uint64_t k = 0; k < factors.size(); ++k) {
    factors[k] = kernels::checksum_word_factor(k);
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

alignas(64) constexpr RowFactors kRowFactors = make_row_factors();
static_assert(are_distinct(kRowFactors));

uint64_t portable_sum(const char* row) {
  uint64_t sum = 0;
  for (size_t k = 0; k < kRowFactors.size(); ++k) {
    uint32_t word = 0;
    std::memcpy(&word, row + (k * sizeof(word)), sizeof(word));
    sum += uint64_t{word} * kRowFactors[k];
  }
  return sum;
}

/// Sums what stands at `to` after the copy.
uint64_t portable_copy(char* to, const char* from) {
  std::memcpy(to, from, kChecksumRowBytes);
  return portable_sum(to);
}

#if defined(__x86_64__)

enum class Store : uint8_t { kNone, kCached, kStreamed };

// always_inline: the callers differ in `kStore` only.
template <Store kStore>
__attribute__((target("avx2"), always_inline)) inline uint64_t avx2_row(char* to,
                                                                        const char* from) {
  __m256i even = _mm256_setzero_si256();
  __m256i odd = _mm256_setzero_si256();
  for (size_t k = 0; k < kRowFactors.size(); k += 8) {
    __m256i words =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + (k * sizeof(uint32_t))));
    // One load: the compiler may not read again what another process may have changed.
    asm volatile("" : "+x"(words));  // NOLINT(hicpp-no-assembler)
    if constexpr (kStore == Store::kCached) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (k * sizeof(uint32_t))), words);
    } else if constexpr (kStore == Store::kStreamed) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + (k * sizeof(uint32_t))), words);
    }
    const __m256i factors = _mm256_load_si256(reinterpret_cast<const __m256i*>(&kRowFactors[k]));
    even = _mm256_add_epi64(even, _mm256_mul_epu32(words, factors));
    odd = _mm256_add_epi64(
        odd, _mm256_mul_epu32(_mm256_srli_epi64(words, 32), _mm256_srli_epi64(factors, 32)));
  }
  std::array<uint64_t, 4> sums{};
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums.data()), _mm256_add_epi64(even, odd));
  return sums[0] + sums[1] + sums[2] + sums[3];
}

__attribute__((target("avx2"))) uint64_t avx2_sum(const char* row) {
  return avx2_row<Store::kNone>(nullptr, row);
}

__attribute__((target("avx2"))) uint64_t avx2_copy(char* to, const char* from) {
  return avx2_row<Store::kCached>(to, from);
}

__attribute__((target("avx2"))) uint64_t avx2_stream(char* to, const char* from) {
  return avx2_row<Store::kStreamed>(to, from);
}

#endif

#if defined(__x86_64__)
constexpr RowLoops kAvx2{&avx2_sum, &avx2_copy, &avx2_stream};
#endif
constexpr RowLoops kPortable{&portable_sum, &portable_copy, &portable_copy};

}  // namespace

const RowLoops& portable_row_loops() noexcept {
  return kPortable;
}

const RowLoops& best_row_loops() noexcept {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  return has_avx2 ? kAvx2 : kPortable;
#else
  return kPortable;
#endif
}

void order_stores() noexcept {
#if defined(__x86_64__)
  _mm_sfence();
#else
  __sync_synchronize();
#endif
}

uint64_t last_row(char* to, const char* from, int64_t num_bytes) noexcept {
  std::array<char, kChecksumRowBytes> padded{};
  std::memcpy(padded.data(), from, static_cast<size_t>(num_bytes));
  if (to != nullptr) {
    std::memcpy(to, padded.data(), static_cast<size_t>(num_bytes));
  }
  return portable_sum(padded.data());
}

}  // namespace tessera
