// The exact window: the first and the last tokens of a context, whose whole latents every rank of a
// sliced group keeps beside its paged cache. Plain data and arithmetic.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tessera::kernels {

/// Of a context of n tokens, those at positions [0, num_first) and [n - num_last, n).
struct LatentWindow {
  int64_t num_first = 0;
  int64_t num_last = 0;

  [[nodiscard]] constexpr bool is_empty() const noexcept { return num_first + num_last == 0; }
  /// The tokens outside are at positions [outside_begin, outside_end), none if these are equal.
  [[nodiscard]] constexpr int64_t outside_begin(int64_t num_tokens) const noexcept {
    return std::min(num_first, num_tokens);
  }
  [[nodiscard]] constexpr int64_t outside_end(int64_t num_tokens) const noexcept {
    return std::max(outside_begin(num_tokens), num_tokens - num_last);
  }
  [[nodiscard]] constexpr bool contains(int64_t position, int64_t num_tokens) const noexcept {
    return position < outside_begin(num_tokens) || position >= outside_end(num_tokens);
  }
  friend bool operator==(const LatentWindow&, const LatentWindow&) = default;
};

/// Where the rows of a window lie: each sequence has `num_first` rows of its own and then a ring of
/// `ring_rows`, in which a token's row is overwritten `ring_rows` tokens later. All rows of a layer
/// lie back to back, so that the memory is a LatentCacheView and a row's number is a slot of it.
struct WindowRing {
  LatentWindow window;
  /// window.num_last, and one more for each further row of a sequence that a step may run.
  int64_t ring_rows = 0;

  /// For steps that run up to `step_rows` rows of a sequence.
  [[nodiscard]] static constexpr WindowRing create(const LatentWindow& window,
                                                   int64_t step_rows = 1) noexcept {
    return {.window = window,
            .ring_rows = window.num_last == 0 ? 0 : window.num_last + step_rows - 1};
  }
  [[nodiscard]] constexpr int64_t rows_per_sequence() const noexcept {
    return window.num_first + ring_rows;
  }
  /// Whether a step after which the context has `num_tokens` tokens writes the row of the one at
  /// `position`: these tokens' rows are all different.
  [[nodiscard]] constexpr bool is_kept(int64_t position, int64_t num_tokens) const noexcept {
    return position < window.num_first || position >= num_tokens - ring_rows;
  }
  /// Row of a kept token, counted from its sequence's first row.
  [[nodiscard]] constexpr int64_t row(int64_t position) const noexcept {
    return position < window.num_first
               ? position
               : window.num_first + (position - window.num_first) % ring_rows;
  }
  friend bool operator==(const WindowRing&, const WindowRing&) = default;
};

}  // namespace tessera::kernels
