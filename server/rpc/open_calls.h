// The calls of one service that are open now: bounds their number and reaches those that must be
// ended from outside. Any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/status.h"

namespace tessera::rpc {

/// A call that can be ended from outside.
class EndableCall {
 public:
  EndableCall() = default;
  virtual ~EndableCall() = default;
  EndableCall(const EndableCall&) = delete;
  EndableCall& operator=(const EndableCall&) = delete;
  virtual void end(const Status& status) = 0;
};

class OpenCalls final {
 public:
  explicit OpenCalls(size_t limit) : limit_(limit) {}

  /// Takes a place until remove(). Errors: RESOURCE_EXHAUSTED at the limit, UNAVAILABLE after
  /// end_all().
  [[nodiscard]] Status add(const std::shared_ptr<EndableCall>& call) {
    const std::lock_guard lock(mutex_);
    if (is_ended_) {
      return unavailable("the server is shutting down");
    }
    if (calls_.size() >= limit_) {
      return resource_exhausted("the service has " + std::to_string(limit_) +
                                " open calls, its limit");
    }
    calls_.emplace(call.get(), call);
    return Status::ok();
  }
  void remove(EndableCall* call) {
    const std::lock_guard lock(mutex_);
    calls_.erase(call);
  }
  /// Ends all, and refuses calls from now on.
  void end_all(const Status& status) {
    std::vector<std::shared_ptr<EndableCall>> calls;
    {
      const std::lock_guard lock(mutex_);
      is_ended_ = true;
      for (const auto& [address, call] : calls_) {
        calls.push_back(call.lock());
      }
    }
    for (const auto& call : calls) {
      if (call) {
        call->end(status);
      }
    }
  }
  /// end_all() was called.
  [[nodiscard]] bool is_ended() const {
    const std::lock_guard lock(mutex_);
    return is_ended_;
  }
  [[nodiscard]] size_t size() const {
    const std::lock_guard lock(mutex_);
    return calls_.size();
  }

 private:
  mutable std::mutex mutex_;  // guards all below
  const size_t limit_;
  std::unordered_map<EndableCall*, std::weak_ptr<EndableCall>> calls_;
  bool is_ended_ = false;
};

}  // namespace tessera::rpc
