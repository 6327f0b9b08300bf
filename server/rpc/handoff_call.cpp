#include "server/rpc/handoff_call.h"

#include <utility>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "server/rpc/convert.h"

namespace tessera::rpc {

std::shared_ptr<HandoffCall> HandoffCall::open(Params params) {
  auto call = std::make_shared<HandoffCall>(std::move(params));
  call->self_ = call;
  const Status status = call->params_.open_links->add(call);
  if (!status.is_ok()) {
    call->close(status);
    return call;
  }
  call->link_ = call->params_.door->on_link_opened(call);
  call->is_linked_ = true;
  log_debug("handoff_link_opened", "link", call->link_, "peer", call->params_.context->peer());
  call->StartSendInitialMetadata();
  call->StartRead(&call->incoming_);
  return call;
}

void HandoffCall::send(DecodeMessage message) {
  v1::DecodeMessage out;
  to_proto(message, out);
  const std::lock_guard lock(mutex_);
  if (is_finished_) {
    return;
  }
  if (!outbox_.try_push(std::move(out))) {
    finish_now(resource_exhausted(str_cat("prefill does not read: link ",
                                          link_,
                                          " has ",
                                          params_.outbox.max_messages,
                                          " messages or ",
                                          params_.outbox.max_bytes,
                                          " bytes queued")));
    params_.context->TryCancel();  // a peer that does not read would never see the status
    return;
  }
  write_next();
}

void HandoffCall::close(const Status& status) {
  const std::lock_guard lock(mutex_);
  finish_now(status);
}

void HandoffCall::OnReadDone(bool is_ok) {
  if (!is_ok) {
    close(Status::ok());  // prefill ended the link, or it broke: OnCancel follows
    return;
  }
  if (is_finished()) {
    return;
  }
  Status status;
  auto message = from_proto(incoming_);
  if (message.is_ok()) {
    status = params_.door->on_link_message(link_, std::move(message).value());
  } else {
    status = message.status();
  }
  if (!status.is_ok()) {
    close(status);
    return;
  }
  StartRead(&incoming_);
}

void HandoffCall::OnWriteDone(bool is_ok) {
  const std::lock_guard lock(mutex_);
  is_writing_ = false;
  outbox_.pop();
  if (!is_ok) {
    outbox_.clear();  // the link is broken: OnCancel follows
  }
  write_next();
}

void HandoffCall::OnCancel() {
  close(Status(StatusCode::kCancelled, "the link was cancelled or its connection lost"));
}

void HandoffCall::OnDone() {
  std::shared_ptr<HandoffCall> self;
  {
    const std::lock_guard lock(mutex_);
    self = std::move(self_);
  }
  params_.open_links->remove(this);
  if (is_linked_) {
    log_debug("handoff_link_done", "link", link_, "status", end_.to_string());
    params_.door->on_link_closed(link_);
  }
}

bool HandoffCall::is_finished() {
  const std::lock_guard lock(mutex_);
  return is_finished_;
}

void HandoffCall::write_next() {
  if (!is_writing_ && !is_finished_ && !outbox_.is_empty()) {
    is_writing_ = true;
    StartWrite(&outbox_.front());
  }
}

void HandoffCall::finish_now(const Status& status) {
  if (is_finished_) {
    return;
  }
  is_finished_ = true;
  end_ = status;
  Finish(to_grpc(status));
}

}  // namespace tessera::rpc
