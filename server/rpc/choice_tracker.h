// Finds the end of a stream of tokens of several choices. Not thread-safe.
#pragma once

#include <cstdint>
#include <set>

#include "engine/request/token_event.h"

namespace tessera::rpc {

/// Of an attached key some choices may have ended with their first token, at prefill: their tokens
/// never come, so the number of choices alone does not tell the end.
class ChoiceTracker final {
 public:
  ChoiceTracker(int32_t num_choices, bool may_miss_choices)
      : num_choices_(num_choices), may_miss_choices_(may_miss_choices) {}

  void count(const TokenEvent& event) {
    if (!event.finish_reason) {
      live_choices_.insert(event.choice);
      return;
    }
    live_choices_.erase(event.choice);
    ++num_finished_;
  }
  /// Every choice has finished.
  [[nodiscard]] bool is_complete() const noexcept { return num_finished_ >= num_choices_; }
  /// Whether a stream that ends here, in order, lacks nothing.
  [[nodiscard]] bool may_end_here() const noexcept {
    return is_complete() || (may_miss_choices_ && live_choices_.empty() && num_finished_ > 0);
  }

 private:
  const int32_t num_choices_;
  const bool may_miss_choices_;
  std::set<int32_t> live_choices_;  // have begun and not finished
  int32_t num_finished_ = 0;
};

}  // namespace tessera::rpc
