// A TokenSink that keeps what it gets and lets a test wait for the end. Any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/request/token_event.h"

namespace tessera::testing {

class CollectingSink final : public TokenSink {
 public:
  explicit CollectingSink(size_t num_choices = 1) : events_(num_choices) {}

  void on_token(const TokenEvent& event) override {
    {
      const std::lock_guard lock(mutex_);
      has_call_after_end_ |= is_done_;
      events_[static_cast<size_t>(event.choice)].push_back(event);
      ++num_events_;
      num_finished_ += event.finish_reason ? 1 : 0;
      is_done_ = is_done_ || num_finished_ == events_.size();
    }
    changed_.notify_all();
  }
  void on_error(const Status& status) override {
    {
      const std::lock_guard lock(mutex_);
      has_call_after_end_ |= is_done_;
      error_ = status;
      is_done_ = true;
    }
    changed_.notify_all();
  }

  /// False after ten seconds.
  [[nodiscard]] bool wait_until_done_blocking() {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, limit(), [this] { return is_done_; });
  }
  /// Waits for so many events; false after ten seconds.
  [[nodiscard]] bool wait_for_events_blocking(size_t num_events) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, limit(), [&] { return num_events_ >= num_events; });
  }

  [[nodiscard]] std::vector<TokenEvent> events(size_t choice = 0) const {
    const std::lock_guard lock(mutex_);
    return events_[choice];
  }
  [[nodiscard]] std::vector<int32_t> tokens(size_t choice = 0) const {
    const std::lock_guard lock(mutex_);
    std::vector<int32_t> tokens;
    for (const TokenEvent& event : events_[choice]) {
      tokens.push_back(event.token_id);
    }
    return tokens;
  }
  [[nodiscard]] std::optional<Status> error() const {
    const std::lock_guard lock(mutex_);
    return error_;
  }
  [[nodiscard]] bool has_call_after_end() const {
    const std::lock_guard lock(mutex_);
    return has_call_after_end_;
  }

 private:
  static Deadline::Clock::time_point limit() {
    return Deadline::Clock::now() + std::chrono::seconds(10);
  }

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::vector<std::vector<TokenEvent>> events_;
  size_t num_events_ = 0;
  size_t num_finished_ = 0;
  std::optional<Status> error_;
  bool is_done_ = false;
  bool has_call_after_end_ = false;
};

}  // namespace tessera::testing
