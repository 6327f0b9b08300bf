// The open calls of a client, by key, and what every call carries.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "engine/base/deadline.h"
#include "engine/base/status.h"
#include "engine/request/handoff_key.h"

namespace grpc {
class ClientContext;
}

namespace tessera::rpc {

/// Deadline (with a second for the worker's own answer to come first) and x-request-id.
void prepare_context(grpc::ClientContext& context, const HandoffKey& key, const Deadline& deadline);
/// At most kMaxTimeoutMs from now.
void set_deadline(grpc::ClientContext& context, const Deadline& deadline);

class CancellableCall {
 public:
  CancellableCall() = default;
  virtual ~CancellableCall() = default;
  CancellableCall(const CancellableCall&) = delete;
  CancellableCall& operator=(const CancellableCall&) = delete;
  /// Silent: the sink is not called again.
  virtual void cancel(bool is_silent) = 0;
};

/// The open calls of one client by key; bounded. Any thread.
class CallTable final {
 public:
  explicit CallTable(size_t limit) : limit_(limit) {}

  /// Errors: ALREADY_EXISTS, RESOURCE_EXHAUSTED.
  [[nodiscard]] Status add(const HandoffKey& key, std::shared_ptr<CancellableCall> call);
  /// Only if `call` is the one under `key`.
  void remove(const HandoffKey& key, const CancellableCall* call);
  /// Silently, and forgets it. Unknown keys are ignored.
  void cancel(const HandoffKey& key);
  /// Their sinks hear CANCELLED.
  void cancel_all();

 private:
  const size_t limit_;
  std::mutex mutex_;  // guards calls_
  std::unordered_map<HandoffKey, std::shared_ptr<CancellableCall>, HandoffKeyHash> calls_;
};

}  // namespace tessera::rpc
