#include "server/router/router_loop.h"

#include <algorithm>

#include "engine/base/log.h"
#include "engine/base/text.h"

namespace tessera::router {
namespace {

double seconds_between(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

void note_shape(const GenerationRequest& generation, RequestShapeMetrics& shapes) {
  shapes.prompt_tokens.observe(static_cast<double>(generation.prompt_ids.size()));
  shapes.num_choices.observe(static_cast<double>(generation.num_choices));
  shapes.max_tokens.observe(static_cast<double>(generation.sampling.max_tokens));
}

}  // namespace

RouterLoop::RouterLoop(const Parts& parts)
    : parts_(parts),
      pool_({parts.options, parts.connector, parts.inbox, parts.metrics, parts.board}),
      legs_(pool_, parts.inbox),
      dispatcher_({parts.options, pool_, legs_, parts.metrics}),
      budget_(parts.options) {}

void RouterLoop::turn(RouterInbox::Work& work, TimePoint now) {
  now_ = now;
  for (const AddressList& list : work.addresses) {
    pool_.set_addresses(list, now_);
  }
  for (Submission& submission : work.submissions) {
    accept(std::move(submission));
  }
  for (const LegEvent& event : work.leg_events) {
    handle(event);
  }
  for (const WorkerEvent& event : work.worker_events) {
    const auto* const gone = std::get_if<Status>(&event.what);
    const bool has_left = gone != nullptr && gone->is_ok();  // its last load may have come too late
    const bool was_draining = has_left || pool_.is_draining(event.worker);
    if (pool_.handle(event, now_)) {
      gone_while_draining_ = was_draining ? event.worker : 0;
      give_up_legs(event.worker, has_left);
      gone_while_draining_ = 0;
    }
  }
  for (const RequestId& id : work.cancels) {
    cancel(id);
  }
  if (work.abort.has_value()) {
    fail_all(*work.abort);
  }
  pool_.tick(now_);
  retry_waiting();
  run_timers();
  purge();
}

TimePoint RouterLoop::next_due_at() const {
  const TimePoint timer = timers_.empty() ? TimePoint::max() : timers_.begin()->first;
  return std::min(timer, pool_.next_tick_at());
}

void RouterLoop::fail_all(const Status& status) {
  for (const auto& [serial, request] : requests_) {
    if (!request->is_over) {
      fail(*request, status);
    }
  }
  purge();
}

void RouterLoop::accept(Submission submission) {
  const uint64_t serial = ++last_serial_;
  auto owned = make_client_request(std::move(submission), serial, now_);
  ClientRequest& request = *owned;
  requests_.emplace(serial, std::move(owned));
  serials_[request.generation.id] = serial;
  parts_.metrics.requests.add();
  note_shape(request.generation, parts_.metrics.shapes);
  parts_.metrics.num_requests_in_flight.set(static_cast<int64_t>(requests_.size()));
  budget_.note_request();
  try_start(request, 0);
  arm(request);
}

void RouterLoop::cancel(const RequestId& id) {
  const auto found = serials_.find(id);
  if (found == serials_.end()) {
    return;
  }
  ClientRequest& request = *requests_.at(found->second);
  if (!request.is_over) {
    parts_.metrics.requests_cancelled.add();
    end(request);
  }
}

void RouterLoop::fail(ClientRequest& request, const Status& status) {
  parts_.metrics.requests_failed.add();
  end(request);
  request.sink->on_error(status);
}

/// Closes what is open; the caller tells the client.
void RouterLoop::end(ClientRequest& request) {
  for (Part& part : request.parts) {
    close_legs(part);
    part.state = PartState::kOver;
  }
  request.is_over = true;
  note_waiting(request);
  const double seconds = seconds_between(request.submitted_at, now_);
  parts_.metrics.request_seconds.observe(seconds);
  log_debug("request_ended",
            "request_id",
            request.generation.id.to_string(),
            "trace_id",
            request.generation.trace.trace_id(),
            "parts",
            request.parts.size(),
            "open_choices",
            request.num_open_choices,
            "seconds",
            seconds);
  over_.push_back(request.serial);
}

void RouterLoop::purge() {
  std::vector<RequestId> ended;
  for (const uint64_t serial : over_) {
    const auto found = requests_.find(serial);
    const ClientRequest& request = *found->second;
    if (request.timer_at.has_value()) {
      timers_.erase({*request.timer_at, serial});
    }
    ended.push_back(request.generation.id);
    serials_.erase(request.generation.id);
    requests_.erase(found);
  }
  over_.clear();
  parts_.metrics.num_requests_in_flight.set(static_cast<int64_t>(requests_.size()));
  for (const RequestId& id : ended) {
    parts_.inbox->note_ended(id);  // last: whoever drains may look at the metrics now
  }
}

// --- timers -----------------------------------------------------------------

void RouterLoop::arm(ClientRequest& request) {
  const TimePoint due = due_at(request);
  const bool is_armed = request.timer_at.has_value() && *request.timer_at <= due;
  if (request.is_over || is_armed) {
    return;  // a timer that comes too early looks again
  }
  if (request.timer_at.has_value()) {
    timers_.erase({*request.timer_at, request.serial});
  }
  request.timer_at = due;
  timers_.insert({due, request.serial});
}

TimePoint RouterLoop::due_at(const ClientRequest& request) const {
  TimePoint due = request.generation.deadline.at();
  for (const Part& part : request.parts) {
    due = std::min(due, part_due_at(part));
  }
  return due;
}

TimePoint RouterLoop::part_due_at(const Part& part) const {
  const TimePoint patience = part.waiting_since.has_value()
                                 ? *part.waiting_since + parts_.options.worker_wait
                                 : TimePoint::max();
  switch (part.state) {
    case PartState::kPaused:
      return std::min(part.not_before, patience);
    case PartState::kWaiting:
      return patience;
    case PartState::kRunning:
      return stall_at(*part.attempt);
    case PartState::kOver:
      break;
  }
  return TimePoint::max();
}

TimePoint RouterLoop::stall_at(const Attempt& attempt) const {
  const auto limit =
      attempt.is_committed ? parts_.options.decode_stall : parts_.options.prefill_stall;
  return std::min(attempt.grace_until, attempt.last_event_at + limit);
}

void RouterLoop::run_timers() {
  while (!timers_.empty() && timers_.begin()->first <= now_) {
    ClientRequest& request = *requests_.at(timers_.begin()->second);
    timers_.erase(timers_.begin());
    request.timer_at.reset();
    if (!request.is_over) {
      on_timer(request);
      arm(request);
    }
  }
}

void RouterLoop::on_timer(ClientRequest& request) {
  if (request.generation.deadline.is_expired(now_)) {
    fail(request, {StatusCode::kDeadlineExceeded, "the request's deadline has passed"});
    return;
  }
  const size_t num_parts = request.parts.size();  // those that are added now are paused
  for (size_t i = 0; i < num_parts && !request.is_over; ++i) {
    if (part_due_at(request.parts[i]) <= now_) {
      on_part_timer(request, i);
    }
  }
}

void RouterLoop::on_part_timer(ClientRequest& request, size_t part_index) {
  Part& part = request.parts[part_index];
  if (part.state == PartState::kRunning) {
    const Status status(StatusCode::kDeadlineExceeded, "a worker has been silent for too long");
    fail_part(request, part_index, status, ReplayReason::kTimeout);
    return;
  }
  const bool is_patient =
      !part.waiting_since.has_value() || *part.waiting_since + parts_.options.worker_wait > now_;
  if (!is_patient) {
    const std::string last = part.last_error.is_ok() ? "" : "; " + part.last_error.message();
    const std::string text = "no worker could take the request in time" + last;
    const bool are_full = part.last_error.code() == StatusCode::kResourceExhausted;
    fail(request, are_full ? resource_exhausted(text) : unavailable(text));
    return;
  }
  try_start(request, part_index);
}

}  // namespace tessera::router
