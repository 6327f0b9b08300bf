// How far one distribution of the next token is from another, token by token, from their logits.
#pragma once

#include <cstdint>
#include <span>

#include "engine/parallel/rank_group.h"

namespace tessera {

/// Of one decoded position. p is the exact distribution, q the mode's; in nats.
struct TokenDivergence {
  double kl = 0.0;         ///< sum over v of p(v) (ln p(v) - ln q(v))
  double exact_nll = 0.0;  ///< -ln p(next)
  double mode_nll = 0.0;   ///< -ln q(next)
  bool is_same_top = false;
};

/// `exact` and `mode` are logits [V]; sums in double.
[[nodiscard]] TokenDivergence compare_logits(std::span<const float> exact,
                                             std::span<const float> mode,
                                             int32_t next_id);

/// compare_logits() of each row of [rows, V], spread over the threads of `threads`. `next_ids` and
/// `out` are [rows].
void compare_rows_blocking(std::span<const float> exact,
                           std::span<const float> mode,
                           std::span<const int32_t> next_ids,
                           std::span<TokenDivergence> out,
                           RankGroup& threads);

/// Index of the largest value, the first of equals.
[[nodiscard]] int32_t top_id(std::span<const float> logits) noexcept;

}  // namespace tessera
