#include "engine/handoff/parcel_plan.h"

#include <algorithm>
#include <string>

#include "engine/base/text.h"
#include "engine/cache/latent_layout.h"
#include "engine/cache/window_cache.h"

namespace tessera {
namespace {

// A leader says these, and the sender makes room for them: they must be near what is of use.
constexpr int32_t kMaxLandingSlots = 4096;
constexpr int64_t kMaxSlotPadding = int64_t{64} << 10;

int32_t image_of(const DecodeLayout& layout, int32_t rank) {
  return layout.dealing == DecodeLayout::Dealing::kImages ? rank % layout.num_images : 0;
}

std::string window_text(const kernels::LatentWindow& window) {
  return str_cat("the first ", window.num_first, " and the last ", window.num_last, " tokens");
}

}  // namespace

Status check_welcome(const Welcome& welcome,
                     const BlockSource& source,
                     const kernels::LatentWindow& window) {
  const DecodeLayout& layout = welcome.layout;
  if (layout.num_ranks < 1 || static_cast<size_t>(layout.num_ranks) != welcome.regions.size()) {
    return failed_precondition(str_cat("the decode group has ",
                                       layout.num_ranks,
                                       " ranks and ",
                                       welcome.regions.size(),
                                       " landing regions"));
  }
  if (layout.num_images != source.num_images()) {
    return failed_precondition(str_cat("the decode group expects ",
                                       layout.num_images,
                                       " images of a block, this cache has ",
                                       source.num_images()));
  }
  if (layout.window != window) {
    return failed_precondition(str_cat("the decode group keeps ",
                                       window_text(layout.window),
                                       " of a context whole, this worker's calibration ",
                                       window_text(window)));
  }
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    const int64_t num_bytes = source.image_bytes(image_of(layout, rank));
    const LandingRegion& region = welcome.regions[static_cast<size_t>(rank)];
    const bool has_good_slots = region.num_slots >= 1 && region.num_slots <= kMaxLandingSlots;
    if (region.slot_bytes < num_bytes || region.slot_bytes > num_bytes + kMaxSlotPadding ||
        !has_good_slots) {
      return failed_precondition(str_cat("rank ",
                                         rank,
                                         " has ",
                                         region.num_slots,
                                         " landing slots of ",
                                         region.slot_bytes,
                                         " bytes, an image has ",
                                         num_bytes));
    }
  }
  return Status::ok();
}

bool is_dealt_to(const DecodeLayout& layout, int32_t rank, int64_t block_index) {
  return layout.dealing == DecodeLayout::Dealing::kImages || block_index % layout.num_ranks == rank;
}

int64_t num_other_images(const DecodeLayout& layout, int64_t num_prompt_tokens) {
  const auto num_blocks =
      static_cast<int64_t>(window_blocks(layout.window, num_prompt_tokens).size());
  return num_blocks * (layout.num_images - 1);
}

ParcelPlan::ParcelPlan(const HandoffKey& key,
                       const DecodeLayout& layout,
                       int64_t num_prompt_tokens,
                       int64_t num_held_tokens)
    : key_(key),
      layout_(layout),
      num_blocks_(blocks_for_tokens(num_prompt_tokens)),
      num_held_blocks_(num_held_tokens / kBlockTokens),
      window_blocks_(window_blocks(layout.window, num_prompt_tokens)) {}

void ParcelPlan::append(const BlockSource& source,
                        int32_t block_id,
                        int64_t block_index,
                        std::vector<Parcel>& parcels) const {
  const auto window = std::lower_bound(window_blocks_.begin(), window_blocks_.end(), block_index);
  const bool is_in_window = window != window_blocks_.end() && *window == block_index;
  const int32_t num_others = is_in_window ? layout_.num_images - 1 : 0;
  const int64_t first_other = num_blocks_ + (window - window_blocks_.begin()) * num_others;
  for (int32_t rank = 0; rank < layout_.num_ranks; ++rank) {
    const int32_t own = image_of(layout_, rank);
    if (block_index >= num_held_blocks_ && is_dealt_to(layout_, rank, block_index)) {
      parcels.push_back(parcel(source, block_id, {rank, own, block_index}));
    }
    for (int32_t other = 0; other < num_others; ++other) {
      const int32_t image = (own + 1 + other) % layout_.num_images;
      parcels.push_back(parcel(source, block_id, {rank, image, first_other + other}));
    }
  }
}

Parcel ParcelPlan::parcel(const BlockSource& source, int32_t block_id, Image image) const {
  return {.key = key_,
          .rank = image.rank,
          .block_index = static_cast<int32_t>(image.block_index),
          .source = source.image_address(block_id, image.index),
          .num_bytes = source.image_bytes(image.index)};
}

}  // namespace tessera
