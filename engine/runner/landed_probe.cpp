#include "engine/runner/landed_probe.h"

#include <algorithm>

namespace tessera {

LandedProbe::LandedProbe(const PagedLatentCache& cache, kernels::Backend& backend)
    : cache_(cache), device_(backend.device()), ops_(backend.ops()) {}

void LandedProbe::reserve(int64_t num_blocks) {
  if (num_blocks <= capacity_) {
    return;
  }
  capacity_ = std::max(num_blocks, 2 * capacity_);
  ids_ = device_.allocate(capacity_ * static_cast<int64_t>(sizeof(int32_t)));
  sums_ = device_.allocate(capacity_ * static_cast<int64_t>(sizeof(kernels::ProbeSum)));
}

kernels::ProbeSum LandedProbe::sum_blocking(const RankBlocks& blocks) {
  const auto num_blocks = static_cast<int64_t>(blocks.ids.size());
  kernels::ProbeSum total;
  if (num_blocks == 0) {
    return total;
  }
  reserve(num_blocks);
  device_.copy_from_host(
      ids_.data(), blocks.ids.data(), num_blocks * static_cast<int64_t>(sizeof(int32_t)), {});
  auto* const sums = static_cast<kernels::ProbeSum*>(sums_.data());
  for (int64_t layer = 0; layer < cache_.shard().num_layers(); ++layer) {
    ops_.cache_probe(
        {.cache = cache_.layer_view(layer),
         .blocks = kernels::ConstTensorView(ids_.data(), kernels::DType::kInt32, {num_blocks}),
         .layer = layer,
         .columns = cache_.shard().columns(layer),
         .first_index = blocks.first_index,
         .index_step = blocks.index_step,
         .end = blocks.end,
         .sums = sums},
        {});
  }
  host_sums_.resize(blocks.ids.size());
  device_.copy_to_host(
      host_sums_.data(), sums, num_blocks * static_cast<int64_t>(sizeof(kernels::ProbeSum)), {});
  device_.synchronize_blocking({});
  for (const kernels::ProbeSum& block : host_sums_) {
    total.sum += block.sum;
    total.magnitude += block.magnitude;
  }
  return total;
}

}  // namespace tessera
