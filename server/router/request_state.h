// What a router knows about one client request: its choices, the parts that produce them, and the
// rules for the tokens that workers send. Data and pure functions; router thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/request/generation_request.h"
#include "engine/request/handoff_key.h"
#include "engine/request/token_event.h"
#include "server/router/leg_table.h"
#include "server/router/prefix_record.h"
#include "server/router/router_inbox.h"

namespace tessera::router {

using TimePoint = Deadline::Clock::time_point;

/// One choice as the client has it.
struct ChoiceState {
  std::vector<int32_t> token_ids;  ///< sent to the client, of all attempts
  bool is_finished = false;
  std::optional<TimePoint> last_token_at;
};

/// One try of a part.
struct Attempt {
  HandoffKey key;
  WorkerId prefill_worker = 0;         ///< 0: decode prefills itself
  WorkerId decode_worker = 0;          ///< 0: none attached yet
  std::vector<WorkerId> candidates;    ///< decode groups offered to prefill
  std::vector<std::string> addresses;  ///< theirs, in the same order
  LegId prefill = 0;                   ///< 0: over
  LegId decode = 0;                    ///< attached or local; 0: none yet, or over
  int64_t num_replayed_tokens = 0;     ///< index of the first token that this attempt gives
  bool is_committed = false;           ///< decode has the sequences: prefill no longer matters
  std::vector<TokenEvent> held;        ///< of decode, until prefill's first token is here
  TimePoint last_event_at;
  TimePoint grace_until = TimePoint::max();  ///< prefill failed last; decode may have committed
};

enum class PartState : uint8_t {
  kPaused,   ///< until not_before
  kWaiting,  ///< for a ready worker
  kRunning,
  kOver,
};

/// Choices that are tried together: all of them at first; one by one once some have tokens.
struct Part {
  RequestId id;
  int32_t first_choice = 0;
  int32_t num_choices = 1;
  PartState state = PartState::kWaiting;
  uint32_t num_attempts = 0;
  int32_t num_failures = 0;        ///< that counted; busy workers do not
  int32_t num_busy = 0;            ///< in a row
  bool needs_retry_token = false;  ///< a replay that has not been paid for
  TimePoint not_before = TimePoint::min();
  std::optional<TimePoint> waiting_since;
  std::vector<WorkerId> avoid;
  Status last_error;
  std::optional<Attempt> attempt;  ///< while running
};

struct ClientRequest {
  uint64_t serial = 0;
  GenerationRequest generation;  ///< with a seed
  std::vector<BlockHash> chain;
  std::shared_ptr<TokenSink> sink;  // shared with the caller
  std::vector<ChoiceState> choices;
  std::deque<Part> parts;  ///< grows only: indexes and references stay
  int32_t num_open_choices = 0;
  TimePoint submitted_at;
  bool is_started = false;  ///< a worker took an attempt
  bool has_token = false;   ///< of any choice
  bool is_cut_by_length = false;
  TimePoint first_token_at;
  std::optional<TimePoint> timer_at;
  bool is_over = false;
};

[[nodiscard]] std::unique_ptr<ClientRequest> make_client_request(Submission submission,
                                                                 uint64_t serial,
                                                                 TimePoint now);

/// `number` as events carry it; it must be one of the request's.
[[nodiscard]] ChoiceState& choice_of(ClientRequest& request, int32_t number);
/// The index that the client expects next.
[[nodiscard]] int64_t next_index(const ClientRequest& request, int32_t choice);
[[nodiscard]] bool is_finished(ClientRequest& request, const Part& part);
/// Each choice of `part` has ended or got a token in this attempt.
[[nodiscard]] bool has_first_tokens(ClientRequest& request, const Part& part);

/// What workers are asked for: the prompt with what was streamed already.
[[nodiscard]] GenerationRequest make_generation(ClientRequest& request, const Part& part);
[[nodiscard]] AttachRequest make_attach(const ClientRequest& request, const Part& part);

enum class TokenVerdict : uint8_t {
  kForward,
  kHold,   ///< overtook the first token
  kFault,  ///< a gap, a repeat, or a choice that is not this part's
};
[[nodiscard]] TokenVerdict judge_token(ClientRequest& request,
                                       const Part& part,
                                       LegKind kind,
                                       const TokenEvent& event);

/// The parts that continue a failed one: itself, when it has one open choice or none of its choices
/// has a token; else one for each open choice, and `part` is over. Returns their indexes.
[[nodiscard]] std::vector<size_t> split_for_replay(ClientRequest& request, size_t part);

}  // namespace tessera::router
