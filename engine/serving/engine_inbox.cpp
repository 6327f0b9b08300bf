#include "engine/serving/engine_inbox.h"

#include <utility>

#include "engine/base/text.h"

namespace tessera {

Status EngineInbox::submit(std::unique_ptr<SequenceGroup> group) {
  {
    const std::lock_guard lock(mutex_);
    if (!state_.is_ok()) {
      return state_;
    }
    if (num_queued_ >= max_queued_) {
      return resource_exhausted(str_cat("the queue is full: ", num_queued_, " requests wait"));
    }
    if (!live_.try_emplace(group->key(), false).second) {
      return invalid_argument(str_cat("request ", group->key().to_string(), " is live already"));
    }
    ++num_queued_;
    work_.submissions.push_back(std::move(group));
  }
  has_work_.notify_one();
  return Status::ok();
}

bool EngineInbox::cancel(const HandoffKey& key) {
  {
    const std::lock_guard lock(mutex_);
    const auto live = live_.find(key);
    if (live == live_.end()) {
      return false;
    }
    if (live->second) {
      return true;
    }
    live->second = true;
    work_.cancels.push_back(key);
  }
  has_work_.notify_one();
  return true;
}

void EngineInbox::close(Status reason) {
  const std::lock_guard lock(mutex_);
  if (state_.is_ok()) {
    state_ = std::move(reason);
  }
}

void EngineInbox::abort_live(Status status) {
  {
    const std::lock_guard lock(mutex_);
    work_.abort = std::move(status);
  }
  wake();
}

void EngineInbox::wake() {
  {
    const std::lock_guard lock(mutex_);
    is_woken_ = true;
  }
  has_work_.notify_one();
}

Status EngineInbox::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

bool EngineInbox::wait_until_empty_blocking(Deadline deadline) const {
  std::unique_lock lock(mutex_);
  const auto is_empty = [this] { return live_.empty() && !has_other_work_; };
  if (!deadline.is_infinite()) {
    return is_empty_.wait_until(lock, deadline.at(), is_empty);
  }
  is_empty_.wait(lock, is_empty);
  return true;
}

void EngineInbox::collect(Work& work) {
  const std::lock_guard lock(mutex_);
  take_locked(work);
}

void EngineInbox::collect_blocking(Work& work, Deadline deadline) {
  std::unique_lock lock(mutex_);
  has_work_.wait_until(lock, deadline.at(), [this] {
    return is_woken_ || work_.abort || !work_.submissions.empty() || !work_.cancels.empty();
  });
  take_locked(work);
}

void EngineInbox::take_locked(Work& work) {
  work.submissions.clear();
  work.cancels.clear();
  work.abort.reset();
  std::swap(work, work_);
  is_woken_ = false;
}

void EngineInbox::note_started() {
  const std::lock_guard lock(mutex_);
  --num_queued_;
}

bool EngineInbox::try_claim(const HandoffKey& key) {
  const std::lock_guard lock(mutex_);
  return live_.try_emplace(key, false).second;
}

void EngineInbox::note_other_work(bool has_other_work) {
  const std::lock_guard lock(mutex_);
  has_other_work_ = has_other_work;
  if (live_.empty() && !has_other_work_) {
    is_empty_.notify_all();
  }
}

void EngineInbox::note_ended(const HandoffKey& key, bool has_started) {
  const std::lock_guard lock(mutex_);
  num_queued_ -= has_started ? 0 : 1;
  const auto ended = live_.find(key);
  if (ended->second) {  // a cancel not collected yet must not hit a later request of the same key
    std::erase(work_.cancels, key);
  }
  live_.erase(ended);
  if (live_.empty() && !has_other_work_) {
    is_empty_.notify_all();
  }
}

}  // namespace tessera
