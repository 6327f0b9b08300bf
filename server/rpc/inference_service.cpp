#include "server/rpc/inference_service.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/base/log.h"
#include "proto/tessera/inference.grpc.pb.h"
#include "server/rpc/call_key.h"
#include "server/rpc/convert.h"
#include "server/rpc/job_queue.h"
#include "server/rpc/text_preparer.h"
#include "server/rpc/text_session.h"

namespace tessera::rpc {
namespace {

/// The client's, or the server's where that comes first.
Deadline deadline_of(const grpc::CallbackServerContext& context,
                     std::chrono::milliseconds request_timeout) {
  const auto left = context.deadline() - std::chrono::system_clock::now();
  const Deadline client = context.deadline() == std::chrono::system_clock::time_point::max()
                              ? Deadline()
                              : Deadline::after(left);
  const Deadline server =
      request_timeout.count() > 0 ? Deadline::after(request_timeout) : Deadline();
  return Deadline(std::min(client.at(), server.at()));
}

TraceContext trace_of(const grpc::CallbackServerContext& context) {
  const auto entry = context.client_metadata().find("traceparent");
  return entry == context.client_metadata().end()
             ? TraceContext::random()
             : TraceContext::parse_or_random({entry->second.data(), entry->second.size()});
}

/// Of waiting drains there is one a session at most: they need no bound of their own.
JobQueue::Bounds text_thread_bounds() {
  return {.num_threads = 1, .max_jobs = std::numeric_limits<size_t>::max(), .max_bytes = 0};
}

}  // namespace

class InferenceServiceImpl::Service final : public v1::InferenceService::CallbackService {
 public:
  Service(InferenceOptions options, const Parts& parts)
      : options_(std::move(options)),
        parts_(parts),
        preparer_(options_, parts_.tokenizer, parts_.chat_template),
        open_calls_(std::make_shared<OpenCalls>(options_.limits.max_open_calls)),
        text_thread_(std::make_shared<JobQueue>(text_thread_bounds())),
        jobs_({options_.num_text_threads, options_.max_text_jobs, options_.max_text_job_bytes}) {}
  ~Service() override {
    jobs_.stop_blocking();
    text_thread_->stop_blocking();
  }
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  grpc::ServerWriteReactor<v1::GenerateTextEvent>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateTextRequest* request) override {
    const RequestId id = RequestId::random();
    const auto weak_session = std::make_shared<std::weak_ptr<TextSession>>();
    const auto stream = TextStream::open(
        {context, open_calls_, options_.limits.max_queued_events, id.to_string(), [weak_session] {
           if (const auto session = weak_session->lock()) {
             session->cancel();
           }
         }});
    const auto session = std::make_shared<TextSession>(
        TextSession::Parts{parts_.service, parts_.tokenizer, text_thread_}, stream);
    *weak_session = session;  // gRPC's first reaction comes after this function
    const Status status = begin(*context, *request, id, {session, stream});
    if (!status.is_ok()) {
      stream->refuse(status);
    }
    return stream.get();
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    return answer(*context, request->ByteSizeLong(), [this, request, response] {
      return preparer_.tokenize(*request, *response);
    });
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    return answer(*context, request->ByteSizeLong(), [this, request, response] {
      return preparer_.detokenize(*request, *response);
    });
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* /*request*/,
                                       v1::ListModelsResponse* response) override {
    log_debug("rpc_call_opened", "x_request_id", pass_request_id(*context));
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const Status status = check_key(*context);
    if (status.is_ok()) {
      for (const std::string& name : options_.served_model_names) {
        v1::Model& model = *response->add_models();
        model.set_name(name);
        model.set_max_model_len(options_.max_model_len);
      }
    }
    reactor->Finish(to_grpc(status));
    return reactor;
  }

 private:
  struct Origin {
    RequestId id;
    Deadline deadline;
    TraceContext trace;
  };
  struct Call {
    std::shared_ptr<TextSession> session;
    std::shared_ptr<TextStream> stream;
  };

  Status check_key(const grpc::CallbackServerContext& context) const {
    return is_call_allowed(context, options_.allows_key)
               ? Status::ok()
               : Status(StatusCode::kUnauthenticated, "the API key is missing or not known");
  }

  Status post(size_t num_bytes, std::function<void()> job) {
    return jobs_.try_post(static_cast<int64_t>(num_bytes), std::move(job))
               ? Status::ok()
               : resource_exhausted("too many texts wait to be tokenised");
  }

  Status begin(const grpc::CallbackServerContext& context,
               const v1::GenerateTextRequest& request,
               const RequestId& id,
               Call call) {
    TESSERA_RETURN_IF_ERROR(check_key(context));
    TESSERA_RETURN_IF_ERROR(call.stream->take_place());
    Origin origin{.id = id,
                  .deadline = deadline_of(context, options_.request_timeout),
                  .trace = trace_of(context)};
    // A copy: a cancelled call takes its message along.
    return post(request.ByteSizeLong(), [this, copy = request, origin, call] {
      const Status status = prepare_and_submit(copy, origin, *call.session);
      if (!status.is_ok()) {
        call.stream->refuse(status);
      }
    });
  }

  Status prepare_and_submit(const v1::GenerateTextRequest& request,
                            const Origin& origin,
                            TextSession& session) const {
    TESSERA_TRY(auto prepared, preparer_.prepare(request));
    if (origin.deadline.is_expired()) {
      return {StatusCode::kDeadlineExceeded, "the request's deadline passed before it began"};
    }
    prepared.generation.id = origin.id;
    prepared.generation.deadline = origin.deadline;
    prepared.generation.trace = origin.trace;
    log_debug("request_submitted",
              "request_id",
              origin.id.to_string(),
              "trace_id",
              origin.trace.trace_id());
    session.submit(std::move(prepared));
    return Status::ok();
  }

  /// Runs `work` on a text thread. The call, with its messages, lives until it is finished.
  template <typename Work>
  grpc::ServerUnaryReactor* answer(grpc::CallbackServerContext& context,
                                   size_t num_bytes,
                                   Work work) {
    log_debug("rpc_call_opened", "x_request_id", pass_request_id(context));
    grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
    Status status = check_key(context);
    if (status.is_ok()) {
      status = post(num_bytes, [work, reactor] { reactor->Finish(to_grpc(work())); });
    }
    if (!status.is_ok()) {
      reactor->Finish(to_grpc(status));
    }
    return reactor;
  }

  const InferenceOptions options_;
  const Parts parts_;
  const TextPreparer preparer_;
  const std::shared_ptr<OpenCalls> open_calls_;  // shared with the calls
  const std::shared_ptr<JobQueue> text_thread_;  // shared with the sessions
  JobQueue jobs_;                                // last: its threads use the rest
};

InferenceServiceImpl::InferenceServiceImpl(InferenceOptions options, const Parts& parts)
    : service_(std::make_unique<Service>(std::move(options), parts)) {}
InferenceServiceImpl::~InferenceServiceImpl() = default;
grpc::Service& InferenceServiceImpl::grpc_service() noexcept {
  return *service_;
}
std::string_view InferenceServiceImpl::name() const noexcept {
  return v1::InferenceService::service_full_name();
}

}  // namespace tessera::rpc
