#include "server/rpc/remote_workers.h"

#include <string>
#include <utility>

#include <grpcpp/channel.h>

#include "proto/tessera/decode.grpc.pb.h"
#include "proto/tessera/prefill.grpc.pb.h"
#include "server/rpc/choice_tracker.h"
#include "server/rpc/event_call.h"
#include "server/rpc/field_checks.h"

namespace tessera::rpc {
namespace {

/// A worker's answer that breaks the contract is the worker's fault, not the request's.
Status broken_answer(const Status& status) {
  return internal_error("broken answer of the worker: " + status.message());
}

class PrefillHandler final : public EventHandler<v1::PrefillEvent> {
 public:
  explicit PrefillHandler(std::shared_ptr<PrefillSink> sink) : sink_(std::move(sink)) {}

  Status on_event(const v1::PrefillEvent& event) override {
    if (is_over_) {
      return Status::ok();
    }
    if (event.has_reserved()) {
      const std::string& address = event.reserved().decode_address();
      const Status status = check_bytes("decode_address", address, kMaxAddressBytes);
      if (!status.is_ok()) {
        return broken_answer(status);
      }
      sink_->on_reserved(address);
    } else if (event.has_first_token()) {
      const auto token = from_proto(event.first_token());
      if (!token.is_ok()) {
        return broken_answer(token.status());
      }
      sink_->on_token(token.value());
    } else if (event.has_handed_over()) {
      is_over_ = true;
      sink_->on_handed_over();
    }
    return Status::ok();
  }
  void on_end(const Status& status) override {
    if (!is_over_) {
      sink_->on_error(status.is_ok() ? internal_error("the worker ended without handing over")
                                     : status);
    }
  }

 private:
  std::shared_ptr<PrefillSink> sink_;  // the caller's
  bool is_over_ = false;
};

class DecodeHandler final : public EventHandler<v1::DecodeEvent> {
 public:
  DecodeHandler(std::shared_ptr<TokenSink> sink, const ChoiceTracker& choices)
      : sink_(std::move(sink)), choices_(choices) {}

  Status on_event(const v1::DecodeEvent& event) override {
    if (!event.has_token() || choices_.is_complete()) {
      return Status::ok();
    }
    const auto token = from_proto(event.token());
    if (!token.is_ok()) {
      return broken_answer(token.status());
    }
    choices_.count(token.value());
    sink_->on_token(token.value());
    return Status::ok();
  }
  void on_end(const Status& status) override {
    if (choices_.is_complete() || (status.is_ok() && choices_.may_end_here())) {
      return;
    }
    sink_->on_error(status.is_ok() ? internal_error("the worker ended in the middle of a choice")
                                   : status);
  }

 private:
  std::shared_ptr<TokenSink> sink_;  // the caller's
  ChoiceTracker choices_;
};

}  // namespace

struct RemotePrefillWorker::Stub {
  std::unique_ptr<v1::PrefillService::Stub> prefill;
};
struct RemoteDecodeWorker::Stub {
  std::unique_ptr<v1::DecodeService::Stub> decode;
};

RemotePrefillWorker::RemotePrefillWorker(std::shared_ptr<WorkerChannel> channel,
                                         WorkerInfo info,
                                         const RemoteWorkerOptions& options)
    : channel_(std::move(channel)),
      info_(std::move(info)),
      stub_(std::make_unique<Stub>(Stub{v1::PrefillService::NewStub(channel_->grpc_channel())})),
      calls_(std::make_shared<CallTable>(options.max_open_calls)) {}

RemotePrefillWorker::~RemotePrefillWorker() {
  calls_->cancel_all();
}

Status RemotePrefillWorker::prefill(PrefillRequest request, std::shared_ptr<PrefillSink> sink) {
  using Call = EventCall<v1::PrefillRequest, v1::PrefillEvent>;
  const auto call = std::make_shared<Call>(
      request.key, calls_, std::make_unique<PrefillHandler>(std::move(sink)));
  to_proto(request, call->request());
  TESSERA_RETURN_IF_ERROR(calls_->add(request.key, call));
  call->start(request.generation.deadline,
              [this](auto... arguments) { stub_->prefill->async()->Prefill(arguments...); });
  return Status::ok();
}

void RemotePrefillWorker::cancel(const HandoffKey& key) {
  calls_->cancel(key);
}

WorkerLoad RemotePrefillWorker::load() const {
  const std::lock_guard lock(mutex_);
  return load_;
}

void RemotePrefillWorker::set_load(const WorkerLoad& load) {
  const std::lock_guard lock(mutex_);
  load_ = load;
}

RemoteDecodeWorker::RemoteDecodeWorker(std::shared_ptr<WorkerChannel> channel,
                                       WorkerInfo info,
                                       const RemoteWorkerOptions& options)
    : channel_(std::move(channel)),
      info_(std::move(info)),
      stub_(std::make_unique<Stub>(Stub{v1::DecodeService::NewStub(channel_->grpc_channel())})),
      calls_(std::make_shared<CallTable>(options.max_open_calls)) {}

RemoteDecodeWorker::~RemoteDecodeWorker() {
  calls_->cancel_all();
}

Status RemoteDecodeWorker::attach(AttachRequest request, std::shared_ptr<TokenSink> sink) {
  using Call = EventCall<v1::AttachRequest, v1::DecodeEvent>;
  const auto call = std::make_shared<Call>(
      request.key,
      calls_,
      std::make_unique<DecodeHandler>(std::move(sink), ChoiceTracker(request.num_choices, true)));
  to_proto(request, call->request());
  TESSERA_RETURN_IF_ERROR(calls_->add(request.key, call));
  call->start(request.deadline,
              [this](auto... arguments) { stub_->decode->async()->Attach(arguments...); });
  return Status::ok();
}

Status RemoteDecodeWorker::generate(const HandoffKey& key,
                                    GenerationRequest request,
                                    std::shared_ptr<TokenSink> sink) {
  using Call = EventCall<v1::GenerateRequest, v1::DecodeEvent>;
  const auto call = std::make_shared<Call>(
      key,
      calls_,
      std::make_unique<DecodeHandler>(std::move(sink), ChoiceTracker(request.num_choices, false)));
  to_proto(key, request, call->request());
  TESSERA_RETURN_IF_ERROR(calls_->add(key, call));
  call->start(request.deadline,
              [this](auto... arguments) { stub_->decode->async()->Generate(arguments...); });
  return Status::ok();
}

void RemoteDecodeWorker::cancel(const HandoffKey& key) {
  calls_->cancel(key);
}

WorkerLoad RemoteDecodeWorker::load() const {
  const std::lock_guard lock(mutex_);
  return load_;
}

void RemoteDecodeWorker::set_load(const WorkerLoad& load) {
  const std::lock_guard lock(mutex_);
  load_ = load;
}

}  // namespace tessera::rpc
