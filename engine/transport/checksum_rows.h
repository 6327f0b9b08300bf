// The inner loops of the checksum, once per instruction set. All give the same sums.
#pragma once

#include <cstdint>

namespace tessera {

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): consecutive numbers become unrelated.
constexpr uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31U);
}

/// What is done with one full row of kChecksumRowBytes. No alignment is needed.
struct RowLoops {
  /// S(r).
  uint64_t (*sum)(const char* row);
  /// Stores the row at `to` and returns S(r) of what was stored, whatever happens to `from`
  /// meanwhile.
  uint64_t (*copy)(char* to, const char* from);
  /// The same past the caches, where the processor can: `to` is at a multiple of kStreamAlignment,
  /// and order_stores() comes before anyone is told.
  uint64_t (*stream)(char* to, const char* from);
};

inline constexpr uintptr_t kStreamAlignment = 32;
/// What was stored or streamed is visible to others before any later store is.
void order_stores() noexcept;

[[nodiscard]] const RowLoops& portable_row_loops() noexcept;
/// The fastest that this processor has.
[[nodiscard]] const RowLoops& best_row_loops() noexcept;
/// S(r) of a row's first `num_bytes` bytes with zeros behind them; stores them at `to` when that is
/// not null.
[[nodiscard]] uint64_t last_row(char* to, const char* from, int64_t num_bytes) noexcept;

}  // namespace tessera
