// What the router thread does: carries every request through its attempts. Each turn takes what the
// inbox holds, then what the clock says. Needs no thread of its own: tests drive it with their
// time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/router/dispatcher.h"
#include "server/router/leg_table.h"
#include "server/router/request_state.h"
#include "server/router/retry_budget.h"
#include "server/router/router_inbox.h"
#include "server/router/router_metrics.h"
#include "server/router/router_options.h"
#include "server/router/worker_pool.h"

namespace tessera::router {

/// Router thread only. Calls sinks and workers, never with a lock held.
class RouterLoop final {
 public:
  /// All outlive the loop.
  struct Parts {
    const RouterOptions& options;
    WorkerConnector& connector;
    std::shared_ptr<RouterInbox> inbox;
    RouterMetrics& metrics;
    ClusterBoard& board;
  };
  explicit RouterLoop(const Parts& parts);

  /// Handles `work` and what is due at `now`, which never goes back.
  void turn(RouterInbox::Work& work, TimePoint now);
  /// When the next turn is needed even without work.
  [[nodiscard]] TimePoint next_due_at() const;
  /// Ends every request with `status`.
  void fail_all(const Status& status);

  [[nodiscard]] const WorkerPool& pool() const noexcept { return pool_; }
  [[nodiscard]] size_t num_open_legs() const noexcept { return legs_.size(); }

 private:
  void accept(Submission submission);
  void cancel(const RequestId& id);
  void end(ClientRequest& request);
  void fail(ClientRequest& request, const Status& status);
  void purge();

  void handle(const LegEvent& event);
  void give_up_legs(WorkerId worker, bool has_left);
  void on_token(ClientRequest& request, size_t part, LegKind kind, const TokenEvent& event);
  void on_reserved(ClientRequest& request, size_t part, const std::string& address);
  void on_handed_over(ClientRequest& request, size_t part);
  void on_error(
      ClientRequest& request, size_t part, LegKind kind, const Status& status, ReplayReason reason);
  [[nodiscard]] bool deliver(ClientRequest& request,
                             size_t part,
                             LegKind kind,
                             const TokenEvent& event);
  [[nodiscard]] bool deliver_held(ClientRequest& request, size_t part, int32_t choice);
  void forward(ClientRequest& request, const TokenEvent& event);
  void finish_part(ClientRequest& request, Part& part);

  void try_start(ClientRequest& request, size_t part);
  void fail_part(ClientRequest& request, size_t part, const Status& status, ReplayReason reason);
  [[nodiscard]] static WorkerId failed_worker(const Attempt& attempt);
  [[nodiscard]] bool was_handed_back(const Attempt& attempt, const Status& status) const;
  /// Why a part has to be tried again.
  enum class Setback : uint8_t {
    kBusy,        ///< full workers: later
    kHandedBack,  ///< by a worker that drains: elsewhere
    kFailed,      ///< counted, and paced by the budget
  };
  void pause(ClientRequest& request, size_t part, Setback setback);
  void close_legs(Part& part);
  void retry_waiting();
  void start_waiting_parts(ClientRequest& request);
  void note_waiting(const ClientRequest& request);

  void arm(ClientRequest& request);
  [[nodiscard]] TimePoint due_at(const ClientRequest& request) const;
  [[nodiscard]] TimePoint part_due_at(const Part& part) const;
  [[nodiscard]] TimePoint stall_at(const Attempt& attempt) const;
  void run_timers();
  void on_timer(ClientRequest& request);
  void on_part_timer(ClientRequest& request, size_t part);

  const Parts parts_;
  WorkerPool pool_;
  LegTable legs_;
  Dispatcher dispatcher_;
  RetryBudget budget_;
  TimePoint now_;
  std::map<uint64_t, std::unique_ptr<ClientRequest>> requests_;  // by serial: in order of arrival
  std::unordered_map<RequestId, uint64_t, RequestIdHash> serials_;
  std::set<uint64_t> waiting_;  // requests with a part that waits for a worker
  std::set<std::pair<TimePoint, uint64_t>> timers_;
  std::vector<uint64_t> over_;        // ended in this turn
  WorkerId gone_while_draining_ = 0;  // whom give_up_legs() is about, if it drained
  uint64_t last_serial_ = 0;
  uint64_t seen_version_ = 0;  // of the pool
};

}  // namespace tessera::router
