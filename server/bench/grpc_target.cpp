#include "server/bench/grpc_target.h"

#include <atomic>
#include <utility>

#include <boost/asio/post.hpp>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/client_callback.h>
#include <nlohmann/json.hpp>

#include "engine/base/text.h"
#include "proto/tessera/inference.grpc.pb.h"
#include "server/rpc/grpc_process.h"

namespace tessera::bench {
namespace {

// A connection's streams are written by one thread at a time; servers may limit them, too.
constexpr size_t kConnections = 4;
constexpr std::chrono::seconds kProbePatience{10};
constexpr size_t kMaxMessageBytes = 160;

std::string address_of(const TargetAddress& target) {
  const bool is_v6 = target.host.find(':') != std::string::npos;
  return is_v6 ? str_cat("[", target.host, "]:", target.port)
               : str_cat(target.host, ":", target.port);
}

std::shared_ptr<grpc::Channel> make_channel(const TargetAddress& target) {
  rpc::set_up_grpc();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // else all would share a connection
  return grpc::CreateCustomChannel(
      address_of(target), grpc::InsecureChannelCredentials(), arguments);
}

void prepare_context(const BenchSettings& settings, grpc::ClientContext& context) {
  if (!settings.api_key.empty()) {
    context.AddMetadata("authorization", "Bearer " + settings.api_key);
  }
}

std::string text_member(const nlohmann::json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

v1::GenerateTextRequest make_request(const BenchSettings& settings, const Prompt& prompt) {
  v1::GenerateTextRequest request;
  request.set_model(settings.model);
  if (!prompt.messages_json.empty()) {
    const auto list =
        nlohmann::json::parse(prompt.messages_json, nullptr, /*allow_exceptions=*/false);
    for (const auto& entry : list) {
      v1::ChatMessage* message = request.mutable_chat()->add_messages();
      message->set_role(text_member(entry, "role"));
      message->set_content(text_member(entry, "content"));
    }
  } else if (settings.api == Api::kChat) {
    v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content(prompt.text.empty() ? text_of(prompt.token_ids) : prompt.text);
  } else if (!prompt.token_ids.empty()) {
    request.mutable_token_ids()->mutable_ids()->Add(prompt.token_ids.begin(),
                                                    prompt.token_ids.end());
  } else {
    request.set_text(prompt.text);
  }
  v1::SamplingParams* sampling = request.mutable_sampling();
  sampling->set_max_tokens(prompt.output_tokens);
  sampling->set_temperature(static_cast<float>(settings.temperature));
  sampling->set_ignore_eos(settings.ignore_eos);
  return request;
}

/// One call. It lives until gRPC's OnDone.
class GrpcExchange final : public Exchange,
                           public grpc::ClientReadReactor<v1::GenerateTextEvent>,
                           public std::enable_shared_from_this<GrpcExchange> {
 public:
  GrpcExchange(const BenchSettings& settings,
               const Prompt& prompt,
               v1::InferenceService::Stub& stub,
               boost::asio::io_context& loop,
               Counter& num_events)
      : timeout_(settings.request_timeout),
        stub_(stub),
        loop_(loop),
        request_(make_request(settings, prompt)),
        trace_(record(), num_events) {
    prepare_context(settings, context_);
  }

  void start(std::function<void()> on_done) override {
    on_done_ = std::move(on_done);
    self_ = shared_from_this();
    record().sent = Clock::now();
    context_.set_deadline(std::chrono::system_clock::now() + timeout_);
    stub_.async()->Generate(&context_, &request_, this);
    StartRead(&event_);
    StartCall();
  }
  void stop(Outcome outcome) override {
    stopped_as_ = outcome;
    context_.TryCancel();
  }

  void OnReadDone(bool is_ok) override {
    if (!is_ok) {
      return;  // OnDone follows
    }
    const Clock::time_point now = Clock::now();
    trace_.on_bytes(now);
    if (!event_.text().empty()) {
      trace_.on_content(now);
    }
    if (event_.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      trace_.on_finish_reason(now);
    }
    if (event_.has_usage()) {
      record().prompt_tokens = event_.usage().prompt_tokens();
      record().completion_tokens = event_.usage().completion_tokens();
    }
    if (is_to_be_cancelled() && !event_.has_usage()) {
      stop(Outcome::kCancelled);
    }
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    RequestRecord& end = record();
    end.done = Clock::now();
    if (end.completion_tokens == 0) {
      end.completion_tokens = end.num_content_events;
    }
    end.outcome = status.ok() ? Outcome::kCompleted : stopped_as_.load();
    if (status.ok() && end.num_content_events == 0) {
      end.outcome = Outcome::kFailed;
      end.error = "answer without text";
    } else if (end.outcome == Outcome::kFailed) {
      end.error = str_cat(status_code_name(static_cast<StatusCode>(status.error_code())),
                          ": ",
                          status.error_message().substr(0, kMaxMessageBytes));
    }
    // The lane lets go of the exchange; after that nothing here may touch it.
    const auto self = std::move(self_);
    boost::asio::post(loop_, std::move(on_done_));
  }

 private:
  const std::chrono::milliseconds timeout_;
  v1::InferenceService::Stub& stub_;
  boost::asio::io_context& loop_;
  const v1::GenerateTextRequest request_;
  StreamTrace trace_;
  grpc::ClientContext context_;
  v1::GenerateTextEvent event_;
  std::function<void()> on_done_;
  std::shared_ptr<GrpcExchange> self_;  // until OnDone
  std::atomic<Outcome> stopped_as_{Outcome::kFailed};
};

}  // namespace

struct GrpcTarget::Connection {
  explicit Connection(const TargetAddress& target)
      : stub(v1::InferenceService::NewStub(make_channel(target))) {}
  std::unique_ptr<v1::InferenceService::Stub> stub;
};

GrpcTarget::GrpcTarget(const BenchSettings& settings,
                       boost::asio::io_context& loop,
                       Counter& num_events)
    : settings_(settings), loop_(loop), num_events_(num_events) {
  for (size_t i = 0; i < kConnections; ++i) {
    connections_.push_back(std::make_unique<Connection>(settings.target));
  }
}

GrpcTarget::~GrpcTarget() = default;

std::shared_ptr<Exchange> GrpcTarget::prepare(const Prompt& prompt, int64_t index) {
  Connection& connection = *connections_[static_cast<size_t>(index) % connections_.size()];
  return std::make_shared<GrpcExchange>(settings_, prompt, *connection.stub, loop_, num_events_);
}

Result<std::string> probe_grpc_blocking(const BenchSettings& settings) {
  const auto stub = v1::InferenceService::NewStub(make_channel(settings.target));
  grpc::ClientContext context;
  prepare_context(settings, context);
  context.set_deadline(std::chrono::system_clock::now() + kProbePatience);
  v1::ListModelsResponse models;
  const grpc::Status status = stub->ListModels(&context, {}, &models);
  if (!status.ok()) {
    return Status(static_cast<StatusCode>(status.error_code()), status.error_message())
        .with_context(address_of(settings.target));
  }
  return models.models_size() == 0 ? std::string() : models.models(0).name();
}

}  // namespace tessera::bench
