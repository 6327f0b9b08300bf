// The calls that are open on workers. Every call ends exactly once: by its own last event, or by
// one cancel. Events of calls that are no longer in the table are late and mean nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/result.h"
#include "engine/handoff/worker_services.h"
#include "server/router/router_inbox.h"
#include "server/router/worker_pool.h"

namespace tessera::router {

enum class LegKind : uint8_t { kPrefill, kAttach, kLocal };

/// Whom a call serves: a request and which of its parts.
struct LegOwner {
  uint64_t request = 0;
  size_t part = 0;
};

struct Leg {
  LegOwner owner;
  LegKind kind = LegKind::kPrefill;
  HandoffKey key;
  WorkerId worker = 0;
  std::shared_ptr<WorkerConnection> connection;  // shared with the pool, which may drop it earlier
};

/// Router thread only.
class LegTable final {
 public:
  /// `pool` outlives the table.
  LegTable(WorkerPool& pool, std::shared_ptr<RouterInbox> inbox)
      : pool_(pool), inbox_(std::move(inbox)) {}

  /// Each opens one call. Errors: those of the worker's method, and UNAVAILABLE when it is no
  /// longer connected; then no event follows.
  [[nodiscard]] Result<LegId> prefill(LegOwner owner, WorkerId worker, PrefillRequest request);
  [[nodiscard]] Result<LegId> attach(LegOwner owner, WorkerId worker, AttachRequest request);
  [[nodiscard]] Result<LegId> generate(LegOwner owner,
                                       WorkerId worker,
                                       const HandoffKey& key,
                                       GenerationRequest request);

  /// Null when the call is over.
  [[nodiscard]] const Leg* find(LegId id) const;
  [[nodiscard]] std::vector<LegId> legs_on(WorkerId worker) const;
  /// The call ended, or will end, by itself. No effect on calls that are over, as below.
  void forget(LegId id);
  /// Cancels the call.
  void cancel(LegId id);
  [[nodiscard]] size_t size() const noexcept { return legs_.size(); }

 private:
  [[nodiscard]] Result<LegId> add(Leg leg, int64_t num_tokens);

  WorkerPool& pool_;
  const std::shared_ptr<RouterInbox> inbox_;  // shared with the sinks
  std::unordered_map<LegId, Leg> legs_;
  LegId last_id_ = 0;
};

}  // namespace tessera::router
