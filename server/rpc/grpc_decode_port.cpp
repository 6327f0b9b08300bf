#include "server/rpc/grpc_decode_port.h"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <grpcpp/alarm.h>
#include <grpcpp/channel.h>

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "engine/base/text.h"
#include "proto/tessera/decode.grpc.pb.h"
#include "server/rpc/convert.h"

namespace tessera::rpc {
namespace {

/// gRPC never runs a reaction inside StartWrite(), TryCancel() or RemoveHold(), so these are called
/// with the mutex held; the listener is not.
class LinkCall final : public grpc::ClientBidiReactor<v1::PrefillMessage, v1::DecodeMessage>,
                       public std::enable_shared_from_this<LinkCall> {
 public:
  struct Params {
    DecodePortOptions options;
    LinkId link = 0;
    std::string address;
    DecodePort::Listener* listener = nullptr;
    std::function<void(const Status&)> report_closed;  ///< called once, as the last thing
  };
  explicit LinkCall(Params params) : params_(std::move(params)), outbox_(params_.options.outbox) {}

  void start();
  void send(PrefillMessage message);
  void break_off(const Status& status) {
    const std::lock_guard lock(mutex_);
    break_off_now(status);
  }

  void OnReadDone(bool is_ok) override;
  void OnWriteDone(bool is_ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void start_timer();
  void write_next();
  void break_off_now(const Status& status);
  [[nodiscard]] bool note_answer();

  const Params params_;
  std::unique_ptr<v1::DecodeService::Stub> stub_;  // set before the call starts
  grpc::ClientContext context_;
  v1::DecodeMessage incoming_;         // the reader's
  std::mutex mutex_;                   // guards all below
  std::shared_ptr<LinkCall> self_;     // until OnDone
  Outbox<v1::PrefillMessage> outbox_;  // its front is in flight while is_writing_
  grpc::Alarm timer_;
  std::optional<Status> end_;  // why this side broke it off
  bool is_held_ = false;       // until then gRPC lets other threads write
  bool is_writing_ = false;
  bool has_answer_ = false;
};

void LinkCall::start() {
  const auto channel = WorkerChannel::create(params_.address, params_.options.channel);
  const std::lock_guard lock(mutex_);
  self_ = shared_from_this();
  if (!channel.is_ok()) {
    end_ = channel.status();
    timer_.Set(std::chrono::system_clock::now(), [owner = self_](bool) mutable {
      const auto self = std::move(owner);  // gRPC keeps the function with the alarm
      self->OnDone(grpc::Status::CANCELLED);
    });
    return;
  }
  stub_ = v1::DecodeService::NewStub(channel.value()->grpc_channel());
  stub_->async()->Handoff(&context_, this);
  AddHold();
  is_held_ = true;
  StartRead(&incoming_);
  StartCall();
  start_timer();
}

void LinkCall::start_timer() {
  const auto timeout = params_.options.answer_timeout;
  timer_.Set(std::chrono::system_clock::now() + timeout,
             [owner = self_, timeout](bool is_due) mutable {
               const auto self = std::move(owner);  // gRPC keeps the function with the alarm
               const std::lock_guard lock(self->mutex_);
               if (is_due && !self->has_answer_) {
                 self->break_off_now(unavailable(str_cat("decode at ",
                                                         self->params_.address,
                                                         " did not answer within ",
                                                         timeout.count(),
                                                         " ms")));
               }
             });
}

void LinkCall::send(PrefillMessage message) {
  v1::PrefillMessage out;
  to_proto(message, out);
  const std::lock_guard lock(mutex_);
  if (!is_held_) {
    return;
  }
  if (!outbox_.try_push(std::move(out))) {
    const OutboxLimits& limits = params_.options.outbox;
    break_off_now(resource_exhausted(str_cat("decode at ",
                                             params_.address,
                                             " does not read: ",
                                             limits.max_messages,
                                             " messages or ",
                                             limits.max_bytes,
                                             " bytes are queued")));
    return;
  }
  write_next();
}

void LinkCall::OnReadDone(bool is_ok) {
  if (!is_ok) {
    const std::lock_guard lock(mutex_);
    if (is_held_) {  // else this side broke it off
      is_held_ = false;
      RemoveHold();
    }
    return;
  }
  if (!note_answer()) {
    return;
  }
  auto message = from_proto(incoming_);
  if (!message.is_ok()) {
    break_off(message.status().with_context("from decode at " + params_.address));
    return;
  }
  params_.listener->on_link_message(params_.link, std::move(message).value());
  StartRead(&incoming_);
}

/// False when the link is over.
bool LinkCall::note_answer() {
  const std::lock_guard lock(mutex_);
  if (!has_answer_) {
    has_answer_ = true;
    timer_.Cancel();
  }
  return is_held_;
}

void LinkCall::OnWriteDone(bool is_ok) {
  const std::lock_guard lock(mutex_);
  is_writing_ = false;
  outbox_.pop();
  if (!is_ok) {
    outbox_.clear();  // the link is broken: the read fails too
  }
  write_next();
}

void LinkCall::OnDone(const grpc::Status& status) {
  std::shared_ptr<LinkCall> self;
  Status end;
  {
    const std::lock_guard lock(mutex_);
    self = std::move(self_);
    timer_.Cancel();
    end = end_ ? *end_ : from_grpc(status);
    if (!end_ && end.is_ok()) {
      end = unavailable("decode ended the link");
    }
  }
  params_.report_closed(end);
}

void LinkCall::write_next() {
  if (is_held_ && !is_writing_ && !outbox_.is_empty()) {
    is_writing_ = true;
    StartWrite(&outbox_.front());
  }
}

void LinkCall::break_off_now(const Status& status) {
  if (is_held_) {
    is_held_ = false;
    end_ = status;
    context_.TryCancel();
    RemoveHold();
  }
}

}  // namespace

struct GrpcDecodePort::State {
  explicit State(const DecodePortOptions& port_options) : options(port_options) {}

  const DecodePortOptions options;
  Listener* listener = nullptr;
  std::mutex mutex;  // guards all below
  std::condition_variable closed;
  LinkId last_link = 0;
  std::unordered_map<LinkId, std::shared_ptr<LinkCall>> links;  // until the listener has heard

  [[nodiscard]] std::shared_ptr<LinkCall> find(LinkId link) {
    const std::lock_guard lock(mutex);
    const auto entry = links.find(link);
    return entry == links.end() ? nullptr : entry->second;
  }
  void report_closed(LinkId link, const Status& status) {
    log_debug("handoff_link_closed", "link", link, "status", status.to_string());
    listener->on_link_closed(link, status);
    const std::lock_guard lock(mutex);
    links.erase(link);
    closed.notify_all();
  }
};

GrpcDecodePort::GrpcDecodePort(const DecodePortOptions& options)
    : state_(std::make_shared<State>(options)) {}

GrpcDecodePort::~GrpcDecodePort() {
  std::vector<std::shared_ptr<LinkCall>> links;
  {
    const std::lock_guard lock(state_->mutex);
    for (const auto& [link, call] : state_->links) {
      links.push_back(call);
    }
  }
  for (const auto& call : links) {
    call->break_off(Status::ok());
  }
  links.clear();
  std::unique_lock lock(state_->mutex);
  state_->closed.wait(lock, [this] { return state_->links.empty(); });
}

void GrpcDecodePort::set_listener(Listener& listener) {
  state_->listener = &listener;
}

LinkId GrpcDecodePort::open(const std::string& address) {
  TESSERA_CHECK(state_->listener != nullptr, "open() before set_listener()");
  std::shared_ptr<LinkCall> call;
  LinkId link = 0;
  {
    const std::lock_guard lock(state_->mutex);
    link = ++state_->last_link;
    call = std::make_shared<LinkCall>(LinkCall::Params{
        state_->options,
        link,
        address,
        state_->listener,
        [state = state_, link](const Status& status) { state->report_closed(link, status); }});
    state_->links.emplace(link, call);
  }
  log_debug("handoff_link_opening", "link", link, "address", address);
  call->start();
  return link;
}

void GrpcDecodePort::send(LinkId link, PrefillMessage message) {
  if (const auto call = state_->find(link)) {
    call->send(std::move(message));
  }
}

void GrpcDecodePort::close(LinkId link) {
  if (const auto call = state_->find(link)) {
    call->break_off(Status::ok());
  }
}

}  // namespace tessera::rpc
