// The exchanges of one target that are under way on a thread other than the lane's: keeps them
// alive, and says when there are none.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/deadline.h"
#include "server/bench/target.h"

namespace tessera::bench {

/// Any thread.
class OpenExchanges final {
 public:
  void add(std::shared_ptr<Exchange> exchange) {
    const std::lock_guard lock(mutex_);
    Exchange* const key = exchange.get();
    exchanges_.emplace(key, std::move(exchange));
  }
  void remove(Exchange& exchange) {
    std::shared_ptr<Exchange> last;  // dies after the lock
    const std::lock_guard lock(mutex_);
    if (const auto found = exchanges_.find(&exchange); found != exchanges_.end()) {
      last = std::move(found->second);
      exchanges_.erase(found);
    }
    changed_.notify_all();
  }
  /// Ends all with `outcome`: each is removed when it has ended. How many there were.
  size_t stop_all(Outcome outcome) {
    std::vector<std::shared_ptr<Exchange>> open;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [key, exchange] : exchanges_) {
        open.push_back(exchange);
      }
    }
    for (const auto& exchange : open) {
      exchange->stop(outcome);
    }
    return open.size();
  }
  /// False at the deadline.
  [[nodiscard]] bool wait_until_none_blocking(const Deadline& deadline) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, deadline.at(), [this] { return exchanges_.empty(); });
  }

 private:
  std::mutex mutex_;  // guards exchanges_
  std::condition_variable changed_;
  std::unordered_map<Exchange*, std::shared_ptr<Exchange>> exchanges_;
};

}  // namespace tessera::bench
