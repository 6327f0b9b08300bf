// The server under load, behind whichever protocol: a target makes exchanges, each one request and
// its answer. One lane's thread uses a target and its exchanges; see lane.h.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/result.h"
#include "server/bench/request_record.h"
#include "server/bench/workload.h"

namespace tessera::bench {

/// One request and its answer.
class Exchange {
 public:
  Exchange() = default;
  virtual ~Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  /// Sends, and has `on_done` called once from the lane's loop, never from within start(). Until
  /// then the record belongs to the exchange; its `sent` is set here, `done` and `outcome` at the
  /// end. Called at most once.
  virtual void start(std::function<void()> on_done) = 0;
  /// Ends an exchange that is under way, with this outcome; on_done still follows.
  virtual void stop(Outcome outcome) = 0;

  [[nodiscard]] RequestRecord& record() noexcept { return record_; }

  /// The exchange ends itself as cancelled after so many events with text; 0: it does not.
  void cancel_after(int64_t num_events) noexcept { cancel_after_ = num_events; }
  /// Where the lane keeps it.
  size_t place = 0;

 protected:
  [[nodiscard]] bool is_to_be_cancelled() const noexcept {
    return cancel_after_ > 0 && record_.num_content_events >= cancel_after_;
  }

 private:
  RequestRecord record_;
  int64_t cancel_after_ = 0;
};

class Target {
 public:
  Target() = default;
  virtual ~Target() = default;
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  /// The run's `index`-th request, ready to be sent: what costs time is done here, before it is
  /// due.
  [[nodiscard]] virtual std::shared_ptr<Exchange> prepare(const Prompt& prompt, int64_t index) = 0;

  /// Every kLagProbePeriod: where answers are received on another thread than the lane's, that one
  /// measures how late it is.
  virtual void probe_receiver() = 0;
  /// Ends such a thread, once no exchange is open. How late it was, in milliseconds; empty where
  /// the lane's own loop receives. Errors: DEADLINE_EXCEEDED when exchanges were open at the
  /// deadline; they are stopped as unfinished then.
  [[nodiscard]] virtual Result<std::vector<float>> end_receiver_blocking(
      const Deadline& deadline) = 0;
};

}  // namespace tessera::bench
