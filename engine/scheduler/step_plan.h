// Which sequences the next step runs. Plain data, valid for one step. Engine thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/scheduler/sequence.h"

namespace tessera {

/// The next `num_tokens` tokens of a sequence that is not computed up to its last token yet.
struct PlannedPrefill {
  Sequence* sequence = nullptr;
  int64_t num_tokens = 0;

  /// The chunk reaches the sequence's last token, so that a token is sampled from it. True only
  /// until the step is completed.
  [[nodiscard]] bool is_last() const noexcept {
    return sequence->num_computed() + num_tokens == sequence->num_tokens();
  }
};

struct StepPlan {
  std::vector<Sequence*> decodes;  ///< each computes its last token
  std::vector<PlannedPrefill> prefills;

  [[nodiscard]] bool is_empty() const noexcept { return decodes.empty() && prefills.empty(); }
  void clear() noexcept {
    decodes.clear();
    prefills.clear();
  }
};

/// A block whose content is copied after the step and before the next one.
struct BlockCopy {
  int32_t source = 0;
  int32_t destination = 0;
};
/// Likewise the rows of a ring.
struct RingCopy {
  int64_t source = 0;
  int64_t destination = 0;
};
struct ForkCopies {
  std::vector<BlockCopy> blocks;
  std::vector<RingCopy> rings;  ///< none without an exact window
};

}  // namespace tessera
