#include "server/rpc/worker_service.h"

#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <grpcpp/alarm.h>

#include "engine/base/deadline.h"
#include "engine/base/log.h"
#include "proto/tessera/worker.grpc.pb.h"
#include "server/rpc/convert.h"
#include "server/rpc/field_checks.h"
#include "server/rpc/open_calls.h"

namespace tessera::rpc {
namespace {

using Callbacks = WorkerServiceImpl::Callbacks;
using std::chrono::milliseconds;

constexpr milliseconds kDrainPollPeriod{20};

/// Looks at the worker now and then until it is ended. The call is finished only while no look
/// runs, so the worker outlives each look. `Reactor` is a server reactor; gRPC never runs a
/// reaction inside StartWrite() or Finish(), so these are called with the mutex held.
template <typename Reactor>
class PollingCall : public Reactor,
                    public EndableCall,
                    public std::enable_shared_from_this<PollingCall<Reactor>> {
 public:
  PollingCall(std::shared_ptr<OpenCalls> open_calls, milliseconds period)
      : open_calls_(std::move(open_calls)), period_(period) {}

  /// Lives until the call is done, at least.
  void start(const Status& status) {
    self_ = this->shared_from_this();
    const Status taken = status.is_ok() ? open_calls_->add(self_) : status;
    if (!taken.is_ok()) {
      const std::lock_guard lock(mutex_);
      is_polling_ = false;
      end_now(taken);
      return;
    }
    poll();
  }
  void end(const Status& status) override {
    const std::lock_guard lock(mutex_);
    end_now(status);
  }
  void OnCancel() override { end(Status(StatusCode::kCancelled, "the call was cancelled")); }
  void OnDone() override {
    std::shared_ptr<PollingCall> self;
    {
      const std::lock_guard lock(mutex_);
      self = std::move(self_);
    }
    open_calls_->remove(this);
  }

 protected:
  /// Looks at the worker: without the mutex.
  virtual void look() = 0;
  enum class Outcome { kPollAgain, kWriting, kFinish };
  /// Acts on what look() saw, with the mutex. kWriting: poll_later() follows the write.
  virtual Outcome act() = 0;

  void poll_later() {
    is_polling_ = true;
    timer_.emplace();  // an alarm cannot be set again from its own callback
    timer_->Set(std::chrono::system_clock::now() + period_,
                [owner = this->shared_from_this()](bool) mutable {
                  const auto self = std::move(owner);  // gRPC keeps the function with the alarm
                  self->poll();
                });
  }

  std::mutex mutex_;  // guards all below
  std::optional<Status> end_;

 private:
  void poll() {
    if (!is_ended()) {
      look();
    }
    const std::lock_guard lock(mutex_);
    const Outcome outcome = end_ ? Outcome::kFinish : act();
    is_polling_ = false;
    if (outcome == Outcome::kPollAgain) {
      poll_later();
    } else if (outcome == Outcome::kFinish) {
      end_ = end_.value_or(Status::ok());
      this->Finish(to_grpc(*end_));
    }
  }
  void end_now(const Status& status) {
    if (end_) {
      return;
    }
    end_ = status;
    if (!is_polling_) {
      this->Finish(to_grpc(status));
    } else if (timer_) {
      timer_->Cancel();  // the poll finishes
    }
  }
  bool is_ended() {
    const std::lock_guard lock(mutex_);
    return end_.has_value();
  }

  const std::shared_ptr<OpenCalls> open_calls_;  // shared by the calls of the service
  const milliseconds period_;
  std::shared_ptr<PollingCall> self_;  // until OnDone
  std::optional<grpc::Alarm> timer_;
  bool is_polling_ = true;  // a look runs or the timer is set
};

/// Writes the load when it changed.
class LoadStream final : public PollingCall<grpc::ServerWriteReactor<v1::WorkerLoad>> {
 public:
  LoadStream(const Callbacks& callbacks, std::shared_ptr<OpenCalls> calls, milliseconds period)
      : PollingCall(std::move(calls), period), callbacks_(callbacks) {}

  void OnWriteDone(bool is_ok) override {
    const std::lock_guard lock(mutex_);
    if (is_ok && !end_) {
      poll_later();
    }
  }

 private:
  void look() override { seen_ = callbacks_.load(); }
  Outcome act() override {
    v1::WorkerLoad message;
    to_proto(seen_, message);
    std::string bytes = message.SerializeAsString();
    if (bytes == last_bytes_) {
      return Outcome::kPollAgain;
    }
    last_bytes_ = std::move(bytes);
    message_ = std::move(message);
    StartWrite(&message_);
    return Outcome::kWriting;
  }

  const Callbacks& callbacks_;
  WorkerLoad seen_;  // the poll's
  std::optional<std::string> last_bytes_;
  v1::WorkerLoad message_;  // in flight
};

/// Waits until no request is left.
class DrainCall final : public PollingCall<grpc::ServerUnaryReactor> {
 public:
  DrainCall(const Callbacks& callbacks,
            std::shared_ptr<OpenCalls> calls,
            const Deadline& deadline,
            v1::DrainResponse& response)
      : PollingCall(std::move(calls), kDrainPollPeriod),
        callbacks_(callbacks),
        deadline_(deadline),
        response_(response) {}

 private:
  void look() override {
    if (!has_started_) {
      has_started_ = true;
      log_info("drain_requested");
      callbacks_.start_drain();
    }
    const WorkerLoad load = callbacks_.load();
    num_left_ = load.num_requests_running + load.num_requests_waiting;
  }
  Outcome act() override {
    if (num_left_ > 0 && !deadline_.is_expired()) {
      return Outcome::kPollAgain;
    }
    response_.set_num_left(num_left_);
    return Outcome::kFinish;
  }

  const Callbacks& callbacks_;
  const Deadline deadline_;
  v1::DrainResponse& response_;  // gRPC's, until the call is finished
  bool has_started_ = false;     // the poll's
  int64_t num_left_ = 0;
};

}  // namespace

class WorkerServiceImpl::Service final : public v1::WorkerService::CallbackService {
 public:
  Service(Callbacks callbacks, const ServiceLimits& limits)
      : callbacks_(std::move(callbacks)),
        open_calls_(std::make_shared<OpenCalls>(limits.max_open_calls)) {}

  grpc::ServerUnaryReactor* GetInfo(grpc::CallbackServerContext* context,
                                    const v1::GetInfoRequest* /*request*/,
                                    v1::WorkerInfo* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (open_calls_->is_ended()) {  // whoever heard the goodbye must not take it for a new process
      reactor->Finish(to_grpc(unavailable("the worker is shutting down")));
      return reactor;
    }
    to_proto(callbacks_.identity(), *response);
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerWriteReactor<v1::WorkerLoad>* WatchLoad(
      grpc::CallbackServerContext* /*context*/, const v1::WatchLoadRequest* request) override {
    const int64_t period_ms =
        request->period_ms() == 0 ? kDefaultLoadPeriodMs : request->period_ms();
    const auto stream =
        std::make_shared<LoadStream>(callbacks_, open_calls_, milliseconds(period_ms));
    stream->start(check_range("period_ms", period_ms, kMinLoadPeriodMs, kMaxLoadPeriodMs));
    return stream.get();
  }

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* /*context*/,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override {
    const Status status = check_range("timeout_ms", request->timeout_ms(), 0, kMaxTimeoutMs);
    const auto deadline = Deadline::after(milliseconds(status.is_ok() ? request->timeout_ms() : 0));
    const auto call = std::make_shared<DrainCall>(callbacks_, open_calls_, deadline, *response);
    call->start(status);
    return call.get();
  }

  /// OK is the goodbye of a worker that has drained and handed back all it had.
  void end_calls() {
    const WorkerLoad load = callbacks_.load();
    const bool holds_none = load.num_requests_running + load.num_requests_waiting == 0;
    const bool has_drained = load.is_draining && holds_none && callbacks_.liveness().is_ok();
    open_calls_->end_all(has_drained ? Status::ok() : unavailable("the worker is shutting down"));
  }

 private:
  const Callbacks callbacks_;
  const std::shared_ptr<OpenCalls> open_calls_;  // shared with the calls
};

WorkerServiceImpl::WorkerServiceImpl(Callbacks callbacks, const ServiceLimits& limits)
    : service_(std::make_unique<Service>(std::move(callbacks), limits)) {}
WorkerServiceImpl::~WorkerServiceImpl() = default;
grpc::Service& WorkerServiceImpl::grpc_service() noexcept {
  return *service_;
}
std::string_view WorkerServiceImpl::name() const noexcept {
  return v1::WorkerService::service_full_name();
}
void WorkerServiceImpl::end_endless_calls() {
  service_->end_calls();
}

}  // namespace tessera::rpc
