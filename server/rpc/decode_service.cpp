#include "server/rpc/decode_service.h"

#include <algorithm>
#include <utility>

#include "proto/tessera/decode.grpc.pb.h"
#include "server/rpc/choice_tracker.h"
#include "server/rpc/event_stream.h"
#include "server/rpc/handoff_call.h"
#include "server/rpc/wire_limits.h"

namespace tessera::rpc {
namespace {

using DecodeStream = EventStream<v1::DecodeEvent>;

/// Ends the stream with the last choice, or when the worker lets go of the sink.
class StreamSink final : public TokenSink {
 public:
  StreamSink(std::shared_ptr<DecodeStream> stream, const ChoiceTracker& choices)
      : stream_(std::move(stream)), choices_(choices) {}
  ~StreamSink() override {
    stream_->finish(choices_.may_end_here()
                        ? Status::ok()
                        : internal_error("the worker dropped the request without a result"));
  }
  StreamSink(const StreamSink&) = delete;
  StreamSink& operator=(const StreamSink&) = delete;

  void on_token(const TokenEvent& token) override {
    v1::DecodeEvent event;
    to_proto(token, *event.mutable_token());
    stream_->push(std::move(event));
    choices_.count(token);
    if (choices_.is_complete()) {
      stream_->finish(Status::ok());
    }
  }
  void on_error(const Status& status) override { stream_->finish(status); }

 private:
  std::shared_ptr<DecodeStream> stream_;  // shared with gRPC
  ChoiceTracker choices_;
};

}  // namespace

class DecodeServiceImpl::Service final : public v1::DecodeService::CallbackService {
 public:
  Service(DecodeWorker& worker, PrefillDoor& door, const ServiceLimits& limits)
      : worker_(worker),
        door_(door),
        limits_(limits),
        open_calls_(std::make_shared<OpenCalls>(limits.max_open_calls)),
        open_links_(std::make_shared<OpenCalls>(limits.max_open_calls)) {}
  ~Service() override { writer_->stop_blocking(); }
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  grpc::ServerWriteReactor<v1::DecodeEvent>* Attach(grpc::CallbackServerContext* context,
                                                    const v1::AttachRequest* request) override {
    const auto stream = open(context, from_proto(request->key()));
    start(*stream, attach(*request, stream));
    return stream.get();
  }

  grpc::ServerWriteReactor<v1::DecodeEvent>* Generate(grpc::CallbackServerContext* context,
                                                      const v1::GenerateRequest* request) override {
    const auto stream = open(context, from_proto(request->key()));
    start(*stream, generate(*request, stream));
    return stream.get();
  }

  grpc::ServerBidiReactor<v1::PrefillMessage, v1::DecodeMessage>* Handoff(
      grpc::CallbackServerContext* context) override {
    return HandoffCall::open({context, &door_, open_links_, limits_.link_outbox}).get();
  }

  void end_links() { open_links_->end_all(unavailable("the decode leader is shutting down")); }

 private:
  std::shared_ptr<DecodeStream> open(grpc::CallbackServerContext* context, const HandoffKey& key) {
    return DecodeStream::open({context,
                               open_calls_,
                               limits_.max_queued_events,
                               key.to_string(),
                               [this, key] { worker_.cancel(key); },
                               writer_,
                               StatusCode::kAborted});
  }

  static void start(DecodeStream& stream, const Status& status) {
    if (!status.is_ok()) {
      stream.refuse(status);
      return;
    }
    v1::DecodeEvent attached;
    attached.mutable_attached();
    stream.start(std::move(attached));
  }

  Status attach(const v1::AttachRequest& request, const std::shared_ptr<DecodeStream>& stream) {
    TESSERA_RETURN_IF_ERROR(stream->take_place());
    TESSERA_TRY(auto attach_request, from_proto(request));
    auto sink =
        std::make_shared<StreamSink>(stream, ChoiceTracker(attach_request.num_choices, true));
    return worker_.attach(std::move(attach_request), std::move(sink));
  }

  Status generate(const v1::GenerateRequest& request, const std::shared_ptr<DecodeStream>& stream) {
    TESSERA_RETURN_IF_ERROR(stream->take_place());
    const int64_t max_prompt_tokens = std::min(worker_.info().max_model_len, kMaxPromptTokens);
    TESSERA_TRY(auto keyed, from_proto(request, max_prompt_tokens));
    auto sink =
        std::make_shared<StreamSink>(stream, ChoiceTracker(keyed.second.num_choices, false));
    return worker_.generate(keyed.first, std::move(keyed.second), std::move(sink));
  }

  DecodeWorker& worker_;
  PrefillDoor& door_;
  const ServiceLimits limits_;
  const std::shared_ptr<OpenCalls> open_calls_;  // shared with the calls
  const std::shared_ptr<StreamWriter> writer_ = std::make_shared<StreamWriter>();  // likewise
  const std::shared_ptr<OpenCalls> open_links_;  // shared with the links
};

DecodeServiceImpl::DecodeServiceImpl(DecodeWorker& worker,
                                     PrefillDoor& door,
                                     const ServiceLimits& limits)
    : service_(std::make_unique<Service>(worker, door, limits)) {}
DecodeServiceImpl::~DecodeServiceImpl() = default;
grpc::Service& DecodeServiceImpl::grpc_service() noexcept {
  return *service_;
}
std::string_view DecodeServiceImpl::name() const noexcept {
  return v1::DecodeService::service_full_name();
}
void DecodeServiceImpl::end_endless_calls() {
  service_->end_links();
}

}  // namespace tessera::rpc
