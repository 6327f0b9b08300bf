#include "engine/handoff/parcel_plan.h"

#include "engine/base/text.h"

namespace tessera {
namespace {

// A leader says these, and the sender makes room for them: they must be near what is of use.
constexpr int32_t kMaxLandingSlots = 4096;
constexpr int64_t kMaxSlotPadding = int64_t{64} << 10;

int32_t image_of(const DecodeLayout& layout, int32_t rank) {
  return layout.dealing == DecodeLayout::Dealing::kImages ? rank % layout.num_images : 0;
}

}  // namespace

Status check_welcome(const Welcome& welcome, const BlockSource& source) {
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

void append_parcels(const HandoffKey& key,
                    const DecodeLayout& layout,
                    const BlockSource& source,
                    int32_t block_id,
                    int64_t block_index,
                    std::vector<Parcel>& parcels) {
  for (int32_t rank = 0; rank < layout.num_ranks; ++rank) {
    if (!is_dealt_to(layout, rank, block_index)) {
      continue;
    }
    const int32_t image = image_of(layout, rank);
    parcels.push_back({.key = key,
                       .rank = rank,
                       .block_index = static_cast<int32_t>(block_index),
                       .source = source.image_address(block_id, image),
                       .num_bytes = source.image_bytes(image)});
  }
}

}  // namespace tessera
