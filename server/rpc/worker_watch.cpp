#include "server/rpc/worker_watch.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include <grpcpp/alarm.h>
#include <grpcpp/channel.h>

#include "engine/base/log.h"
#include "proto/tessera/worker.grpc.pb.h"
#include "server/rpc/call_table.h"
#include "server/rpc/convert.h"
#include "server/rpc/field_checks.h"

namespace tessera::rpc {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFirstBackoff{100};
constexpr milliseconds kLongestBackoff{1000};
/// A watch is renewed now and then, so that no call is without a deadline.
constexpr std::chrono::hours kWatchLimit{1};

bool is_same(const WorkerIdentity& a, const WorkerIdentity& b) {
  return a.role == b.role && a.info.epoch == b.info.epoch;
}

}  // namespace

/// A chain of which one link is active at a time: GetInfo, then WatchLoad until it fails, then a
/// timer, and again. stop() makes the active one end, and the chain with it.
class WorkerWatch::Loop final : public std::enable_shared_from_this<Loop> {
 public:
  Loop(std::shared_ptr<WorkerChannel> channel, Listener& listener, const Options& options)
      : channel_(std::move(channel)),
        stub_(v1::WorkerService::NewStub(channel_->grpc_channel())),
        listener_(listener),
        options_(options) {}

  void get_info();
  void stop_blocking();

 private:
  struct InfoCall {
    grpc::ClientContext context;
    v1::GetInfoRequest request;
    v1::WorkerInfo response;
  };
  class LoadCall;

  void on_info(const Status& status, const v1::WorkerInfo& response);
  void watch_load();
  [[nodiscard]] Status on_load(const v1::WorkerLoad& message);
  void on_load_end(const Status& status);
  void report_gone(const Status& status);
  void retry_later();
  [[nodiscard]] bool begin(std::shared_ptr<grpc::ClientContext> context);
  [[nodiscard]] bool end_step();

  const std::shared_ptr<WorkerChannel> channel_;  // shared with the worker's other clients
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  Listener& listener_;
  const Options options_;
  // The chain's.
  std::optional<WorkerIdentity> identity_;  // while the worker is up
  milliseconds backoff_ = kFirstBackoff;
  std::mutex mutex_;  // guards all below
  std::condition_variable ended_;
  std::shared_ptr<grpc::ClientContext> context_;  // of the active call; shared with it
  std::optional<grpc::Alarm> timer_;
  bool is_stopping_ = false;
  bool is_ended_ = false;
};

class WorkerWatch::Loop::LoadCall final : public grpc::ClientReadReactor<v1::WorkerLoad> {
 public:
  LoadCall(std::shared_ptr<Loop> loop, std::shared_ptr<grpc::ClientContext> context)
      : loop_(std::move(loop)), context_(std::move(context)) {}

  void start() {
    self_.reset(this);
    request_.set_period_ms(loop_->options_.load_period.count());
    loop_->stub_->async()->WatchLoad(context_.get(), &request_, this);
    StartRead(&message_);
    StartCall();
  }
  void OnReadDone(bool is_ok) override {
    if (!is_ok) {
      return;  // OnDone follows
    }
    fault_ = loop_->on_load(message_);
    if (!fault_.is_ok()) {
      context_->TryCancel();
      return;
    }
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    const std::unique_ptr<LoadCall> self = std::move(self_);
    loop_->on_load_end(fault_.is_ok() ? from_grpc(status) : fault_);
  }

 private:
  const std::shared_ptr<Loop> loop_;
  const std::shared_ptr<grpc::ClientContext> context_;  // shared with the loop, to cancel
  std::unique_ptr<LoadCall> self_;                      // until OnDone
  v1::WatchLoadRequest request_;
  v1::WorkerLoad message_;
  Status fault_;
};

/// False when the chain ends here.
bool WorkerWatch::Loop::begin(std::shared_ptr<grpc::ClientContext> context) {
  const std::lock_guard lock(mutex_);
  if (is_stopping_) {
    is_ended_ = true;
    ended_.notify_all();
    return false;
  }
  context_ = std::move(context);
  return true;
}

/// A call is done. False when the chain ends here.
bool WorkerWatch::Loop::end_step() {
  return begin(nullptr);
}

void WorkerWatch::Loop::get_info() {
  const auto call = std::make_shared<InfoCall>();
  if (!begin(std::shared_ptr<grpc::ClientContext>(call, &call->context))) {
    return;
  }
  set_deadline(call->context, Deadline::after(options_.info_timeout));
  stub_->async()->GetInfo(&call->context,
                          &call->request,
                          &call->response,
                          [self = shared_from_this(), call](const grpc::Status& status) {
                            self->on_info(from_grpc(status), call->response);
                          });
}

void WorkerWatch::Loop::on_info(const Status& status, const v1::WorkerInfo& response) {
  if (!end_step()) {
    return;
  }
  auto identity = status.is_ok() ? from_proto(response) : Result<WorkerIdentity>(status);
  if (!identity.is_ok()) {
    report_gone(identity.status());
    retry_later();
    return;
  }
  if (!identity_ || !is_same(*identity_, identity.value())) {
    identity_ = std::move(identity).value();
    listener_.on_worker_up(*identity_);
  }
  watch_load();
}

void WorkerWatch::Loop::watch_load() {
  const auto context = std::make_shared<grpc::ClientContext>();
  set_deadline(*context, Deadline::after(kWatchLimit));
  if (begin(context)) {
    std::make_unique<LoadCall>(shared_from_this(), context).release()->start();  // owns itself
  }
}

Status WorkerWatch::Loop::on_load(const v1::WorkerLoad& message) {
  TESSERA_TRY(const WorkerLoad load, from_proto(message));
  backoff_ = kFirstBackoff;
  listener_.on_worker_load(load);
  return Status::ok();
}

void WorkerWatch::Loop::on_load_end(const Status& status) {
  if (!end_step()) {
    return;
  }
  if (status.code() == StatusCode::kDeadlineExceeded) {
    get_info();  // time to renew
    return;
  }
  report_gone(status);
  retry_later();
}

void WorkerWatch::Loop::report_gone(const Status& status) {
  log_debug("worker_unreachable", "address", channel_->address(), "status", status.to_string());
  if (identity_) {
    identity_.reset();
    listener_.on_worker_gone(status);
  }
}

void WorkerWatch::Loop::retry_later() {
  const milliseconds delay = backoff_;
  backoff_ = std::min(backoff_ * 2, kLongestBackoff);
  if (!begin(nullptr)) {
    return;
  }
  const std::lock_guard lock(mutex_);
  timer_.emplace();  // an alarm cannot be set again from its own callback
  const auto delay_or_none = is_stopping_ ? milliseconds(0) : delay;
  timer_->Set(std::chrono::system_clock::now() + delay_or_none,
              [owner = shared_from_this()](bool) mutable {
                const auto self = std::move(owner);  // gRPC keeps the function with the alarm
                self->get_info();
              });
}

void WorkerWatch::Loop::stop_blocking() {
  std::unique_lock lock(mutex_);
  is_stopping_ = true;
  if (context_ != nullptr) {
    context_->TryCancel();
  }
  if (timer_) {
    timer_->Cancel();
  }
  ended_.wait(lock, [this] { return is_ended_; });
}

WorkerWatch::WorkerWatch(std::shared_ptr<WorkerChannel> channel,
                         Listener& listener,
                         const Options& options)
    : loop_(std::make_shared<Loop>(std::move(channel), listener, options)) {
  loop_->get_info();
}
WorkerWatch::~WorkerWatch() {
  loop_->stop_blocking();
}

void drain_worker(const std::shared_ptr<WorkerChannel>& channel,
                  const Deadline& deadline,
                  std::function<void(Result<int64_t>)> on_answer) {
  struct DrainCall {
    std::unique_ptr<v1::WorkerService::Stub> stub;
    grpc::ClientContext context;
    v1::DrainRequest request;
    v1::DrainResponse response;
  };
  const auto call = std::make_shared<DrainCall>();  // shared with gRPC
  call->stub = v1::WorkerService::NewStub(channel->grpc_channel());
  call->request.set_timeout_ms(deadline.is_infinite() ? kMaxTimeoutMs : to_timeout_ms(deadline));
  // Time for the worker's own answer to come first.
  set_deadline(
      call->context,
      deadline.is_infinite() ? deadline : Deadline(deadline.at() + std::chrono::seconds(5)));
  call->stub->async()->Drain(&call->context,
                             &call->request,
                             &call->response,
                             [call, on_answer = std::move(on_answer)](const grpc::Status& status) {
                               if (status.ok()) {
                                 on_answer(call->response.num_left());
                               } else {
                                 on_answer(from_grpc(status));
                               }
                             });
}

}  // namespace tessera::rpc
