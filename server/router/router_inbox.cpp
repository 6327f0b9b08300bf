#include "server/router/router_inbox.h"

#include <chrono>
#include <utility>

#include "engine/base/result.h"
#include "engine/base/text.h"

namespace tessera::router {
namespace {

/// Far more than a healthy router thread ever leaves waiting.
constexpr size_t kMaxLegEvents = 262'144;

}  // namespace

RouterInbox::RouterInbox(const RouterOptions& options)
    : max_requests_(options.max_in_flight_requests),
      max_queued_tokens_(options.max_queued_prompt_tokens),
      max_waiting_(options.max_waiting_requests) {}

Status RouterInbox::admit_locked(const GenerationRequest& request) const {
  TESSERA_RETURN_IF_ERROR(state_);
  if (live_.contains(request.id)) {
    return invalid_argument(str_cat("request ", request.id.to_string(), " is live already"));
  }
  const auto num_live = static_cast<int64_t>(live_.size());
  if (num_live >= max_requests_) {
    return resource_exhausted(
        str_cat(num_live, " requests are in flight, the limit is ", max_requests_));
  }
  if (num_waiting_ >= max_waiting_) {
    return resource_exhausted(
        str_cat(num_waiting_, " requests wait for a worker, the limit is ", max_waiting_));
  }
  // A prompt above the limit is served when it is alone.
  const auto num_tokens = static_cast<int64_t>(request.prompt_ids.size());
  if (num_queued_tokens_ > 0 && num_queued_tokens_ + num_tokens > max_queued_tokens_) {
    return resource_exhausted(str_cat(num_queued_tokens_,
                                      " prompt tokens are queued, ",
                                      num_tokens,
                                      " more exceed the limit of ",
                                      max_queued_tokens_));
  }
  return Status::ok();
}

Status RouterInbox::submit(Submission submission) {
  {
    const std::lock_guard lock(mutex_);
    Status status = admit_locked(submission.request);
    if (!status.is_ok()) {
      return status;
    }
    const auto num_tokens = static_cast<int64_t>(submission.request.prompt_ids.size());
    live_.emplace(submission.request.id, Live{num_tokens, false});
    num_queued_tokens_ += num_tokens;
    work_.submissions.push_back(std::move(submission));
    is_woken_ = true;
  }
  has_work_.notify_one();
  return Status::ok();
}

void RouterInbox::cancel(const RequestId& id) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(id);
    if (found == live_.end() || found->second.is_cancelled) {
      return;
    }
    found->second.is_cancelled = true;
    work_.cancels.push_back(id);
    is_woken_ = true;
  }
  has_work_.notify_one();
}

template <typename Event>
void RouterInbox::push(std::vector<Event>& queue, Event event) {
  bool was_woken = false;
  {
    const std::lock_guard lock(mutex_);
    if (is_shut_) {
      return;
    }
    queue.push_back(std::move(event));
    was_woken = std::exchange(is_woken_, true);
  }
  if (!was_woken) {
    has_work_.notify_one();
  }
}

void RouterInbox::post(LegEvent event) {
  push(work_.leg_events, std::move(event));
}

bool RouterInbox::try_post_token(LegId leg, const TokenEvent& event) {
  {
    const std::lock_guard lock(mutex_);
    if (work_.leg_events.size() >= kMaxLegEvents) {
      return false;
    }
  }
  push(work_.leg_events, LegEvent{leg, event});
  return true;
}

void RouterInbox::post(WorkerEvent event) {
  push(work_.worker_events, std::move(event));
}

void RouterInbox::post(AddressList addresses) {
  push(work_.addresses, std::move(addresses));
}

void RouterInbox::close(Status reason) {
  const std::lock_guard lock(mutex_);
  if (state_.is_ok()) {
    state_ = std::move(reason);
  }
}

void RouterInbox::shut() {
  const std::lock_guard lock(mutex_);
  is_shut_ = true;
  work_ = {};
}

void RouterInbox::abort_live(Status status) {
  {
    const std::lock_guard lock(mutex_);
    work_.abort = std::move(status);
    is_woken_ = true;
  }
  has_work_.notify_one();
}

void RouterInbox::wake() {
  {
    const std::lock_guard lock(mutex_);
    is_woken_ = true;
  }
  has_work_.notify_one();
}

Status RouterInbox::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

Status RouterInbox::readiness() const {
  const std::lock_guard lock(mutex_);
  TESSERA_RETURN_IF_ERROR(state_);
  return has_pair_ ? Status::ok()
                   : unavailable("no prefill worker and decode group of one layout are ready");
}

bool RouterInbox::wait_until_empty_blocking(Deadline deadline) const {
  std::unique_lock lock(mutex_);
  const auto is_empty = [this] { return live_.empty(); };
  if (deadline.is_infinite()) {
    is_empty_.wait(lock, is_empty);
    return true;
  }
  return is_empty_.wait_until(lock, deadline.at(), is_empty);
}

void RouterInbox::take_locked(Work& work) {
  work = std::exchange(work_, {});
  is_woken_ = false;
}

void RouterInbox::collect(Work& work) {
  const std::lock_guard lock(mutex_);
  take_locked(work);
}

void RouterInbox::collect_blocking(Work& work, Deadline deadline) {
  std::unique_lock lock(mutex_);
  const auto is_woken = [this] { return is_woken_; };
  if (deadline.is_infinite()) {
    has_work_.wait(lock, is_woken);
  } else {
    has_work_.wait_until(lock, deadline.at(), is_woken);
  }
  take_locked(work);
}

void RouterInbox::note_prefilled(const RequestId& id) {
  const std::lock_guard lock(mutex_);
  if (const auto found = live_.find(id); found != live_.end()) {
    num_queued_tokens_ -= std::exchange(found->second.num_queued_tokens, 0);
  }
}

void RouterInbox::note_ended(const RequestId& id) {
  const std::lock_guard lock(mutex_);
  if (const auto found = live_.find(id); found != live_.end()) {
    num_queued_tokens_ -= found->second.num_queued_tokens;
    live_.erase(found);
  }
  if (live_.empty()) {
    is_empty_.notify_all();
  }
}

void RouterInbox::note_waiting(int64_t num_requests) {
  const std::lock_guard lock(mutex_);
  num_waiting_ = num_requests;
}

void RouterInbox::note_pair(bool is_ready) {
  const std::lock_guard lock(mutex_);
  has_pair_ = is_ready;
}

}  // namespace tessera::router
