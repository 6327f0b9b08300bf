#include "engine/runner/window_filler.h"

#include <algorithm>

#include "engine/base/check.h"

namespace tessera {

using kernels::ConstTensorView;
using kernels::DType;
using kernels::TensorView;

WindowFiller::WindowFiller(const ModelConfig& config,
                           const ShardPlan& plan,
                           const PagedLatentCache& images,
                           const WindowCache& windows,
                           kernels::Backend& backend)
    : config_(config),
      plan_(plan),
      images_(images),
      windows_(windows),
      device_(backend.device()),
      ops_(backend.ops()) {
  TESSERA_CHECK(images.num_images() == 1, "a decode rank's block is one image");
  const kernels::LatentWindow& window = windows.ring().window;
  const int64_t tokens = window.num_first + window.num_last;
  // Both parts may begin and end inside a block.
  const int64_t blocks =
      blocks_for_tokens(window.num_first) + blocks_for_tokens(window.num_last) + 1;
  const int64_t element = kernels::dtype_bytes(windows.dtype());
  const auto wide = static_cast<int64_t>(sizeof(float));
  ids_ = device_.allocate(blocks * plan.num_slices * static_cast<int64_t>(sizeof(int32_t)));
  slots_ = device_.allocate(tokens * static_cast<int64_t>(sizeof(int64_t)));
  latent_ = device_.allocate(tokens * config.kv_lora_rank * element);
  rope_ = device_.allocate(tokens * config.qk_rope_head_dim * element);
  wide_latent_ = device_.allocate(tokens * config.kv_lora_rank * wide);
  wide_rope_ = device_.allocate(tokens * config.qk_rope_head_dim * wide);
}

void WindowFiller::fill_blocking(const LandedWindow& landed) {
  upload(landed);
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    if (plan_.is_sliced(layer) && !host_slots_.empty()) {
      fill_layer(layer);
    }
  }
  device_.synchronize_blocking({});
}

void WindowFiller::upload(const LandedWindow& landed) {
  const kernels::LatentWindow& window = windows_.ring().window;
  TESSERA_CHECK(landed.ring >= 0 && landed.ring < windows_.num_rings(), "no such ring");
  const int64_t others = plan_.num_slices - 1;
  blocks_ = window_blocks(window, landed.num_tokens);
  TESSERA_CHECK(
      static_cast<int64_t>(landed.blocks.size()) >= blocks_for_tokens(landed.num_tokens) &&
          landed.other_images.size() == blocks_.size() * static_cast<size_t>(others),
      "a landed window of other blocks");
  host_ids_.clear();
  for (size_t k = 0; k < blocks_.size(); ++k) {
    host_ids_.push_back(landed.blocks[static_cast<size_t>(blocks_[k])]);
    const auto images =
        landed.other_images.subspan(k * static_cast<size_t>(others), static_cast<size_t>(others));
    host_ids_.insert(host_ids_.end(), images.begin(), images.end());
  }
  runs_.clear();
  host_slots_.clear();
  const int64_t outside_begin = window.outside_begin(landed.num_tokens);
  note_tokens(landed, 0, outside_begin);
  note_tokens(landed, window.outside_end(landed.num_tokens), landed.num_tokens);
  device_.copy_from_host(
      ids_.data(), host_ids_.data(), static_cast<int64_t>(host_ids_.size() * sizeof(int32_t)), {});
  device_.copy_from_host(slots_.data(),
                         host_slots_.data(),
                         static_cast<int64_t>(host_slots_.size() * sizeof(int64_t)),
                         {});
}

void WindowFiller::note_tokens(const LandedWindow& landed, int64_t begin, int64_t end) {
  int64_t count = 0;
  for (int64_t position = begin; position < end; position += count) {
    const int64_t offset = position % kBlockTokens;
    count = std::min(kBlockTokens - offset, end - position);
    const auto block = std::lower_bound(blocks_.begin(), blocks_.end(), position / kBlockTokens);
    runs_.push_back({.window_block = block - blocks_.begin(), .offset = offset, .count = count});
  }
  for (int64_t position = begin; position < end; ++position) {
    host_slots_.push_back(windows_.first_slot(landed.ring) + windows_.ring().row(position));
  }
}

kernels::LatentColumns WindowFiller::image_columns(int64_t layer, int64_t image) const {
  return ShardPlan::slice_columns(config_,
                                  plan_.layer(layer).num_shared,
                                  (plan_.slice + image) % plan_.num_slices,
                                  plan_.num_slices);
}

void WindowFiller::fill_layer(int64_t layer) {
  const auto tokens = static_cast<int64_t>(host_slots_.size());
  const DType dtype = windows_.dtype();
  const TensorView latent(latent_.data(), dtype, {tokens, config_.kv_lora_rank});
  const TensorView rope(rope_.data(), dtype, {tokens, config_.qk_rope_head_dim});
  int64_t row = 0;
  for (const Run& run : runs_) {
    for (int64_t image = 0; image < plan_.num_slices; ++image) {
      const int32_t* id =
          static_cast<const int32_t*>(ids_.data()) + run.window_block * plan_.num_slices + image;
      ops_.latent_gather({.cache = images_.layer_view(layer),
                          .block_table = ConstTensorView(id, DType::kInt32, {1}),
                          .begin = run.offset,
                          .columns = image_columns(layer, image),
                          .latent = latent.slice(0, row, run.count),
                          .rope = rope.slice(0, row, run.count)},
                         {});
    }
    row += run.count;
  }
  // By way of float32, which keeps every value: what latent_write takes.
  const TensorView wide_latent(wide_latent_.data(), DType::kFloat32, {tokens, latent.dim(1)});
  const TensorView wide_rope(wide_rope_.data(), DType::kFloat32, {tokens, rope.dim(1)});
  ops_.cast({.x = latent, .out = wide_latent}, {});
  ops_.cast({.x = rope, .out = wide_rope}, {});
  ops_.latent_write({.latent = wide_latent,
                     .rope = wide_rope,
                     .slots = ConstTensorView(slots_.data(), DType::kInt64, {tokens}),
                     .columns = kernels::LatentColumns::all(config_.kv_lora_rank),
                     .cache = windows_.layer_view(layer)},
                    {});
}

}  // namespace tessera
