// May a decode group promise room for one more request? Pure arithmetic over the allocator and what
// runs; keeps no state. Engine thread only.
#pragma once

#include <cstdint>
#include <span>

#include "engine/cache/block_allocator.h"
#include "engine/handoff/handoff_options.h"
#include "engine/scheduler/sequence.h"

namespace tessera {

/// Room that one reservation takes.
struct RoomNeeded {
  int64_t num_prompt_tokens = 0;
  int64_t max_total_tokens = 0;  ///< of one choice
  int64_t num_choices = 1;
  int64_t num_landing_blocks = 0;  ///< free again when the request is committed

  /// Blocks of the prompt, shared by all choices.
  [[nodiscard]] int64_t num_prompt_blocks() const noexcept;
  /// Copies of a partial last block: one for each choice but one.
  [[nodiscard]] int64_t num_copies() const noexcept;
  /// Blocks that the choices are given room to grow by.
  [[nodiscard]] int64_t num_growth_blocks(int64_t growth_blocks) const noexcept;
};

/// Whether the request can ever run to its end here.
/// Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED naming both sides' values.
[[nodiscard]] Status check_room(const RoomNeeded& room,
                                const DecodeSideOptions& options,
                                int64_t num_blocks);

/// Blocks by which running sequences are expected to grow.
[[nodiscard]] int64_t expected_growth(std::span<Sequence* const> running,
                                      const DecodeSideOptions& options);

/// Whether it fits now: `num_held_blocks` leading blocks are pinned already, `num_promised` free
/// blocks are kept for the growth of what runs and what is reserved.
[[nodiscard]] bool fits_now(const RoomNeeded& room,
                            int64_t num_held_blocks,
                            int64_t num_promised,
                            const DecodeSideOptions& options,
                            const BlockAllocator& allocator);

}  // namespace tessera
