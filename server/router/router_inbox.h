// How other threads reach the router thread: clients submit and cancel, workers' calls and
// connections report. One lock covers all of it and the set of live requests, so that admission is
// exact and a cancel is never lost.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/status.h"
#include "engine/handoff/worker_services.h"
#include "engine/request/generation_request.h"
#include "engine/request/token_event.h"
#include "server/router/prefix_record.h"
#include "server/router/router_options.h"
#include "server/router/worker_connector.h"

namespace tessera::router {

/// One call that is open on a worker, numbered by the router. 0: none.
using LegId = uint64_t;

struct Reserved {
  std::string address;
};
struct HandedOver {};
/// A call's event; a Status is its error. Nothing follows HandedOver or an error.
struct LegEvent {
  LegId leg = 0;
  std::variant<TokenEvent, Reserved, HandedOver, Status> what;
};

/// A connection's report; a Status says why it ended, OK: the worker has drained and stopped.
struct WorkerEvent {
  WorkerId worker = 0;
  std::variant<WorkerInfo, WorkerLoad, Status> what;
};

struct AddressList {
  WorkerRole role = WorkerRole::kPrefill;
  std::vector<std::string> addresses;
};

struct Submission {
  GenerationRequest request;
  std::vector<BlockHash> chain;  ///< of the prompt
  std::shared_ptr<TokenSink> sink;
};

/// Shared by the router and by the sinks and observers that workers hold: these may outlive it, and
/// then write into a closed box.
class RouterInbox final {
 public:
  /// What the router thread has to do, in the order in which it does it.
  struct Work {
    std::vector<AddressList> addresses;
    std::vector<Submission> submissions;
    std::vector<LegEvent> leg_events;
    std::vector<WorkerEvent> worker_events;
    std::vector<RequestId> cancels;
    std::optional<Status> abort;  ///< end every live request with this error
  };

  explicit RouterInbox(const RouterOptions& options);
  ~RouterInbox() = default;
  RouterInbox(const RouterInbox&) = delete;
  RouterInbox& operator=(const RouterInbox&) = delete;

  /// Any thread; never blocks. Errors: RESOURCE_EXHAUSTED (a bound of admission), INVALID_ARGUMENT
  /// (the id is live already), and the reason given to close().
  [[nodiscard]] Status submit(Submission submission);
  /// Any thread; never blocks. No effect on ids that are not live.
  void cancel(const RequestId& id);
  void post(LegEvent event);
  /// False when too many events wait: the call should be given up.
  [[nodiscard]] bool try_post_token(LegId leg, const TokenEvent& event);
  void post(WorkerEvent event);
  void post(AddressList addresses);
  /// Refuses submissions from now on with `reason`; the first reason stays. Any thread.
  void close(Status reason);
  /// The router is gone: drops every event from now on. Router thread.
  void shut();
  /// Asks the router thread to end every live request with `status`. Any thread.
  void abort_live(Status status);
  /// Ends a wait of the router thread. Any thread.
  void wake();
  /// Ok while submissions are taken, else the reason given to close(). Any thread.
  [[nodiscard]] Status state() const;
  /// state(), and UNAVAILABLE while no pair of workers is ready. Any thread.
  [[nodiscard]] Status readiness() const;
  /// Waits until no request is live; false at the deadline. Any thread but the router's.
  [[nodiscard]] bool wait_until_empty_blocking(Deadline deadline) const;

  /// Moves everything into `work` (cleared first). Router thread.
  void collect(Work& work);
  /// Waits for work, wake() or the deadline, then collects. Router thread.
  void collect_blocking(Work& work, Deadline deadline);
  /// What admission and readiness need to know. Router thread.
  void note_prefilled(const RequestId& id);
  void note_ended(const RequestId& id);
  void note_waiting(int64_t num_requests);
  void note_pair(bool is_ready);

 private:
  struct Live {
    int64_t num_queued_tokens = 0;  // until the first token
    bool is_cancelled = false;
  };
  template <typename Event>
  void push(std::vector<Event>& queue, Event event);
  [[nodiscard]] Status admit_locked(const GenerationRequest& request) const;
  void take_locked(Work& work);

  const int64_t max_requests_;
  const int64_t max_queued_tokens_;
  const int64_t max_waiting_;
  mutable std::mutex mutex_;  // guards all below
  std::condition_variable has_work_;
  mutable std::condition_variable is_empty_;
  Status state_;
  Work work_;
  std::unordered_map<RequestId, Live, RequestIdHash> live_;
  int64_t num_queued_tokens_ = 0;
  int64_t num_waiting_ = 0;
  bool has_pair_ = false;
  bool is_woken_ = false;
  bool is_shut_ = false;
};

}  // namespace tessera::router
