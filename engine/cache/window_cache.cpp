#include "engine/cache/window_cache.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/text.h"

namespace tessera {
namespace {

/// Bytes of one row of each layer, 0 where it is not sliced.
std::vector<int64_t> row_bytes_of(const LatentLayout& layout, const std::vector<bool>& is_sliced) {
  TESSERA_CHECK(layout.latent_widths.size() == is_sliced.size(), "every layer is sliced or not");
  std::vector<int64_t> bytes;
  for (size_t layer = 0; layer < is_sliced.size(); ++layer) {
    const int64_t width = layout.latent_widths[layer] + layout.rope_width;
    bytes.push_back(is_sliced[layer] ? width * kernels::dtype_bytes(layout.dtype) : 0);
  }
  return bytes;
}

Status check_setup(const WindowCacheSetup& setup) {
  const kernels::LatentWindow& window = setup.ring.window;
  const int64_t ring_rows = setup.ring.ring_rows;
  if (window.num_first < 0 || window.num_last < 0 || window.is_empty() ||
      ring_rows < window.num_last) {
    return invalid_argument(str_cat("an exact window of ",
                                    window.num_first,
                                    " first and ",
                                    window.num_last,
                                    " last tokens in a ring of ",
                                    ring_rows,
                                    " rows"));
  }
  // Slots of all rings, and blocks, are counted in int32 by some backends.
  const int64_t most = std::numeric_limits<int32_t>::max() / setup.ring.rows_per_sequence();
  if (setup.num_rings < 1 || setup.num_rings > most) {
    return invalid_argument(str_cat("num_rings is ", setup.num_rings, ", expected 1 to ", most));
  }
  return Status::ok();
}

}  // namespace

std::vector<int64_t> window_blocks(const kernels::LatentWindow& window, int64_t num_tokens) {
  const int64_t num_blocks = blocks_for_tokens(num_tokens);
  const int64_t first_end = blocks_for_tokens(window.outside_begin(num_tokens));
  const int64_t outside_end = window.outside_end(num_tokens);
  const int64_t last_begin = outside_end < num_tokens ? outside_end / kBlockTokens : num_blocks;
  std::vector<int64_t> blocks;
  for (int64_t block = 0; block < first_end; ++block) {
    blocks.push_back(block);
  }
  for (int64_t block = std::max(first_end, last_begin); block < num_blocks; ++block) {
    blocks.push_back(block);
  }
  return blocks;
}

Result<WindowCache> WindowCache::create(kernels::Device& device,
                                        const LatentLayout& layout,
                                        const std::vector<bool>& is_sliced,
                                        const WindowCacheSetup& setup) {
  TESSERA_RETURN_IF_ERROR(check_setup(setup));
  WindowCache cache(device, layout, is_sliced, setup);
  const int64_t num_bytes = cache.layer_offsets_.back();
  try {
    // A model whose layers share everything has no rows, but a cache all the same.
    cache.memory_ = device.allocate(std::max<int64_t>(1, num_bytes));
  } catch (const DeviceError& error) {
    return resource_exhausted(str_cat("the exact windows of ",
                                      setup.num_rings,
                                      " sequences need ",
                                      num_bytes,
                                      " bytes: ",
                                      error.what()));
  }
  return cache;
}

WindowCache::WindowCache(kernels::Device& device,
                         const LatentLayout& layout,
                         const std::vector<bool>& is_sliced,
                         const WindowCacheSetup& setup)
    : device_(&device),
      setup_(setup),
      num_blocks_(blocks_for_tokens(setup.num_rings * setup.ring.rows_per_sequence())),
      row_bytes_(row_bytes_of(layout, is_sliced)),
      layer_offsets_{0},
      layout_(layout) {
  for (const int64_t bytes : row_bytes_) {
    layer_offsets_.push_back(layer_offsets_.back() + num_blocks_ * kBlockTokens * bytes);
  }
}

int64_t WindowCache::ring_bytes(const LatentLayout& layout,
                                const std::vector<bool>& is_sliced,
                                const kernels::WindowRing& ring) {
  int64_t bytes = 0;
  for (const int64_t row : row_bytes_of(layout, is_sliced)) {
    bytes += row * ring.rows_per_sequence();
  }
  return bytes;
}

kernels::LatentCacheView WindowCache::layer_view(int64_t layer) const {
  TESSERA_CHECK(layer >= 0 && layer < num_layers(), "no such layer in the window cache");
  const auto index = static_cast<size_t>(layer);
  if (row_bytes_[index] == 0) {
    return {};
  }
  return {.base = static_cast<char*>(memory_.data()) + layer_offsets_[index],
          .block_stride_bytes = kBlockTokens * row_bytes_[index],
          .num_blocks = num_blocks_,
          .latent_width = layout_.latent_widths[index],
          .rope_width = layout_.rope_width,
          .dtype = layout_.dtype};
}

void WindowCache::copy_ring(int64_t source, int64_t destination, kernels::StreamView stream) {
  const auto is_ring = [&](int64_t ring) { return ring >= 0 && ring < num_rings(); };
  TESSERA_CHECK(is_ring(source) && is_ring(destination) && source != destination,
                "copy_ring: no such pair of rings");
  for (int64_t layer = 0; layer < num_layers(); ++layer) {
    const int64_t bytes = row_bytes_[static_cast<size_t>(layer)];
    if (bytes > 0) {
      char* const rows =
          static_cast<char*>(memory_.data()) + layer_offsets_[static_cast<size_t>(layer)];
      device_->copy(rows + first_slot(destination) * bytes,
                    rows + first_slot(source) * bytes,
                    setup_.ring.rows_per_sequence() * bytes,
                    stream);
    }
  }
}

}  // namespace tessera
