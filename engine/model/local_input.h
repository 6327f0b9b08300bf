// The part of a step that one rank of a token-striped (dcp) group sees. Block b of a sequence lives
// on rank b mod N; a logical block id x, with x mod N = b mod N, is block x div N of that rank.
#pragma once

#include <cstdint>

#include "engine/model/model_input.h"

namespace tessera {

/// Which rank of how many.
struct Stripe {
  int64_t rank = 0;
  int64_t num_ranks = 1;
};

/// Tokens among the first `length` of a sequence whose blocks are this rank's.
[[nodiscard]] int64_t local_length(int64_t length, const Stripe& stripe) noexcept;

/// Writes to `local` what `input` is to this rank: the same tokens and chunks, slots of its own
/// blocks (-1 for the others), tables of its blocks, the lengths of its tokens (0 is possible).
/// `local` keeps its capacity. A table that breaks id mod N = b mod N is a bug: TESSERA_CHECK.
void make_local_input(const ModelInput& input, const Stripe& stripe, ModelInput& local);

}  // namespace tessera
