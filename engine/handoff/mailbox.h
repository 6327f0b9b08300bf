// What other threads tell the engine thread: one queue, one lock. Posting never blocks; taking
// empties it. The waker ends the engine's wait. It is called under the lock, so that nobody calls
// it after set_waker() has replaced it; it takes no lock that is held while posting.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace tessera {

template <typename Event>
class Mailbox final {
 public:
  explicit Mailbox(size_t capacity) : capacity_(capacity) {}
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  /// The former waker is not called any more when this returns. Any thread.
  void set_waker(std::function<void()> waker) {
    const std::lock_guard lock(mutex_);
    waker_ = std::move(waker);
    if (waker_ && !events_.empty()) {
      waker_();
    }
  }
  /// False when the mailbox is full. Any thread.
  [[nodiscard]] bool try_post(Event event) { return post_up_to(capacity_, std::move(event)); }
  /// For events whose number is bounded by what the engine has started. Any thread.
  void post(Event event) { (void)post_up_to(static_cast<size_t>(-1), std::move(event)); }
  /// Moves all events into `events` (cleared first), in the order of posting. Engine thread only.
  void take(std::vector<Event>& events) {
    events.clear();
    const std::lock_guard lock(mutex_);
    std::swap(events, events_);
  }

 private:
  bool post_up_to(size_t limit, Event event) {
    const std::lock_guard lock(mutex_);
    if (events_.size() >= limit) {
      return false;
    }
    events_.push_back(std::move(event));
    if (events_.size() == 1 && waker_) {  // later ones find the engine awake, or about to take all
      waker_();
    }
    return true;
  }

  const size_t capacity_;
  std::mutex mutex_;  // guards all below
  std::function<void()> waker_;
  std::vector<Event> events_;
};

}  // namespace tessera
