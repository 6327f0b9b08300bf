#include "engine/model/local_input.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/cache/latent_layout.h"

namespace tessera {
namespace {

// Every num_ranks-th entry of the tables, from the rank's first on.
void stripe_tables(const ModelInput& input, const Stripe& stripe, ModelInput& local) {
  const int64_t width = input.max_blocks_per_sequence;
  const int64_t local_width = (width + stripe.num_ranks - 1) / stripe.num_ranks;
  local.max_blocks_per_sequence = local_width;
  const auto num_entries = static_cast<int64_t>(input.block_tables.size());
  for (int64_t row = 0; row < num_entries; row += width) {
    for (int64_t i = 0; i < local_width; ++i) {
      const int64_t b = i * stripe.num_ranks + stripe.rank;
      const int32_t id = b < width ? input.block_tables[static_cast<size_t>(row + b)] : 0;
      local.block_tables.push_back(static_cast<int32_t>(id / stripe.num_ranks));
    }
  }
}

void check_tables(const ModelInput& input, int64_t num_ranks) {
  for (int64_t row = 0; row < input.num_decode; ++row) {
    const int64_t length = input.decode_lengths[static_cast<size_t>(row)];
    for (int64_t b = 0; b < blocks_for_tokens(length); ++b) {
      const int64_t id =
          input.block_tables[static_cast<size_t>(row * input.max_blocks_per_sequence + b)];
      TESSERA_CHECK(id % num_ranks == b % num_ranks, "a block of the wrong rank in a table");
    }
  }
}

}  // namespace

int64_t local_length(int64_t length, const Stripe& stripe) noexcept {
  const int64_t num_full = length / kBlockTokens;
  const int64_t own_full =
      num_full / stripe.num_ranks + (num_full % stripe.num_ranks > stripe.rank ? 1 : 0);
  const bool has_last = num_full % stripe.num_ranks == stripe.rank;
  return own_full * kBlockTokens + (has_last ? length % kBlockTokens : 0);
}

void make_local_input(const ModelInput& input, const Stripe& stripe, ModelInput& local) {
  check_tables(input, stripe.num_ranks);
  local.clear();
  local.token_ids = input.token_ids;
  local.positions = input.positions;
  local.num_decode = input.num_decode;
  local.chunks = input.chunks;
  local.logits_rows = input.logits_rows;
  for (const int64_t slot : input.slots) {
    const int64_t block = slot / kBlockTokens;
    const bool is_own = block % stripe.num_ranks == stripe.rank;
    local.slots.push_back(is_own ? block / stripe.num_ranks * kBlockTokens + slot % kBlockTokens
                                 : -1);
  }
  for (const int32_t length : input.decode_lengths) {
    local.decode_lengths.push_back(static_cast<int32_t>(local_length(length, stripe)));
  }
  if (input.max_blocks_per_sequence > 0) {
    stripe_tables(input, stripe, local);
  }
}

}  // namespace tessera
