// The pieces of a text that a measurement runs over: chosen by the text's length alone, so that
// every mode and every run sees the same ones.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/base/result.h"

namespace tessera {

/// Token ids of one piece, BOS in front where the model wants it.
using TextWindow = std::vector<int32_t>;

/// `count` windows of `length` tokens (BOS counted) that begin at i * (tokens / count), so at the
/// same places for every length. `ids` is the text without special tokens. Errors:
/// INVALID_ARGUMENT when windows would overlap.
[[nodiscard]] Result<std::vector<TextWindow>> choose_windows(std::span<const int32_t> ids,
                                                             std::optional<int32_t> bos_id,
                                                             int64_t count,
                                                             int64_t length);

}  // namespace tessera
