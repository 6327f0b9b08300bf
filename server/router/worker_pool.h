// The workers that this router knows: connects to every listed address, again and again while it
// fails, and tells which of them may be chosen.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/deadline.h"
#include "server/router/cluster_board.h"
#include "server/router/router_inbox.h"
#include "server/router/router_metrics.h"
#include "server/router/router_options.h"
#include "server/router/routing_policy.h"
#include "server/router/worker_connector.h"

namespace tessera::router {

/// Router thread only.
class WorkerPool final {
 public:
  using TimePoint = Deadline::Clock::time_point;

  /// All outlive the pool; connections write to `inbox`.
  struct Parts {
    const RouterOptions& options;
    WorkerConnector& connector;
    std::shared_ptr<RouterInbox> inbox;
    RouterMetrics& metrics;
    ClusterBoard& board;
  };
  explicit WorkerPool(Parts parts) : parts_(std::move(parts)) {}

  /// New addresses are connected; those that are gone get no further request, and are dropped when
  /// they have no call left.
  void set_addresses(const AddressList& list, TimePoint now);
  /// Returns true when the worker has left or was lost: calls on it should be given up.
  [[nodiscard]] bool handle(const WorkerEvent& event, TimePoint now);
  /// A call on `worker` failed as calls on a dead worker do: it is not chosen until its next load
  /// report or for a moment, so that a request does not spend its replays on it.
  void suspect(WorkerId worker, TimePoint now);
  /// Connects again to workers that are gone and whose time has come, and ends suspicions.
  void tick(TimePoint now);
  /// When tick() has something to do; the clock's end for never.
  [[nodiscard]] TimePoint next_tick_at() const;

  /// The ready workers of a role that are not under suspicion.
  [[nodiscard]] std::vector<WorkerView> ready(WorkerRole role) const;
  /// A prefill worker and a decode group of one layout are ready.
  [[nodiscard]] bool has_pair() const;
  /// Grows whenever a waiting request may find a worker that it did not find before.
  [[nodiscard]] uint64_t version() const noexcept { return version_; }
  [[nodiscard]] std::optional<WorkerState> state_of(WorkerRole role,
                                                    const std::string& address) const;

  /// It takes nothing new, and may give up what it has.
  [[nodiscard]] bool is_draining(WorkerId worker) const;
  /// Null when `worker` is no longer connected.
  [[nodiscard]] std::shared_ptr<WorkerConnection> connection(WorkerId worker) const;
  /// "" when `worker` is no longer connected.
  [[nodiscard]] std::string address(WorkerId worker) const;
  /// A call was opened on `worker`; pairs with note_closed().
  void note_opened(WorkerId worker, int64_t num_tokens);
  void note_closed(WorkerId worker);

 private:
  using Key = std::pair<WorkerRole, std::string>;
  struct Worker {
    WorkerState state = WorkerState::kConnecting;
    WorkerId id = 0;  // of this connection
    std::shared_ptr<WorkerConnection> connection;
    std::optional<WorkerInfo> info;
    std::optional<WorkerLoad> load;
    int64_t num_placed_requests = 0;  // since load
    int64_t num_placed_tokens = 0;
    int64_t num_open_calls = 0;
    int32_t num_failures = 0;  // to connect, in a row
    TimePoint reconnect_at = TimePoint::max();
    TimePoint suspect_until = TimePoint::max();  // max: not under suspicion
    bool is_listed = true;
  };

  void connect(const Key& key, Worker& worker);
  void take_info(const Key& key, Worker& worker, const WorkerInfo& info);
  void take_load(Worker& worker, const WorkerLoad& load);
  void end(const Key& key, Worker& worker, const Status& reason, TimePoint now);
  void update_state(Worker& worker);
  void clear_suspicion(Worker& worker);
  void drop_unlisted();
  void publish();
  /// Of a prefill worker and a decode group that are ready, where none fit together; else empty.
  [[nodiscard]] std::string unpaired_layouts() const;
  void show();
  [[nodiscard]] Status check_model(const WorkerInfo& info) const;
  [[nodiscard]] const Worker* find(WorkerId id) const;

  const Parts parts_;
  std::map<Key, Worker> workers_;
  std::string unpaired_layouts_;  // as last logged
  std::map<WorkerId, Key> keys_;  // of those with a connection
  WorkerId last_id_ = 0;
  uint64_t version_ = 0;
  TimePoint show_at_ = TimePoint::max();  // when the board is due; max: it is up to date
};

}  // namespace tessera::router
