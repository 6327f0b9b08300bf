#include "engine/cache/window_cache.h"

#include <algorithm>

namespace tessera {

std::vector<int64_t> window_blocks(const kernels::LatentWindow& window, int64_t num_tokens) {
  std::vector<int64_t> blocks;
  for (int64_t b = 0; b < blocks_for_tokens(num_tokens); ++b) {
    const int64_t end = std::min((b + 1) * kBlockTokens, num_tokens);
    if (b * kBlockTokens < window.outside_begin(num_tokens) ||
        end > window.outside_end(num_tokens)) {
      blocks.push_back(b);
    }
  }
  return blocks;
}

}  // namespace tessera
