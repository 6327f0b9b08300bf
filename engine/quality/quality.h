// The quality of one decode mode: what its next-token distributions lose against exact attention,
// when a prompt was prefilled exactly and the tokens after it are decoded in the mode.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/quality/divergence.h"
#include "engine/quality/measured_model.h"
#include "engine/quality/windows.h"

namespace tessera {

/// N and M: the rows at positions N to N + M - 1 are decoded, and predict the tokens after them.
struct QualityLengths {
  int64_t prefill_tokens = 0;
  int64_t decode_tokens = 0;
  /// What a window needs: every row's own token and the last one's successor.
  [[nodiscard]] int64_t window_tokens() const noexcept {
    return prefill_tokens + decode_tokens + 1;
  }
  friend bool operator==(const QualityLengths&, const QualityLengths&) = default;
};

/// Everything measured of one mode at one pair of lengths.
struct Quality {
  QualityLengths lengths;
  /// [windows][M], in the windows' order.
  std::vector<std::vector<TokenDivergence>> divergences;
  /// [windows]: tokens of the exact model's greedy continuation that the mode decodes before its
  /// first other token, at most M. Empty when it was not asked for.
  std::vector<int64_t> agreement_lengths;
  double bytes_per_token = 0.0;        ///< cache of the rank that keeps most
  double exact_bytes_per_token = 0.0;  ///< of a rank that keeps everything
};

/// [windows][M + 1]: greedy continuation of each window's first N tokens; the first token comes
/// from the prefill, the others are decoded.
using GreedyTokens = std::vector<std::vector<int32_t>>;

/// Tokens computed so far, of all.
using QualityProgress = std::function<void(int64_t done, int64_t total)>;

/// Computes it with the exact model, as many windows side by side as that has sequences. Errors:
/// INVALID_ARGUMENT (windows or models too short). Throws DeviceError.
[[nodiscard]] Result<GreedyTokens> continue_greedily(MeasuredModel& exact,
                                                     std::span<const TextWindow> windows,
                                                     const QualityLengths& lengths,
                                                     const QualityProgress& progress);

/// What a measurement compares. References outlive the call.
struct QualityTask {
  MeasuredModel& exact;                   ///< one rank, replicated
  std::span<MeasuredModel* const> modes;  ///< of the same model; the exact one runs once for all
  std::span<const TextWindow> windows;
  QualityLengths lengths;
  const GreedyTokens* greedy = nullptr;  ///< of the same windows and lengths; null: not measured
  RankGroup& threads;                    ///< for the comparison of logits
};

/// By mode. Teacher-forced over every window: exact and modes in lockstep, step by step, so that no
/// logits are kept. Errors: INVALID_ARGUMENT (windows or models too short). Throws DeviceError.
[[nodiscard]] Result<std::vector<Quality>> measure_quality(const QualityTask& task,
                                                           const QualityProgress& progress);

}  // namespace tessera
