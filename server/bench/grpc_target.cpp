#include "server/bench/grpc_target.h"

#include <atomic>
#include <thread>
#include <utility>

#include <boost/asio/post.hpp>
#include <grpcpp/alarm.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/async_stream.h>
#include <nlohmann/json.hpp>
#include <pthread.h>

#include "engine/base/check.h"
#include "engine/base/text.h"
#include "proto/tessera/inference.grpc.pb.h"
#include "server/bench/lag_samples.h"
#include "server/bench/open_exchanges.h"
#include "server/rpc/grpc_process.h"

namespace tessera::bench {
namespace {

// A connection's streams are written by one thread at a time; servers may limit them, too.
constexpr size_t kConnections = 4;
constexpr std::chrono::seconds kProbePatience{10};
// gRPC ends a cancelled call by itself, whatever the server does.
constexpr std::chrono::seconds kCancelPatience{30};
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

/// What waits in a completion queue.
class Event {
 public:
  Event() = default;
  virtual ~Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  /// On the receiver's thread, right after it was taken at `now`.
  virtual void take(bool is_ok, Clock::time_point now) = 0;
};

/// One call. It lives until gRPC has told its status.
class GrpcExchange final : public Exchange,
                           public Event,
                           public std::enable_shared_from_this<GrpcExchange> {
 public:
  struct Parts {
    v1::InferenceService::Stub& stub;
    grpc::CompletionQueue& queue;
    OpenExchanges& open;
    boost::asio::io_context& loop;
    Counter& num_events;
  };
  GrpcExchange(const BenchSettings& settings, const Prompt& prompt, const Parts& parts)
      : timeout_(settings.request_timeout),
        parts_(parts),
        request_(make_request(settings, prompt)),
        trace_(record(), parts.num_events) {
    prepare_context(settings, context_);
  }

  void start(std::function<void()> on_done) override {
    on_done_ = std::move(on_done);
    parts_.open.add(shared_from_this());
    record().sent = Clock::now();
    context_.set_deadline(std::chrono::system_clock::now() + timeout_);
    reader_ = parts_.stub.PrepareAsyncGenerate(&context_, request_, &parts_.queue);
    reader_->StartCall(tag());
  }
  void stop(Outcome outcome) override {
    stopped_as_ = outcome;
    context_.TryCancel();
  }

  void take(bool is_ok, Clock::time_point now) override {
    if (is_finishing_) {
      end(now);
      return;
    }
    if (is_started_ && is_ok) {
      on_event(now);
    }
    is_started_ = true;
    if (is_ok) {
      reader_->Read(&event_, tag());
      return;
    }
    is_finishing_ = true;
    reader_->Finish(&status_, tag());
  }

 private:
  [[nodiscard]] void* tag() noexcept { return static_cast<Event*>(this); }

  void on_event(Clock::time_point now) {
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
  }

  void end(Clock::time_point now) {
    RequestRecord& end = record();
    end.done = now;
    if (end.completion_tokens == 0) {
      end.completion_tokens = end.num_content_events;
    }
    end.outcome = status_.ok() ? Outcome::kCompleted : stopped_as_.load();
    if (status_.ok() && end.num_content_events == 0) {
      end.outcome = Outcome::kFailed;
      end.error = "answer without text";
    } else if (end.outcome == Outcome::kFailed) {
      end.error = str_cat(status_code_name(static_cast<StatusCode>(status_.error_code())),
                          ": ",
                          status_.error_message().substr(0, kMaxMessageBytes));
    }
    const auto self = shared_from_this();  // whoever else holds it lets go of it now
    parts_.open.remove(*this);  // first: once the lane has heard of the last end, none is open
    boost::asio::post(parts_.loop, std::move(on_done_));
  }

  const std::chrono::milliseconds timeout_;
  const Parts parts_;
  const v1::GenerateTextRequest request_;
  StreamTrace trace_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateTextEvent>> reader_;
  v1::GenerateTextEvent event_;
  grpc::Status status_;
  std::function<void()> on_done_;
  bool is_started_ = false;  // of the receiver's thread, as is_finishing_
  bool is_finishing_ = false;
  std::atomic<Outcome> stopped_as_{Outcome::kFailed};
};

/// A mark that passes through the queue behind the events that are there: how long it takes is how
/// late the receiver is. The lane's thread sends it, the receiver's takes it.
class LagProbe final : public Event {
 public:
  void send(grpc::CompletionQueue& queue) {
    if (is_under_way_.load(std::memory_order_acquire)) {
      return;  // the receiver is late by more than a period, and will know it
    }
    is_under_way_.store(true, std::memory_order_relaxed);
    sent_ = Clock::now();
    alarm_.Set(&queue, gpr_time_0(GPR_CLOCK_REALTIME), static_cast<Event*>(this));
  }
  void take(bool /*is_ok*/, Clock::time_point now) override {
    add_lag_samples(sent_, now, lag_ms_);
    is_under_way_.store(false, std::memory_order_release);
  }
  [[nodiscard]] std::vector<float> take_samples() { return std::move(lag_ms_); }

 private:
  grpc::Alarm alarm_;
  std::atomic<bool> is_under_way_{false};  // hands over the rest
  Clock::time_point sent_;
  std::vector<float> lag_ms_;
};

}  // namespace

struct GrpcTarget::Connection {
  explicit Connection(const TargetAddress& target)
      : stub(v1::InferenceService::NewStub(make_channel(target))) {}
  std::unique_ptr<v1::InferenceService::Stub> stub;
};

/// A completion queue and the thread that empties it.
class GrpcTarget::Receiver final {
 public:
  Receiver() : thread_([this] { run_blocking(); }) {}
  ~Receiver() {
    // Whoever wanted to know what was still open has ended it before.
    static_cast<void>(end_blocking(Deadline(Clock::now())));
  }
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  [[nodiscard]] grpc::CompletionQueue& queue() noexcept { return queue_; }
  [[nodiscard]] OpenExchanges& open() noexcept { return open_; }
  void probe() { probe_.send(queue_); }
  /// Takes what is still under way; nothing may be begun after it. Errors: DEADLINE_EXCEEDED when
  /// calls were open at the deadline, which are cancelled then.
  [[nodiscard]] Status end_blocking(const Deadline& deadline) {
    if (!thread_.joinable()) {
      return Status::ok();
    }
    const size_t num_cancelled = open_.wait_until_none_blocking(deadline) ? 0 : cancel_blocking();
    queue_.Shutdown();  // a call's next operation would be a fault now
    thread_.join();     // behind it there is at most a probe, which is due
    if (num_cancelled > 0) {
      return {
          StatusCode::kDeadlineExceeded,
          str_cat("gRPC calls open at the end of their receiver: ", num_cancelled, ", expected 0")};
    }
    return Status::ok();
  }
  /// After end_blocking().
  [[nodiscard]] std::vector<float> take_lag_ms() { return probe_.take_samples(); }

 private:
  /// How many calls were open.
  size_t cancel_blocking() {
    const size_t num_open = open_.stop_all(Outcome::kUnfinished);
    TESSERA_CHECK(open_.wait_until_none_blocking(Deadline::after(kCancelPatience)),
                  str_cat("gRPC has not ended all of ",
                          num_open,
                          " cancelled calls within ",
                          kCancelPatience.count(),
                          " s"));
    return num_open;
  }
  void run_blocking() {
    pthread_setname_np(pthread_self(), "bench-receive");
    void* tag = nullptr;
    bool is_ok = false;
    while (queue_.Next(&tag, &is_ok)) {
      static_cast<Event*>(tag)->take(is_ok, Clock::now());
    }
  }

  grpc::CompletionQueue queue_;
  OpenExchanges open_;
  LagProbe probe_;
  std::jthread thread_;  // last: it uses the others
};

GrpcTarget::GrpcTarget(const BenchSettings& settings,
                       boost::asio::io_context& loop,
                       Counter& num_events)
    : settings_(settings),
      loop_(loop),
      num_events_(num_events),
      receiver_(std::make_unique<Receiver>()) {
  for (size_t i = 0; i < kConnections; ++i) {
    connections_.push_back(std::make_unique<Connection>(settings.target));
  }
}

GrpcTarget::~GrpcTarget() = default;

std::shared_ptr<Exchange> GrpcTarget::prepare(const Prompt& prompt, int64_t index) {
  Connection& connection = *connections_[static_cast<size_t>(index) % connections_.size()];
  return std::make_shared<GrpcExchange>(settings_,
                                        prompt,
                                        GrpcExchange::Parts{.stub = *connection.stub,
                                                            .queue = receiver_->queue(),
                                                            .open = receiver_->open(),
                                                            .loop = loop_,
                                                            .num_events = num_events_});
}

void GrpcTarget::probe_receiver() {
  receiver_->probe();
}

Result<std::vector<float>> GrpcTarget::end_receiver_blocking(const Deadline& deadline) {
  TESSERA_RETURN_IF_ERROR(receiver_->end_blocking(deadline));
  return receiver_->take_lag_ms();
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
