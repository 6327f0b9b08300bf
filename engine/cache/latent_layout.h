// Where a latent row lies inside a cache block. A block holds kBlockTokens tokens of all layers of
// one shard: layer images back to back, each of them rows (kernels/ops/latent_row.h). Immutable
// values; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/ops/latent_columns.h"
#include "kernels/ops/latent_row.h"

namespace tessera {

/// Tokens of one cache block.
inline constexpr int64_t kBlockTokens = 64;

/// Blocks that `num_tokens` tokens occupy.
[[nodiscard]] constexpr int64_t blocks_for_tokens(int64_t num_tokens) noexcept {
  return (num_tokens + kBlockTokens - 1) / kBlockTokens;
}

/// The latent cache of the whole model, before it is split over ranks.
struct LatentLayout {
  std::vector<int64_t> latent_widths;  ///< columns of the latent, per layer
  int64_t rope_width = 0;
  kernels::DType dtype = kernels::DType::kFloat32;
};

using kernels::LatentColumns;

/// What one rank holds of a LatentLayout: some latent columns per layer and the whole rope part.
class LatentShard final {
 public:
  /// `columns`: one per layer, inside the layout's widths.
  LatentShard(const LatentLayout& layout, std::vector<LatentColumns> columns);
  /// All columns of every layer.
  [[nodiscard]] static LatentShard full(const LatentLayout& layout);

  [[nodiscard]] int64_t num_layers() const noexcept {
    return static_cast<int64_t>(columns_.size());
  }
  [[nodiscard]] const LatentColumns& columns(int64_t layer) const noexcept {
    return columns_[static_cast<size_t>(layer)];
  }
  [[nodiscard]] int64_t latent_width(int64_t layer) const noexcept {
    return columns(layer).width();
  }
  [[nodiscard]] int64_t rope_width() const noexcept { return rope_width_; }
  [[nodiscard]] kernels::DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] int64_t row_bytes(int64_t layer) const noexcept {
    return kernels::latent_row_layout(dtype_, latent_width(layer), rope_width_).row_bytes;
  }
  /// Where the image of `layer` begins inside a block.
  [[nodiscard]] int64_t layer_offset_bytes(int64_t layer) const noexcept {
    return layer_offsets_[static_cast<size_t>(layer)];
  }
  /// Where the row of token `offset` of a block begins inside the block.
  [[nodiscard]] int64_t row_offset_bytes(int64_t layer, int64_t offset) const noexcept {
    return layer_offset_bytes(layer) + offset * row_bytes(layer);
  }
  /// One block: kBlockTokens tokens of all layers.
  [[nodiscard]] int64_t block_bytes() const noexcept { return layer_offsets_.back(); }

 private:
  std::vector<LatentColumns> columns_;
  std::vector<int64_t> layer_offsets_;  // one per layer, then the end
  int64_t rope_width_;
  kernels::DType dtype_;
};

}  // namespace tessera
