// The client's side of a call that is answered with a stream of events, and the table by which such
// calls are found again. gRPC's threads; one event at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include "engine/base/log.h"
#include "engine/base/result.h"
#include "engine/request/handoff_key.h"
#include "server/rpc/call_table.h"
#include "server/rpc/convert.h"

namespace tessera::rpc {

/// What a call does with its events. on_end() is the last call.
template <typename Event>
class EventHandler {
 public:
  EventHandler() = default;
  virtual ~EventHandler() = default;
  EventHandler(const EventHandler&) = delete;
  EventHandler& operator=(const EventHandler&) = delete;
  /// An error ends the call with it.
  [[nodiscard]] virtual Status on_event(const Event& event) = 0;
  virtual void on_end(const Status& status) = 0;
};

template <typename Request, typename Event>
class EventCall final : public grpc::ClientReadReactor<Event>,
                        public CancellableCall,
                        public std::enable_shared_from_this<EventCall<Request, Event>> {
 public:
  EventCall(const HandoffKey& key,
            std::shared_ptr<CallTable> table,
            std::unique_ptr<EventHandler<Event>> handler)
      : key_(key), table_(std::move(table)), handler_(std::move(handler)) {}

  [[nodiscard]] Request& request() noexcept { return request_; }

  /// `begin(context, request, reactor)` is a method of a stub. Lives until the call is done.
  template <typename Begin>
  void start(const Deadline& deadline, Begin begin) {
    self_ = this->shared_from_this();
    prepare_context(context_, key_, deadline);
    begin(&context_, &request_, this);
    this->StartRead(&event_);
    this->StartCall();
  }
  void cancel(bool is_silent) override {
    is_silent_ = is_silent_ || is_silent;
    context_.TryCancel();
  }

  void OnReadDone(bool is_ok) override {
    if (!is_ok) {
      return;  // OnDone follows
    }
    if (!is_silent_) {
      fault_ = handler_->on_event(event_);
    }
    if (!fault_.is_ok()) {
      context_.TryCancel();
      return;
    }
    this->StartRead(&event_);
  }
  void OnDone(const grpc::Status& status) override {
    const auto self = std::move(self_);
    table_->remove(key_, this);
    const Status end = fault_.is_ok() ? from_grpc(status) : fault_;
    log_debug("rpc_call_done", "key", key_.to_string(), "status", end.to_string());
    if (!is_silent_) {
      handler_->on_end(end);
    }
    handler_.reset();
  }

 private:
  const HandoffKey key_;
  const std::shared_ptr<CallTable> table_;        // shared by the calls of one client
  std::unique_ptr<EventHandler<Event>> handler_;  // the reactions'
  std::shared_ptr<EventCall> self_;               // until OnDone
  grpc::ClientContext context_;
  Request request_;
  Event event_;
  Status fault_;
  std::atomic<bool> is_silent_{false};  // cancelled by the caller: no sink call any more
};

}  // namespace tessera::rpc
