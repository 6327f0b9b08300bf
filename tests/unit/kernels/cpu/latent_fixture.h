// A poisoned paged latent cache for tests of the operations that use one.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/ops/attention_params.h"
#include "tests/support/host_tensor.h"

namespace tessera::testing {

/// Blocks of NaN, with a gap of kGapRows rows after each.
class PoisonedCache final {
 public:
  static constexpr int64_t kGapRows = 3;

  PoisonedCache(kernels::DType dtype, int64_t num_blocks, int64_t latent_width, int64_t rope_width)
      : rows_(dtype,
              std::vector<int64_t>{num_blocks * (kernels::kBlockTokens + kGapRows),
                                   latent_width + rope_width}),
        view_{.base = rows_.view().data,
              .block_stride_bytes = (kernels::kBlockTokens + kGapRows) *
                                    (latent_width + rope_width) * kernels::dtype_bytes(dtype),
              .num_blocks = num_blocks,
              .latent_width = latent_width,
              .rope_width = rope_width,
              .dtype = dtype} {}
  PoisonedCache(const PoisonedCache&) = delete;
  PoisonedCache& operator=(const PoisonedCache&) = delete;

  [[nodiscard]] const kernels::LatentCacheView& view() const { return view_; }
  /// [blocks * (kBlockTokens + kGapRows), R + dr].
  [[nodiscard]] const HostTensor& rows() const { return rows_; }

 private:
  HostTensor rows_;
  kernels::LatentCacheView view_;  // of rows_
};

/// Blocks of bytes 0xff (NaN as latents, scales and rope parts), with a gap behind each.
class Float8Cache final {
 public:
  static constexpr int64_t kGapBytes = 48;

  Float8Cache(int64_t num_blocks, int64_t latent_width, int64_t rope_width)
      : view_{.num_blocks = num_blocks,
              .latent_width = latent_width,
              .rope_width = rope_width,
              .dtype = kernels::DType::kFloat8E4M3} {
    view_.block_stride_bytes = kernels::kBlockTokens * view_.layout().row_bytes + kGapBytes;
    bytes_.assign(static_cast<size_t>(num_blocks * view_.block_stride_bytes), '\xff');
    view_.base = bytes_.data();
  }
  Float8Cache(const Float8Cache&) = delete;
  Float8Cache& operator=(const Float8Cache&) = delete;

  [[nodiscard]] const kernels::LatentCacheView& view() const { return view_; }
  [[nodiscard]] const std::vector<char>& bytes() const { return bytes_; }
  [[nodiscard]] const char* row(int64_t slot) const {
    return bytes_.data() + slot / kernels::kBlockTokens * view_.block_stride_bytes +
           slot % kernels::kBlockTokens * view_.layout().row_bytes;
  }

 private:
  std::vector<char> bytes_;
  kernels::LatentCacheView view_;
};

/// Latents whose magnitudes differ by thousands, from row to row and inside a row.
inline Array random_latents(Random& random, int64_t count, int64_t width) {
  Array latents = random.array({count, width});
  for (int64_t row = 0; row < count; ++row) {
    const double scale = std::exp2(random.uniform(-12.0, 12.0));
    for (int64_t i = 0; i < width; ++i) {
      latents.at(row, i) *= scale * std::exp2(random.uniform(-14.0, 0.0));
    }
  }
  return HostTensor(kernels::DType::kFloat32, latents).to_array();
}

/// The latent's column that each column of a row holds.
inline std::vector<int64_t> row_columns(const kernels::LatentColumns& columns) {
  std::vector<int64_t> result;
  for (const kernels::ColumnRange& range : columns.ranges) {
    for (int64_t i = 0; i < range.count; ++i) {
      result.push_back(range.begin + i);
    }
  }
  return result;
}

/// `array`'s columns of the last axis that `columns` names, in that order.
inline Array pick_columns(const Array& array, const std::vector<int64_t>& columns) {
  Array result = array;
  result.shape.back() = static_cast<int64_t>(columns.size());
  result.values.clear();
  const auto width = static_cast<size_t>(array.shape.back());
  for (size_t row = 0; row < array.values.size(); row += width) {
    for (const int64_t column : columns) {
      result.values.push_back(array.values[row + static_cast<size_t>(column)]);
    }
  }
  return result;
}

/// Slots of positions [0, count) of a sequence with this block table.
inline std::vector<int64_t> slots_of(const std::vector<int32_t>& block_table, int64_t count) {
  std::vector<int64_t> slots;
  for (int64_t position = 0; position < count; ++position) {
    const int64_t block = block_table[static_cast<size_t>(position / kernels::kBlockTokens)];
    slots.push_back(block * kernels::kBlockTokens + position % kernels::kBlockTokens);
  }
  return slots;
}

}  // namespace tessera::testing
