// Which of a latent's columns the rows of one cache image hold. Plain data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tessera::kernels {

/// Columns [begin, begin + count) of a latent.
struct ColumnRange {
  int64_t begin = 0;
  int64_t count = 0;

  [[nodiscard]] constexpr bool is_within(int64_t width) const noexcept {
    return begin >= 0 && count >= 0 && count <= width - begin;
  }
  [[nodiscard]] constexpr bool overlaps(const ColumnRange& other) const noexcept {
    return count > 0 && other.count > 0 && begin < other.begin + other.count &&
           other.begin < begin + count;
  }
  friend bool operator==(const ColumnRange&, const ColumnRange&) = default;
};

/// The latent part of a row: the columns of `ranges`, one range behind the other. The ranges do not
/// overlap; a range of no columns holds nothing and may stand anywhere.
///
/// A slice of a latent that has shared columns (tpla) keeps all of them, but multiplies by values
/// only its share of them and its own columns: these stand last in its rows, so that the values are
/// the columns from `value_begin` on.
struct LatentColumns {
  static constexpr int64_t kMaxRanges = 4;
  std::array<ColumnRange, kMaxRanges> ranges = {};
  int64_t value_begin = 0;  ///< of the row, not of the latent

  [[nodiscard]] constexpr int64_t width() const noexcept {
    int64_t width = 0;
    for (const ColumnRange& range : ranges) {
      width += range.count;
    }
    return width;
  }
  [[nodiscard]] constexpr int64_t num_values() const noexcept { return width() - value_begin; }
  /// Calls visit(range, row_begin) for each range that holds columns, in row order: column
  /// range.begin + i of the latent is column row_begin + i of the row.
  template <typename Visit>
  constexpr void for_each_range(Visit&& visit) const {
    int64_t row_begin = 0;
    for (const ColumnRange& range : ranges) {
      if (range.count > 0) {
        visit(range, row_begin);
      }
      row_begin += range.count;
    }
  }
  /// The ranges lie in a latent of `latent_width` columns without overlapping, and the values begin
  /// inside of the row.
  [[nodiscard]] constexpr bool fits(int64_t latent_width) const noexcept {
    for (size_t i = 0; i < ranges.size(); ++i) {
      bool is_ok = ranges[i].count == 0 || ranges[i].is_within(latent_width);
      for (size_t j = 0; j < i; ++j) {
        is_ok = is_ok && !ranges[i].overlaps(ranges[j]);
      }
      if (!is_ok) {
        return false;
      }
    }
    return value_begin == 0 || (value_begin > 0 && value_begin < width());
  }
  friend bool operator==(const LatentColumns&, const LatentColumns&) = default;

  /// All columns of a latent of `width`.
  [[nodiscard]] static constexpr LatentColumns all(int64_t width) noexcept {
    return {.ranges = {{{0, width}}}};
  }
  /// What slice `slice` of `num_slices` keeps of a latent of `width` columns, of which the first
  /// `num_shared` are kept by all: the others' shares of the shared columns, its own share of them,
  /// its own columns. `num_slices` divides `num_shared` and `width`.
  [[nodiscard]] static constexpr LatentColumns of_slice(int64_t width,
                                                        int64_t num_shared,
                                                        int64_t slice,
                                                        int64_t num_slices) noexcept {
    const int64_t share = num_shared / num_slices;
    const int64_t own = (width - num_shared) / num_slices;
    return {.ranges = {{{0, slice * share},
                        {(slice + 1) * share, (num_slices - 1 - slice) * share},
                        {slice * share, share},
                        {num_shared + slice * own, own}}},
            .value_begin = num_shared - share};
  }
};

}  // namespace tessera::kernels
