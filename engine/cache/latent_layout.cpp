#include "engine/cache/latent_layout.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "kernels/ops/attention_params.h"

namespace tessera {

static_assert(kBlockTokens == kernels::kBlockTokens);

namespace {

bool are_inside(const std::vector<LatentColumns>& columns, const std::vector<int64_t>& widths) {
  const auto is_inside = [](const LatentColumns& kept, int64_t width) { return kept.fits(width); };
  return std::equal(columns.begin(), columns.end(), widths.begin(), widths.end(), is_inside);
}

}  // namespace

LatentShard::LatentShard(const LatentLayout& layout, std::vector<LatentColumns> columns)
    : columns_(std::move(columns)), rope_width_(layout.rope_width), dtype_(layout.dtype) {
  TESSERA_CHECK(are_inside(columns_, layout.latent_widths),
                "a shard has columns inside the latent for every layer");
  layer_offsets_.reserve(columns_.size() + 1);
  layer_offsets_.push_back(0);
  for (int64_t layer = 0; layer < num_layers(); ++layer) {
    layer_offsets_.push_back(layer_offsets_.back() + kBlockTokens * row_bytes(layer));
  }
}

LatentShard LatentShard::full(const LatentLayout& layout) {
  std::vector<LatentColumns> columns;
  columns.reserve(layout.latent_widths.size());
  for (const int64_t width : layout.latent_widths) {
    columns.push_back(LatentColumns::all(width));
  }
  return {layout, std::move(columns)};
}

}  // namespace tessera
