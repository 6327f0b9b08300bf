#include "engine/handoff/decode_admission.h"

#include <algorithm>

#include "engine/base/result.h"
#include "engine/base/text.h"
#include "engine/cache/latent_layout.h"
#include "engine/scheduler/sequence_group.h"
#include "engine/scheduler/stop_criteria.h"

namespace tessera {

int64_t RoomNeeded::num_prompt_blocks() const noexcept {
  return blocks_for_tokens(num_prompt_tokens);
}

int64_t RoomNeeded::num_copies() const noexcept {
  return num_prompt_tokens % kBlockTokens == 0 ? 0 : num_choices - 1;
}

int64_t RoomNeeded::num_growth_blocks(int64_t growth_blocks) const noexcept {
  // The last generated token is never computed.
  const int64_t num_left = blocks_for_tokens(max_total_tokens - 1) - num_prompt_blocks();
  return num_choices * std::clamp<int64_t>(num_left, 0, growth_blocks);
}

Status check_room(const RoomNeeded& room, const DecodeSideOptions& options, int64_t num_blocks) {
  if (room.num_prompt_tokens < 1 || room.max_total_tokens <= room.num_prompt_tokens ||
      room.max_total_tokens > options.max_model_len) {
    return invalid_argument(str_cat("a prompt of ",
                                    room.num_prompt_tokens,
                                    " tokens and at most ",
                                    room.max_total_tokens,
                                    " in all, with max_model_len ",
                                    options.max_model_len));
  }
  if (room.num_choices < 1 || room.num_choices > options.max_num_seqs) {
    return invalid_argument(
        str_cat("n is ", room.num_choices, ", expected 1 to ", options.max_num_seqs));
  }
  const int64_t num_alone = blocks_for_tokens(room.max_total_tokens - 1);
  const int64_t num_at_once = room.num_prompt_blocks() + room.num_landing_blocks +
                              room.num_copies() + room.num_growth_blocks(options.growth_blocks);
  const int64_t num_needed = std::max(num_alone, num_at_once);
  if (num_needed > num_blocks) {
    return invalid_argument(str_cat("the request needs ",
                                    num_needed,
                                    " cache blocks of ",
                                    kBlockTokens,
                                    " tokens, the decode group has ",
                                    num_blocks));
  }
  return Status::ok();
}

int64_t expected_growth(std::span<Sequence* const> running, const DecodeSideOptions& options) {
  const StopCriteria stop({}, options.max_model_len);
  int64_t num_blocks = 0;
  for (const Sequence* sequence : running) {
    const int64_t max_total =
        stop.max_total_tokens(sequence->group().sampling, sequence->num_prompt_tokens());
    const int64_t num_left = blocks_for_tokens(max_total - 1) - sequence->table().num_blocks();
    num_blocks += std::clamp<int64_t>(num_left, 0, options.growth_blocks);
  }
  return num_blocks;
}

bool fits_now(const RoomNeeded& room,
              int64_t num_held_blocks,
              int64_t num_promised,
              const DecodeSideOptions& options,
              const BlockAllocator& allocator) {
  const int64_t num_new = room.num_prompt_blocks() + room.num_landing_blocks - num_held_blocks;
  const int64_t num_needed =
      num_new + room.num_copies() + room.num_growth_blocks(options.growth_blocks);
  return num_needed + num_promised <= allocator.num_free() &&
         allocator.can_allocate(num_held_blocks, num_new);
}

}  // namespace tessera
