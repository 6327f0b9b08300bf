// How other threads reach the engine thread. One lock covers submissions, cancels and the set of
// live requests, so that a cancel is never lost: not when the queue is full, and not when it races
// with its own submission. Everything in it is bounded by the number of live requests.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/status.h"
#include "engine/scheduler/sequence_group.h"

namespace tessera {

class EngineInbox final {
 public:
  /// What the engine thread has to do. Submissions are handled before cancels.
  struct Work {
    std::vector<std::unique_ptr<SequenceGroup>> submissions;
    std::vector<HandoffKey> cancels;
    std::optional<Status> abort;  ///< end every live request with this error
  };

  explicit EngineInbox(int64_t max_queued_requests) : max_queued_(max_queued_requests) {}
  EngineInbox(const EngineInbox&) = delete;
  EngineInbox& operator=(const EngineInbox&) = delete;

  /// Any thread; never blocks. Errors: RESOURCE_EXHAUSTED (queue full), INVALID_ARGUMENT (the key
  /// is live already), and the reason given to close().
  [[nodiscard]] Status submit(std::unique_ptr<SequenceGroup> group);
  /// Any thread; never blocks. False, and no effect, when the key is not live.
  bool cancel(const HandoffKey& key);
  /// Refuses further submissions with `reason`; the first reason stays. Any thread.
  void close(Status reason);
  /// Asks the engine thread to end every live request with `status`. Any thread.
  void abort_live(Status status);
  /// Ends a wait of the engine thread. Any thread.
  void wake();
  /// Ok while submissions are taken, else the reason given to close(). Any thread.
  [[nodiscard]] Status state() const;
  /// Waits until no request is live and no other work is noted; false at the deadline. Any thread
  /// but the engine's.
  [[nodiscard]] bool wait_until_empty_blocking(Deadline deadline) const;

  /// Moves everything into `work` (cleared first). Engine thread only.
  void collect(Work& work);
  /// Waits for work, wake() or the deadline, then collects. Engine thread only.
  void collect_blocking(Work& work, Deadline deadline);
  /// A request left the queue: it got blocks. Engine thread only.
  void note_started();
  /// A request that was not submitted here becomes live, and has started; false when its key is
  /// live already. Engine thread only.
  [[nodiscard]] bool try_claim(const HandoffKey& key);
  /// A request is over. Engine thread only.
  void note_ended(const HandoffKey& key, bool has_started);
  /// Whether there is work that belongs to no live request. Engine thread only.
  void note_other_work(bool has_other_work);

 private:
  void take_locked(Work& work);

  const int64_t max_queued_;
  mutable std::mutex mutex_;  // guards all below
  std::condition_variable has_work_;
  mutable std::condition_variable is_empty_;
  Status state_;
  Work work_;
  std::unordered_map<HandoffKey, bool, HandoffKeyHash> live_;  // to: was cancelled
  int64_t num_queued_ = 0;
  bool is_woken_ = false;
  bool has_other_work_ = false;
};

}  // namespace tessera
