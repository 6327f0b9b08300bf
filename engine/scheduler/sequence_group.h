// One request inside the engine: its parameters and its choices, which share one prefill. Plain
// data of the engine thread; kept at one address, since sequences and queues point to it.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/request/generation_request.h"
#include "engine/request/handoff_key.h"
#include "engine/request/token_event.h"
#include "engine/scheduler/sequence.h"

namespace tessera {

struct SequenceGroup {
  RequestId id;
  uint32_t attempt = 0;  ///< of the handoff key
  SamplingParams sampling;
  Deadline deadline;
  TraceContext trace;
  std::shared_ptr<TokenSink> sink;  ///< shared with the submitter, whose side it reports to
  uint64_t seed = 0;
  uint64_t arrival = 0;  ///< distinct and ascending
  /// At least one. Until the fork only the first is scheduled: it computes the prompt for all.
  std::vector<std::unique_ptr<Sequence>> choices;
  bool is_forked = false;
  bool has_started = false;        ///< was given blocks at least once
  bool is_handing_over = false;    ///< computed here; another engine is to decode it
  bool is_first_step_due = false;  ///< computed elsewhere; no step here has run it yet
  bool is_one_chunk = false;       ///< the prompt is computed in one step, without prefix hits
  bool is_cut_by_length = false;   ///< some choice ended by length
  int32_t num_finished = 0;
  int64_t num_cached_tokens = 0;  ///< prompt tokens found in the prefix cache at the first start

  /// Blocks that reach beyond so many tokens are not published to the prefix cache.
  int64_t max_published_tokens = std::numeric_limits<int64_t>::max();
  std::vector<std::string> decode_candidates;  ///< addresses of decode leaders, best first

  Deadline::Clock::time_point submitted_at;
  Deadline::Clock::time_point started_at;      ///< of the first step; zero: still queued
  Deadline::Clock::time_point first_token_at;  ///< or when it landed here
  Deadline::Clock::time_point last_token_at;
  int64_t num_later_tokens = 0;  ///< steps that gave tokens after first_token_at

  [[nodiscard]] HandoffKey key() const noexcept { return {id, attempt}; }
  [[nodiscard]] int64_t num_choices() const noexcept {
    return static_cast<int64_t>(choices.size());
  }
  /// Sequences that the group's first one counts for when it runs.
  [[nodiscard]] int64_t num_seats() const noexcept { return is_forked ? 1 : num_choices(); }
  [[nodiscard]] bool is_finished() const noexcept { return num_finished == num_choices(); }
};

/// A group with its choices, none of which has run. Draws the seed from the id if none is given.
[[nodiscard]] std::unique_ptr<SequenceGroup> make_sequence_group(GenerationRequest request,
                                                                 std::shared_ptr<TokenSink> sink);

}  // namespace tessera
