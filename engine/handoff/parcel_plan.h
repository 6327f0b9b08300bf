// Which images of a block travel to which decode ranks. Keeps no state.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/handoff/block_source.h"
#include "engine/handoff/messages.h"
#include "engine/transport/kv_sender.h"

namespace tessera {

/// Whether parcels cut from `source` fit what a decode group says of itself.
/// Errors: FAILED_PRECONDITION naming both sides' values.
[[nodiscard]] Status check_welcome(const Welcome& welcome, const BlockSource& source);

/// Whether rank `rank` gets (an image of) the block at `block_index` of a sequence.
[[nodiscard]] bool is_dealt_to(const DecodeLayout& layout, int32_t rank, int64_t block_index);

/// Adds the parcels of one finished block.
void append_parcels(const HandoffKey& key,
                    const DecodeLayout& layout,
                    const BlockSource& source,
                    int32_t block_id,
                    int64_t block_index,
                    std::vector<Parcel>& parcels);

}  // namespace tessera
