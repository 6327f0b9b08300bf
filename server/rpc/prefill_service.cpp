#include "server/rpc/prefill_service.h"

#include <algorithm>
#include <utility>

#include "proto/tessera/prefill.grpc.pb.h"
#include "server/rpc/event_stream.h"
#include "server/rpc/wire_limits.h"

namespace tessera::rpc {
namespace {

using PrefillStream = EventStream<v1::PrefillEvent>;

class StreamSink final : public PrefillSink {
 public:
  explicit StreamSink(std::shared_ptr<PrefillStream> stream) : stream_(std::move(stream)) {}
  ~StreamSink() override {
    stream_->finish(internal_error("the worker dropped the request without a result"));
  }
  StreamSink(const StreamSink&) = delete;
  StreamSink& operator=(const StreamSink&) = delete;

  void on_reserved(const std::string& address) override {
    v1::PrefillEvent event;
    event.mutable_reserved()->set_decode_address(address);
    stream_->push(std::move(event));
  }
  void on_token(const TokenEvent& token) override {
    v1::PrefillEvent event;
    to_proto(token, *event.mutable_first_token());
    stream_->push(std::move(event));
  }
  void on_handed_over() override {
    v1::PrefillEvent event;
    event.mutable_handed_over();
    stream_->push(std::move(event));
    stream_->finish(Status::ok());
  }
  void on_error(const Status& status) override { stream_->finish(status); }

 private:
  std::shared_ptr<PrefillStream> stream_;  // shared with gRPC
};

}  // namespace

class PrefillServiceImpl::Service final : public v1::PrefillService::CallbackService {
 public:
  Service(PrefillWorker& worker, const ServiceLimits& limits)
      : worker_(worker),
        limits_(limits),
        open_calls_(std::make_shared<OpenCalls>(limits.max_open_calls)) {}
  ~Service() override { writer_->stop_blocking(); }
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  grpc::ServerWriteReactor<v1::PrefillEvent>* Prefill(grpc::CallbackServerContext* context,
                                                      const v1::PrefillRequest* request) override {
    const HandoffKey key = from_proto(request->key());
    const auto stream = PrefillStream::open({context,
                                             open_calls_,
                                             limits_.max_queued_events,
                                             key.to_string(),
                                             [this, key] { worker_.cancel(key); },
                                             writer_,
                                             StatusCode::kAborted});
    const Status status = submit(*request, stream);
    if (status.is_ok()) {
      stream->start();
    } else {
      stream->refuse(status);
    }
    return stream.get();
  }

 private:
  Status submit(const v1::PrefillRequest& request, const std::shared_ptr<PrefillStream>& stream) {
    TESSERA_RETURN_IF_ERROR(stream->take_place());
    const int64_t max_prompt_tokens = std::min(worker_.info().max_model_len, kMaxPromptTokens);
    TESSERA_TRY(auto prefill, from_proto(request, max_prompt_tokens));
    return worker_.prefill(std::move(prefill), std::make_shared<StreamSink>(stream));
  }

  PrefillWorker& worker_;
  const ServiceLimits limits_;
  const std::shared_ptr<OpenCalls> open_calls_;  // shared with the calls
  const std::shared_ptr<StreamWriter> writer_ = std::make_shared<StreamWriter>();  // likewise
};

PrefillServiceImpl::PrefillServiceImpl(PrefillWorker& worker, const ServiceLimits& limits)
    : service_(std::make_unique<Service>(worker, limits)) {}
PrefillServiceImpl::~PrefillServiceImpl() = default;
grpc::Service& PrefillServiceImpl::grpc_service() noexcept {
  return *service_;
}
std::string_view PrefillServiceImpl::name() const noexcept {
  return v1::PrefillService::service_full_name();
}

}  // namespace tessera::rpc
