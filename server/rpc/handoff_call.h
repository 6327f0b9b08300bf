// The decode side of one link: a call of DecodeService.Handoff. gRPC and the door share it.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "engine/handoff/handoff_link.h"
#include "proto/tessera/decode.pb.h"
#include "server/rpc/open_calls.h"
#include "server/rpc/outbox.h"

namespace tessera::rpc {

/// gRPC never runs a reaction inside StartWrite(), Finish() or TryCancel(), so these are called
/// with the mutex held; the door is not. Any thread.
class HandoffCall final : public grpc::ServerBidiReactor<v1::PrefillMessage, v1::DecodeMessage>,
                          public PrefillLink,
                          public EndableCall,
                          public std::enable_shared_from_this<HandoffCall> {
 public:
  struct Params {
    grpc::CallbackServerContext* context = nullptr;
    PrefillDoor* door = nullptr;
    std::shared_ptr<OpenCalls> open_links;  // shared by the links of one service
    OutboxLimits outbox;
  };

  /// Opens the link at the door, or refuses the call. Lives until the call is done, at least.
  [[nodiscard]] static std::shared_ptr<HandoffCall> open(Params params);
  explicit HandoffCall(Params params) : params_(std::move(params)), outbox_(params_.outbox) {}

  void send(DecodeMessage message) override;
  void close(const Status& status) override;
  void end(const Status& status) override { close(status); }

  void OnReadDone(bool is_ok) override;
  void OnWriteDone(bool is_ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  [[nodiscard]] bool is_finished();
  void write_next();
  void finish_now(const Status& status);

  const Params params_;
  LinkId link_ = 0;                    // set before the first read
  bool is_linked_ = false;             // likewise
  v1::PrefillMessage incoming_;        // the reader's
  std::mutex mutex_;                   // guards all below
  std::shared_ptr<HandoffCall> self_;  // until OnDone
  Outbox<v1::DecodeMessage> outbox_;   // its front is in flight while is_writing_
  Status end_;
  bool is_writing_ = false;
  bool is_finished_ = false;
};

}  // namespace tessera::rpc
