// RouterLoop, the part that carries requests through their attempts: events of workers, failures,
// replays.
#include <algorithm>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "server/router/router_loop.h"

namespace tessera::router {
namespace {

/// Decode's tokens that overtook the first one; a healthy prefill stream is never that late.
constexpr size_t kMaxHeldTokens = 4096;

double seconds_between(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

/// The request itself is at fault, or nobody may serve it: every worker would say the same.
bool is_final(StatusCode code) {
  return code == StatusCode::kInvalidArgument || code == StatusCode::kOutOfRange ||
         code == StatusCode::kUnimplemented || code == StatusCode::kPermissionDenied ||
         code == StatusCode::kUnauthenticated;
}

ReplayReason reason_of(StatusCode code) {
  if (code == StatusCode::kUnavailable) {
    return ReplayReason::kUnavailable;
  }
  if (code == StatusCode::kAborted || code == StatusCode::kNotFound ||
      code == StatusCode::kCancelled) {
    return ReplayReason::kAborted;
  }
  return code == StatusCode::kDeadlineExceeded ? ReplayReason::kTimeout : ReplayReason::kOther;
}

void add_avoided(WorkerId worker, std::vector<WorkerId>& avoid) {
  if (worker != 0 && std::find(avoid.begin(), avoid.end(), worker) == avoid.end()) {
    avoid.push_back(worker);
  }
}

/// The next try goes elsewhere. Before commit either worker may have caused the failure; after it
/// only decode is left.
void blame_workers(bool is_busy, Part& part) {
  const Attempt& attempt = *part.attempt;
  if (is_busy) {
    part.avoid.clear();  // it may have room again by then
  }
  add_avoided(attempt.decode_worker, part.avoid);
  if (!attempt.is_committed) {
    add_avoided(attempt.prefill_worker, part.avoid);
  }
}

void note_finished(const ClientRequest& request, RouterMetrics& metrics) {
  metrics.requests_finished.add();
  metrics.requests_finished_length.add(request.is_cut_by_length ? 1 : 0);
  size_t longest = 0;
  for (const ChoiceState& choice : request.choices) {
    const size_t num_tokens = choice.token_ids.size();
    longest = std::max(longest, num_tokens);
    metrics.shapes.generation_tokens.observe(static_cast<double>(num_tokens));
    if (num_tokens > 1) {
      metrics.shapes.time_per_output_token_seconds.observe(
          seconds_between(request.first_token_at, *choice.last_token_at) /
          static_cast<double>(num_tokens - 1));
    }
  }
  metrics.shapes.longest_generation_tokens.observe(static_cast<double>(longest));
}

}  // namespace

void RouterLoop::handle(const LegEvent& event) {
  const Leg* leg = legs_.find(event.leg);
  if (leg == nullptr) {
    return;  // late: of an attempt that was given up
  }
  const LegOwner owner = leg->owner;
  const LegKind kind = leg->kind;
  ClientRequest& request = *requests_.at(owner.request);
  request.parts[owner.part].attempt->last_event_at = now_;
  if (const auto* token = std::get_if<TokenEvent>(&event.what)) {
    on_token(request, owner.part, kind, *token);
  } else if (const auto* reserved = std::get_if<Reserved>(&event.what)) {
    on_reserved(request, owner.part, reserved->address);
  } else {
    legs_.forget(event.leg);
    if (const auto* error = std::get_if<Status>(&event.what)) {
      on_error(request, owner.part, kind, *error, reason_of(error->code()));
    } else {
      on_handed_over(request, owner.part);
    }
  }
  arm(request);
}

/// A worker is gone: what it still had goes elsewhere.
void RouterLoop::give_up_legs(WorkerId worker, bool has_left) {
  const Status status = unavailable(has_left ? "the worker has left" : "the worker was lost");
  const auto reason = has_left ? ReplayReason::kUnavailable : ReplayReason::kWorkerLost;
  for (const LegId id : legs_.legs_on(worker)) {
    const Leg* leg = legs_.find(id);
    if (leg == nullptr) {
      continue;  // the other leg of a part that has just failed
    }
    const LegOwner owner = leg->owner;
    const LegKind kind = leg->kind;
    ClientRequest& request = *requests_.at(owner.request);
    legs_.cancel(id);
    on_error(request, owner.part, kind, status, reason);
    arm(request);
  }
}

void RouterLoop::on_token(ClientRequest& request,
                          size_t part_index,
                          LegKind kind,
                          const TokenEvent& event) {
  Part& part = request.parts[part_index];
  Attempt& attempt = *part.attempt;
  if (kind != LegKind::kPrefill) {
    attempt.is_committed = true;
    attempt.grace_until = TimePoint::max();
  }
  if (!deliver(request, part_index, kind, event)) {
    return;
  }
  if (kind == LegKind::kPrefill && !deliver_held(request, part_index, event.choice)) {
    return;
  }
  if (is_finished(request, part)) {
    finish_part(request, part);
  }
}

/// The first token of `choice` is here: what decode sent before it follows. False when one of those
/// broke the attempt.
bool RouterLoop::deliver_held(ClientRequest& request, size_t part_index, int32_t choice) {
  std::vector<TokenEvent>& held = request.parts[part_index].attempt->held;
  const auto first = std::stable_partition(
      held.begin(), held.end(), [choice](const auto& event) { return event.choice != choice; });
  const std::vector<TokenEvent> ready(first, held.end());
  held.erase(first, held.end());
  return std::all_of(ready.begin(), ready.end(), [&](const TokenEvent& event) {
    return deliver(request, part_index, LegKind::kAttach, event);
  });
}

/// False when the token broke the attempt.
bool RouterLoop::deliver(ClientRequest& request,
                         size_t part_index,
                         LegKind kind,
                         const TokenEvent& event) {
  Part& part = request.parts[part_index];
  TokenVerdict verdict = judge_token(request, part, kind, event);
  if (verdict == TokenVerdict::kHold && part.attempt->held.size() >= kMaxHeldTokens) {
    verdict = TokenVerdict::kFault;
  }
  switch (verdict) {
    case TokenVerdict::kForward:
      part.waiting_since.reset();
      part.num_busy = 0;
      forward(request, event);
      return true;
    case TokenVerdict::kHold:
      part.attempt->held.push_back(event);
      return true;
    case TokenVerdict::kFault:
      break;
  }
  const Status status = internal_error(
      str_cat("a worker sent token ", event.index, " of choice ", event.choice, " out of turn"));
  fail_part(request, part_index, status, ReplayReason::kBadStream);
  return false;
}

void RouterLoop::forward(ClientRequest& request, const TokenEvent& event) {
  RouterMetrics& metrics = parts_.metrics;
  ChoiceState& choice = choice_of(request, event.choice);
  if (!request.has_token) {
    request.has_token = true;
    request.first_token_at = now_;
    parts_.inbox->note_prefilled(request.generation.id);
    metrics.time_to_first_token_seconds.observe(seconds_between(request.submitted_at, now_));
  }
  if (choice.last_token_at.has_value()) {
    metrics.inter_token_seconds.observe(seconds_between(*choice.last_token_at, now_));
  }
  choice.last_token_at = now_;
  choice.token_ids.push_back(event.token_id);
  metrics.generation_tokens.add();
  if (event.finish_reason.has_value()) {
    choice.is_finished = true;
    request.is_cut_by_length |= *event.finish_reason == FinishReason::kLength;
    --request.num_open_choices;
  }
  request.sink->on_token(event);
}

/// Every choice of the part has ended. Prefill's call ends by itself, and decode's too unless no
/// choice came that far.
void RouterLoop::finish_part(ClientRequest& request, Part& part) {
  Attempt& attempt = *part.attempt;
  bool has_decoded = attempt.prefill_worker == 0;
  for (int32_t i = 0; i < part.num_choices; ++i) {
    has_decoded |= next_index(request, part.first_choice + i) > attempt.num_replayed_tokens + 1;
  }
  legs_.forget(attempt.prefill);
  if (has_decoded) {
    legs_.forget(attempt.decode);
  }
  close_legs(part);
  part.state = PartState::kOver;
  if (request.num_open_choices == 0) {
    note_finished(request, parts_.metrics);
    end(request);
  }
}

void RouterLoop::on_reserved(ClientRequest& request, size_t part, const std::string& address) {
  const Status status = dispatcher_.attach(request, part, address);
  if (!status.is_ok()) {
    fail_part(request, part, status, reason_of(status.code()));
    return;
  }
  request.parts[part].waiting_since.reset();  // somebody has room: the patience begins anew
}

void RouterLoop::on_handed_over(ClientRequest& request, size_t part_index) {
  Part& part = request.parts[part_index];
  Attempt& attempt = *part.attempt;
  attempt.prefill = 0;
  if (!has_first_tokens(request, part) || attempt.decode == 0) {
    const Status status = internal_error("a prefill worker ended without first token or decode");
    fail_part(request, part_index, status, ReplayReason::kBadStream);
    return;
  }
  attempt.is_committed = true;
}

void RouterLoop::on_error(ClientRequest& request,
                          size_t part_index,
                          LegKind kind,
                          const Status& status,
                          ReplayReason reason) {
  Part& part = request.parts[part_index];
  Attempt& attempt = *part.attempt;
  if (kind == LegKind::kPrefill) {
    attempt.prefill = 0;
    const bool is_decodes_turn = attempt.decode != 0 && has_first_tokens(request, part);
    if (is_decodes_turn) {
      // Decode may have everything it needs: it commits, or says within moments that it cannot.
      attempt.grace_until =
          attempt.is_committed ? TimePoint::max() : now_ + parts_.options.commit_grace;
      return;
    }
  } else {
    attempt.decode = 0;
  }
  fail_part(request, part_index, status, reason);
}

/// The one whose call is over; 0 when that cannot be told.
WorkerId RouterLoop::failed_worker(const Attempt& attempt) {
  if (attempt.decode == 0 && attempt.decode_worker != 0) {
    return attempt.decode_worker;
  }
  return attempt.prefill == 0 ? attempt.prefill_worker : 0;
}

/// What a worker gives up because it is told to stop says nothing against the request, and as many
/// come at once as it had: neither counted nor paced.
bool RouterLoop::was_handed_back(const Attempt& attempt, const Status& status) const {
  const WorkerId worker = failed_worker(attempt);
  return status.code() == StatusCode::kUnavailable && worker != 0 &&
         (worker == gone_while_draining_ || pool_.is_draining(worker));
}

void RouterLoop::try_start(ClientRequest& request, size_t part_index) {
  Part& part = request.parts[part_index];
  if (part.needs_retry_token && !budget_.try_take(now_)) {
    part.state = PartState::kPaused;
    part.not_before = budget_.next_at(now_);
    return;
  }
  part.needs_retry_token = false;
  switch (dispatcher_.start(request, part_index, now_)) {
    case StartOutcome::kStarted:
      part.state = PartState::kRunning;
      if (!request.is_started) {
        request.is_started = true;
        parts_.metrics.queue_seconds.observe(seconds_between(request.submitted_at, now_));
      }
      break;
    case StartOutcome::kNoWorker:
      if (part.state != PartState::kWaiting || !part.waiting_since.has_value()) {
        parts_.metrics.no_worker_waits.add();
      }
      part.state = PartState::kWaiting;
      part.waiting_since = part.waiting_since.value_or(now_);
      break;
    case StartOutcome::kRefused: {
      const Status status = part.last_error;
      fail_part(request, part_index, status, reason_of(status.code()));
      break;
    }
  }
  note_waiting(request);
}

/// Ends the attempt and decides what follows: an error for the client, a later try, or a replay.
void RouterLoop::fail_part(ClientRequest& request,
                           size_t part_index,
                           const Status& status,
                           ReplayReason reason) {
  Part& part = request.parts[part_index];
  const bool is_busy = status.code() == StatusCode::kResourceExhausted;
  blame_workers(is_busy, part);
  const bool is_handed_back = was_handed_back(*part.attempt, status);
  if (status.code() == StatusCode::kUnavailable) {
    pool_.suspect(failed_worker(*part.attempt), now_);
  }
  log_info("attempt_failed",
           "request_id",
           request.generation.id.to_string(),
           "key",
           part.attempt->key.to_string(),
           "trace_id",
           request.generation.trace.trace_id(),
           "reason",
           status.to_string());
  close_legs(part);
  part.last_error = status;
  if (request.generation.deadline.is_expired(now_)) {
    fail(request, {StatusCode::kDeadlineExceeded, "the request's deadline has passed"});
  } else if (is_final(status.code())) {
    fail(request, status);
  } else if (is_busy) {
    parts_.metrics.attempts_busy.add();
    pause(request, part_index, Setback::kBusy);
  } else if (is_handed_back) {
    parts_.metrics.replays[static_cast<size_t>(reason)].add();
    pause(request, part_index, Setback::kHandedBack);
  } else if (part.num_failures >= parts_.options.max_replays) {
    fail(request,
         unavailable(str_cat("gave up after ", part.num_failures, " replays; ", status.message())));
  } else {
    ++part.num_failures;
    parts_.metrics.replays[static_cast<size_t>(reason)].add();
    pause(request, part_index, Setback::kFailed);
  }
}

/// The choices of a failed part wait for their next try.
void RouterLoop::pause(ClientRequest& request, size_t part_index, Setback setback) {
  const bool is_busy = setback == Setback::kBusy;
  for (const size_t i : split_for_replay(request, part_index)) {
    Part& next = request.parts[i];
    next.state = PartState::kPaused;
    if (is_busy) {
      next.waiting_since = next.waiting_since.value_or(now_);
    } else {
      next.waiting_since.reset();
    }
    next.num_busy += is_busy ? 1 : 0;
    next.needs_retry_token = next.needs_retry_token || setback == Setback::kFailed;
    next.not_before = now_ + budget_.backoff(is_busy ? next.num_busy : next.num_failures);
  }
}

void RouterLoop::close_legs(Part& part) {
  if (part.attempt.has_value()) {
    legs_.cancel(part.attempt->prefill);
    legs_.cancel(part.attempt->decode);
    part.attempt.reset();
  }
}

void RouterLoop::start_waiting_parts(ClientRequest& request) {
  const size_t num_parts = request.parts.size();  // those that are added now are paused
  for (size_t i = 0; i < num_parts && !request.is_over; ++i) {
    if (request.parts[i].state == PartState::kWaiting) {
      try_start(request, i);
    }
  }
}

void RouterLoop::retry_waiting() {
  if (pool_.version() == seen_version_) {
    return;
  }
  seen_version_ = pool_.version();
  const std::vector<uint64_t> waiting(waiting_.begin(), waiting_.end());
  for (const uint64_t serial : waiting) {
    ClientRequest& request = *requests_.at(serial);
    start_waiting_parts(request);
    arm(request);
  }
}

void RouterLoop::note_waiting(const ClientRequest& request) {
  const bool is_waiting =
      std::any_of(request.parts.begin(), request.parts.end(), [](const Part& part) {
        return part.state == PartState::kWaiting;
      });
  const bool has_changed =
      is_waiting ? waiting_.insert(request.serial).second : waiting_.erase(request.serial) > 0;
  if (has_changed) {
    const auto num_waiting = static_cast<int64_t>(waiting_.size());
    parts_.metrics.num_requests_waiting.set(num_waiting);
    parts_.inbox->note_waiting(num_waiting);
  }
}

}  // namespace tessera::router
