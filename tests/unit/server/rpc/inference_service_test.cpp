// The public API over loopback: a scripted service behind it, a foreign client in front.
#include "server/rpc/inference_service.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include "engine/chat/chat_template.h"
#include "proto/tessera/inference.grpc.pb.h"
#include "tests/support/byte_tokenizer.h"
#include "tests/support/scripted_service.h"
#include "tests/unit/server/rpc/fake_workers.h"
#include "tests/unit/server/rpc/loopback.h"

namespace tessera::rpc::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int64_t kMaxModelLen = 64;
constexpr int32_t kEuroAndHalf = ByteTokenizer::kFirstExtra;  // "€" and a half of the next

/// A ScriptedService whose submissions and cancels a test waits for.
class WatchedService final : public GenerationService, public Watched {
 public:
  Status submit(GenerationRequest request, std::shared_ptr<TokenSink> sink) override {
    Status status;
    change([&] { status = script_.submit(std::move(request), std::move(sink)); });
    return status;
  }
  void cancel(const RequestId& id) override {
    change([&] { script_.cancel(id); });
  }
  [[nodiscard]] Status readiness() const override { return Status::ok(); }
  void refuse(const Status& status) {
    change([&] { script_.refuse(status); });
  }

  [[nodiscard]] bool wait_for_submits_blocking(size_t num_submits) const {
    return wait_blocking([&] { return script_.num_submitted() >= num_submits; });
  }
  [[nodiscard]] bool wait_for_cancels_blocking(size_t num_cancels) const {
    return wait_blocking([&] { return script_.num_cancels() >= num_cancels; });
  }
  [[nodiscard]] ScriptedService& script() { return script_; }

 private:
  ScriptedService script_;
};

/// One Generate call of a client.
struct Call {
  explicit Call(v1::InferenceService::Stub& stub, const v1::GenerateTextRequest& request)
      : Call(stub, request, seconds(20)) {}
  Call(v1::InferenceService::Stub& stub,
       const v1::GenerateTextRequest& request,
       milliseconds timeout) {
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    reader = stub.Generate(&context, request);
  }
  /// Reads to the end.
  [[nodiscard]] grpc::Status finish_blocking() {
    v1::GenerateTextEvent event;
    while (reader->Read(&event)) {
      events.push_back(event);
    }
    return reader->Finish();
  }
  [[nodiscard]] std::string text(int32_t choice = 0) const {
    std::string out;
    for (const auto& event : events) {
      out += event.choice() == choice ? event.text() : "";
    }
    return out;
  }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::GenerateTextEvent>> reader;
  std::vector<v1::GenerateTextEvent> events;
};

class InferenceServiceTest : public ::testing::Test {
 protected:
  static InferenceOptions make_options() {
    InferenceOptions options;
    options.served_model_names = {"first", "second"};
    options.max_model_len = kMaxModelLen;
    options.vocab_size = ByteTokenizer::kFirstExtra + 1;
    return options;
  }
  void serve(InferenceOptions options, bool has_chat = true) {
    server_.reset();
    api_ = std::make_unique<InferenceServiceImpl>(
        std::move(options),
        InferenceServiceImpl::Parts{service_, tokenizer_, has_chat ? &template_ : nullptr});
    server_ = start_server({api_.get()});
    stub_ = v1::InferenceService::NewStub(connect(server_->address())->grpc_channel());
  }
  void SetUp() override { serve(make_options()); }

  static v1::GenerateTextRequest text_request(const std::string& text) {
    v1::GenerateTextRequest request;
    request.set_text(text);
    return request;
  }
  static grpc::Status run_blocking(v1::InferenceService::Stub& stub,
                                   const v1::GenerateTextRequest& request) {
    Call call(stub, request);
    return call.finish_blocking();
  }
  ScriptedService& script() { return service_.script(); }

  const ByteTokenizer tokenizer_{{"\xE2\x82\xAC\xE2"}};
  const ChatTemplate template_ =
      ChatTemplate::parse(
          "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
          "{% if add_generation_prompt %}>{% endif %}")
          .value();
  WatchedService service_;
  std::unique_ptr<InferenceServiceImpl> api_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
};

TEST_F(InferenceServiceTest, StreamsTheTokensOfATextPrompt) {
  v1::GenerateTextRequest request = text_request("ab");
  request.set_model("second");
  request.mutable_sampling()->set_temperature(0.5F);
  Call call(*stub_, request);
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  const GenerationRequest& seen = script().request(0);
  EXPECT_EQ(seen.prompt_ids, (std::vector<int32_t>{ByteTokenizer::kBos, 'a', 'b'}));
  EXPECT_EQ(seen.sampling.temperature, 0.5F);
  EXPECT_EQ(seen.sampling.max_tokens, kMaxModelLen - 3);  // up to the context
  EXPECT_EQ(seen.num_choices, 1);
  EXPECT_FALSE(seen.deadline.is_infinite());

  TokenEvent first;
  first.token_id = 'x';
  first.num_cached_tokens = 2;
  script().emit(0, first);
  script().emit(0, kEuroAndHalf);
  script().emit(0, 0x82);
  script().emit(0, 0xAC);
  script().finish(0, ByteTokenizer::kEos, FinishReason::kStop);
  const grpc::Status status = call.finish_blocking();
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(call.events.size(), 5U);
  const std::vector<std::string> texts = {"x", "€", "", "€", ""};
  const std::vector<int32_t> ids = {'x', kEuroAndHalf, 0x82, 0xAC, ByteTokenizer::kEos};
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(call.events[i].text(), texts[i]) << i;
    ASSERT_EQ(call.events[i].tokens_size(), 1) << i;
    EXPECT_EQ(call.events[i].tokens(0).token_id(), ids[i]) << i;
    EXPECT_EQ(call.events[i].has_usage(), i == 4) << i;
  }
  EXPECT_EQ(call.events[4].finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(call.events[4].usage().prompt_tokens(), 3);
  EXPECT_EQ(call.events[4].usage().completion_tokens(), 5);
  EXPECT_EQ(call.events[4].usage().cached_tokens(), 2);
  EXPECT_EQ(script().num_cancels(), 0U);
}

TEST_F(InferenceServiceTest, TakesTokenIdsAsTheyAre) {
  v1::GenerateTextRequest request;
  for (const int32_t id : {7, 9}) {
    request.mutable_token_ids()->add_ids(id);
  }
  request.mutable_sampling()->set_max_tokens(3);
  Call call(*stub_, request);
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  EXPECT_EQ(script().request(0).prompt_ids, (std::vector<int32_t>{7, 9}));
  EXPECT_EQ(script().request(0).sampling.max_tokens, 3);
  script().finish(0, 'z', FinishReason::kLength);
  EXPECT_TRUE(call.finish_blocking().ok());
  ASSERT_EQ(call.events.size(), 1U);
  EXPECT_EQ(call.events[0].text(), "z");
  EXPECT_EQ(call.events[0].finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(InferenceServiceTest, RendersChatWithTheTemplate) {
  v1::GenerateTextRequest request;
  v1::ChatMessage& message = *request.mutable_chat()->add_messages();
  message.set_role("user");
  message.set_content("\"hi\"\n");
  Call call(*stub_, request);
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  const std::string rendered = "user:\"hi\"\n;>";
  EXPECT_EQ(script().request(0).prompt_ids, std::vector<int32_t>(rendered.begin(), rendered.end()));
  script().finish(0, 'z', FinishReason::kLength);
  EXPECT_TRUE(call.finish_blocking().ok());

  serve(make_options(), /*has_chat=*/false);
  const grpc::Status status = run_blocking(*stub_, request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(status.error_message().find("chat template"), std::string::npos);
}

TEST_F(InferenceServiceTest, StopStringAcrossTokensCutsTheTextAndCancelsOnce) {
  v1::GenerateTextRequest request = text_request("a");
  request.add_stop("END");
  Call call(*stub_, request);
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  for (const char c : std::string("one END two")) {
    script().emit(0, c);
  }
  const grpc::Status status = call.finish_blocking();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(call.text(), "one ");
  ASSERT_FALSE(call.events.empty());
  EXPECT_EQ(call.events.back().finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(call.events.back().usage().completion_tokens(), 7);
  EXPECT_TRUE(script().is_cancelled(0));
  server_.reset();
  EXPECT_EQ(script().num_cancels(), 1U);
}

TEST_F(InferenceServiceTest, ChoicesEndOneByOne) {
  v1::GenerateTextRequest request = text_request("a");
  request.set_num_choices(2);
  request.add_stop("!");
  Call call(*stub_, request);
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  EXPECT_EQ(script().request(0).num_choices, 2);
  script().emit(0, 'p', 0);
  script().emit(0, 'q', 1);
  script().emit(0, '!', 0);  // this choice is over for the client
  script().emit(0, 'r', 0);
  script().finish(0, 's', FinishReason::kLength, 1);
  const grpc::Status status = call.finish_blocking();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(call.text(0), "p");
  EXPECT_EQ(call.text(1), "qs");
  ASSERT_EQ(call.events.size(), 4U);
  EXPECT_EQ(call.events[2].finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_FALSE(call.events[2].has_usage());
  EXPECT_EQ(call.events[3].finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(call.events[3].usage().completion_tokens(), 4);
  EXPECT_EQ(script().num_cancels(), 1U);  // the first choice still ran
}

TEST_F(InferenceServiceTest, ClientsCancelReachesTheServiceOnce) {
  Call call(*stub_, text_request("a"));
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  script().emit(0, 'x');
  v1::GenerateTextEvent event;
  ASSERT_TRUE(call.reader->Read(&event));
  call.context.TryCancel();
  EXPECT_EQ(call.finish_blocking().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(service_.wait_for_cancels_blocking(1));
  server_.reset();
  script().emit(0, 'y');  // the sink outlives its call, and the API
  api_.reset();
  script().finish(0, 'z', FinishReason::kLength);
  EXPECT_EQ(script().num_cancels(), 1U);
}

TEST_F(InferenceServiceTest, SlowReaderIsCutAndItsRequestCancelledOnce) {
  InferenceOptions options = make_options();
  options.limits.max_queued_events = 16;
  serve(std::move(options));
  Call call(*stub_, text_request("a"));
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  TokenEvent wide;  // fills the transport's window
  wide.token_id = 'x';
  wide.top_logprobs.assign(4096, {1, -1.0F});
  for (int i = 0; i < 1500; ++i) {
    script().emit(0, wide);
  }
  ASSERT_TRUE(service_.wait_for_cancels_blocking(1));
  EXPECT_EQ(call.finish_blocking().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(script().num_cancels(), 1U);
}

TEST_F(InferenceServiceTest, ClientsDeadlineCancelsTheRequest) {
  Call call(*stub_, text_request("a"), milliseconds(1000));
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  const Deadline& deadline = script().request(0).deadline;
  // gRPC rounds what it sends up.
  EXPECT_LE(deadline.at(), Deadline::Clock::now() + milliseconds(1500));
  EXPECT_EQ(call.finish_blocking().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  ASSERT_TRUE(service_.wait_for_cancels_blocking(1));
}

TEST_F(InferenceServiceTest, RequestTimeoutBoundsTheClientsDeadline) {
  InferenceOptions options = make_options();
  options.request_timeout = seconds(5);
  serve(std::move(options));
  Call call(*stub_, text_request("a"));
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  EXPECT_LE(script().request(0).deadline.at(), Deadline::Clock::now() + seconds(5));
  script().fail(0, {StatusCode::kDeadlineExceeded, "too late"});
  const grpc::Status status = call.finish_blocking();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(status.error_message(), "too late");
  EXPECT_EQ(script().num_cancels(), 0U);
}

TEST_F(InferenceServiceTest, ServicesRefusalPassesThrough) {
  service_.refuse(resource_exhausted("the queue is full"));
  const grpc::Status status = run_blocking(*stub_, text_request("a"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "the queue is full");
}

TEST_F(InferenceServiceTest, FullTextQueueIsResourceExhausted) {
  InferenceOptions options = make_options();
  options.max_text_jobs = 0;
  serve(std::move(options));
  EXPECT_EQ(run_blocking(*stub_, text_request("a")).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  grpc::ClientContext context;
  v1::TokenizeResponse tokens;
  EXPECT_EQ(stub_->Tokenize(&context, {}, &tokens).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(InferenceServiceTest, UnknownModelIsNotFound) {
  v1::GenerateTextRequest request = text_request("a");
  request.set_model("third");
  const grpc::Status status = run_blocking(*stub_, request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_NE(status.error_message().find("third"), std::string::npos);
}

TEST_F(InferenceServiceTest, RefusesWhatIsOutOfBounds) {
  using Request = v1::GenerateTextRequest;
  const std::vector<std::pair<std::string, void (*)(Request&)>> faults = {
      {"prompt", [](Request& r) { r.clear_text(); }},
      {"tokens", [](Request& r) { r.mutable_token_ids(); }},
      {"token_ids", [](Request& r) { r.mutable_token_ids()->add_ids(-1); }},
      {"token_ids",
       [](Request& r) { r.mutable_token_ids()->add_ids(ByteTokenizer::kFirstExtra + 1); }},
      {"messages", [](Request& r) { r.mutable_chat(); }},
      {"bytes", [](Request& r) { r.set_text(std::string(4096, 'a')); }},
      {"tokens", [](Request& r) { r.set_text(std::string(kMaxModelLen, 'a')); }},
      {"num_choices", [](Request& r) { r.set_num_choices(-1); }},
      {"num_choices", [](Request& r) { r.set_num_choices(17); }},
      {"stop has 17",
       [](Request& r) {
         for (int i = 0; i < 17; ++i) {
           r.add_stop("x");
         }
       }},
      {"stop has 1025", [](Request& r) { r.add_stop(std::string(1025, 'x')); }},
      {"temperature", [](Request& r) { r.mutable_sampling()->set_temperature(3.0F); }},
      {"max_tokens", [](Request& r) { r.mutable_sampling()->set_max_tokens(-1); }},
      {"max_tokens", [](Request& r) { r.mutable_sampling()->set_max_tokens(kMaxModelLen); }},
      {"min_tokens", [](Request& r) { r.mutable_sampling()->set_min_tokens(kMaxModelLen); }},
      {"num_top_logprobs", [](Request& r) { r.mutable_sampling()->set_num_top_logprobs(21); }},
      {"stop_token_ids", [](Request& r) { r.mutable_sampling()->add_stop_token_ids(9999); }},
  };
  for (const auto& [part, spoil] : faults) {
    v1::GenerateTextRequest request = text_request("a");
    spoil(request);
    const grpc::Status status = run_blocking(*stub_, request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << part;
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  }
  EXPECT_EQ(script().num_submitted(), 0U);
}

TEST_F(InferenceServiceTest, EveryMethodNeedsAKey) {
  InferenceOptions options = make_options();
  options.allows_key = [](std::string_view key) { return key == "sesame"; };
  serve(std::move(options));
  const auto list_with = [this](const char* name, const char* value) {
    grpc::ClientContext context;
    context.AddMetadata(name, value);
    v1::ListModelsResponse response;
    return stub_->ListModels(&context, {}, &response).error_code();
  };
  EXPECT_EQ(list_with("authorization", "Bearer sesame"), grpc::StatusCode::OK);
  EXPECT_EQ(list_with("authorization", "bearer  sesame"), grpc::StatusCode::OK);
  EXPECT_EQ(list_with("x-api-key", "sesame"), grpc::StatusCode::OK);
  EXPECT_EQ(list_with("x-api-key", "simsim"), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(list_with("authorization", "sesame"), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(list_with("other", "sesame"), grpc::StatusCode::UNAUTHENTICATED);

  EXPECT_EQ(run_blocking(*stub_, text_request("a")).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  v1::TokenizeResponse tokens;
  grpc::ClientContext tokenize;
  EXPECT_EQ(stub_->Tokenize(&tokenize, {}, &tokens).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  v1::DetokenizeResponse text;
  grpc::ClientContext detokenize;
  EXPECT_EQ(stub_->Detokenize(&detokenize, {}, &text).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(script().num_submitted(), 0U);
}

TEST_F(InferenceServiceTest, PassesTheTraceOfTheCallOn) {
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(20));
  context.AddMetadata("traceparent", trace);
  const auto reader = stub_->Generate(&context, text_request("a"));
  ASSERT_TRUE(service_.wait_for_submits_blocking(1));
  EXPECT_EQ(script().request(0).trace.traceparent(), trace);
  script().finish(0, ByteTokenizer::kEos, FinishReason::kStop);
  v1::GenerateTextEvent event;
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(InferenceServiceTest, TokenizeAndDetokenizeAreInverse) {
  v1::TokenizeRequest tokenize;
  tokenize.set_text("grüß");
  tokenize.set_add_special_tokens(true);
  v1::TokenizeResponse tokens;
  grpc::ClientContext first;
  ASSERT_TRUE(stub_->Tokenize(&first, tokenize, &tokens).ok());
  EXPECT_EQ(tokens.ids_size(), 7);  // BOS and six bytes
  EXPECT_EQ(tokens.ids(0), ByteTokenizer::kBos);
  EXPECT_EQ(tokens.max_model_len(), kMaxModelLen);

  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_ids() = tokens.ids();
  v1::DetokenizeResponse text;
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->Detokenize(&second, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "<bos>grüß");
  detokenize.set_skip_special_tokens(true);
  grpc::ClientContext third;
  ASSERT_TRUE(stub_->Detokenize(&third, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "grüß");

  detokenize.add_ids(9999);
  grpc::ClientContext fourth;
  EXPECT_EQ(stub_->Detokenize(&fourth, detokenize, &text).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(InferenceServiceTest, ListsTheServedNames) {
  v1::ListModelsResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->ListModels(&context, {}, &response).ok());
  ASSERT_EQ(response.models_size(), 2);
  EXPECT_EQ(response.models(0).name(), "first");
  EXPECT_EQ(response.models(1).name(), "second");
  EXPECT_EQ(response.models(1).max_model_len(), kMaxModelLen);
}

}  // namespace
}  // namespace tessera::rpc::testing
