// Which images of a block travel to which decode ranks, and where they land: what both sides derive
// from the decode layout alone. Keeps no state.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/handoff/block_source.h"
#include "engine/handoff/messages.h"
#include "engine/transport/kv_sender.h"

namespace tessera {

/// Whether parcels cut from `source` fit what a decode group says of itself. `window` is the
/// prefill worker's own. Errors: FAILED_PRECONDITION naming both sides' values.
[[nodiscard]] Status check_welcome(const Welcome& welcome,
                                   const BlockSource& source,
                                   const kernels::LatentWindow& window);

/// Whether rank `rank` gets (an image of) the block at `block_index` of a sequence.
[[nodiscard]] bool is_dealt_to(const DecodeLayout& layout, int32_t rank, int64_t block_index);

/// Images that each rank gets of a prompt besides its own ones: of each block that holds tokens of
/// the exact window (window_blocks()) those of the other slices, (slice + 1 + o) mod num_images for
/// o = 0, 1, ... As parcels they have the block indices behind the prompt's last block, in this
/// order; they come whether decode holds the block or not.
[[nodiscard]] int64_t num_other_images(const DecodeLayout& layout, int64_t num_prompt_tokens);

/// The parcels of one prompt.
class ParcelPlan final {
 public:
  ParcelPlan() = default;
  /// The first `num_held_tokens` of the `num_prompt_tokens`, whole blocks, are at decode already.
  ParcelPlan(const HandoffKey& key,
             const DecodeLayout& layout,
             int64_t num_prompt_tokens,
             int64_t num_held_tokens);

  /// Adds those of the finished block `block_id`, at `block_index` of the prompt.
  void append(const BlockSource& source,
              int32_t block_id,
              int64_t block_index,
              std::vector<Parcel>& parcels) const;

 private:
  struct Image {
    int32_t rank = 0;
    int32_t index = 0;  // of the block's images
    int64_t block_index = 0;
  };
  [[nodiscard]] Parcel parcel(const BlockSource& source, int32_t block_id, Image image) const;

  HandoffKey key_;
  DecodeLayout layout_;
  int64_t num_blocks_ = 0;
  int64_t num_held_blocks_ = 0;
  std::vector<int64_t> window_blocks_;
};

}  // namespace tessera
