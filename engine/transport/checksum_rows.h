// The inner loops of the checksum, once per instruction set. All give the same sums.
#pragma once

#include <cstdint>

namespace tessera {

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
