// DecodeServiceImpl and RemoteDecodeWorker against each other over loopback.
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "server/rpc/decode_service.h"
#include "server/rpc/remote_workers.h"
#include "tests/unit/server/rpc/fake_workers.h"
#include "tests/unit/server/rpc/loopback.h"

namespace tessera::rpc::testing {
namespace {

constexpr FinishReason kLength = FinishReason::kLength;

class DecodeRpcTest : public ::testing::Test {
 protected:
  std::shared_ptr<RecordingSink> attach(uint64_t number, int32_t num_choices = 1) {
    AttachRequest request;
    request.key = make_key(number);
    request.sampling.max_tokens = 5;
    request.num_choices = num_choices;
    auto sink = std::make_shared<RecordingSink>();
    const Status status = client_->attach(request, sink);
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    return sink;
  }
  /// Waits until the client has forgotten its calls: only then nothing more can come.
  void finish_calls_blocking() {
    server_->shutdown_blocking(Deadline::after(std::chrono::seconds(10)));
  }

  FakeDecodeWorker worker_;
  FakeDoor door_;
  DecodeServiceImpl service_{worker_, door_};
  std::unique_ptr<RpcServer> server_ = start_server({&service_});
  std::unique_ptr<RemoteDecodeWorker> client_ =
      std::make_unique<RemoteDecodeWorker>(connect(server_->address()), make_info());
};

TEST_F(DecodeRpcTest, TokensArriveInOrderAndEqual) {
  constexpr int64_t kNumTokens = 500;
  const auto sink = attach(1);
  auto call = worker_.take_blocking(make_key(1));
  ASSERT_NE(call.sink, nullptr);
  for (int64_t i = 1; i <= kNumTokens; ++i) {
    TokenEvent event = make_token(i, i == kNumTokens ? std::optional(kLength) : std::nullopt);
    event.logprob = -0.5F * static_cast<float>(i);
    event.top_logprobs = {{7, -0.25F}, {8, -1.5F}};
    event.num_cached_tokens = 64;
    call.sink->on_token(event);
  }
  ASSERT_TRUE(sink->wait_for_tokens_blocking(kNumTokens));
  finish_calls_blocking();
  const auto tokens = sink->tokens();
  ASSERT_EQ(tokens.size(), static_cast<size_t>(kNumTokens));
  for (int64_t i = 1; i <= kNumTokens; ++i) {
    const TokenEvent& event = tokens[static_cast<size_t>(i - 1)];
    ASSERT_EQ(event.index, i);
    ASSERT_EQ(event.token_id, 100 + i);
    ASSERT_FLOAT_EQ(event.logprob, -0.5F * static_cast<float>(i));
    ASSERT_EQ(event.top_logprobs.size(), 2U);
    ASSERT_EQ(event.num_cached_tokens, 64);
    ASSERT_EQ(event.finish_reason.has_value(), i == kNumTokens);
  }
  EXPECT_TRUE(sink->error().is_ok());
  EXPECT_EQ(worker_.num_cancels(make_key(1)), 0);
}

TEST_F(DecodeRpcTest, GenerateCarriesThePrompt) {
  GenerationRequest request;
  request.id = make_key(3).request;
  request.prompt_ids = {4, 5, 6};
  request.sampling.max_tokens = 1;
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(client_->generate(make_key(3), request, sink).is_ok());
  auto call = worker_.take_blocking(make_key(3));
  ASSERT_NE(call.sink, nullptr);
  EXPECT_EQ(call.request.prompt_ids, request.prompt_ids);
  call.sink->on_token(make_token(0, kLength));
  ASSERT_TRUE(sink->wait_for_tokens_blocking(1));
  finish_calls_blocking();
  EXPECT_TRUE(sink->error().is_ok());
}

TEST_F(DecodeRpcTest, ChoiceThatEndedAtPrefillIsNotMissed) {
  const auto sink = attach(1, 2);
  auto call = worker_.take_blocking(make_key(1));
  ASSERT_NE(call.sink, nullptr);
  call.sink->on_token(make_token(1, {}, 1));
  call.sink->on_token(make_token(2, kLength, 1));
  call.sink.reset();  // the worker has told all
  ASSERT_TRUE(sink->wait_for_tokens_blocking(2));
  finish_calls_blocking();
  EXPECT_TRUE(sink->error().is_ok()) << sink->error().to_string();
}

TEST_F(DecodeRpcTest, UnknownKeyIsNotFound) {
  worker_.refuse(not_found("no reservation"));
  const auto sink = attach(1);
  ASSERT_TRUE(sink->wait_until_over_blocking());
  EXPECT_EQ(sink->error(), not_found("no reservation"));
}

TEST_F(DecodeRpcTest, CancelReachesTheWorkerOnce) {
  const auto sink = attach(1);
  auto call = worker_.take_blocking(make_key(1));
  ASSERT_NE(call.sink, nullptr);
  client_->cancel(make_key(1));
  ASSERT_TRUE(worker_.wait_for_cancel_blocking(make_key(1)));
  call.sink.reset();
  finish_calls_blocking();
  EXPECT_EQ(worker_.num_cancels(make_key(1)), 1);
  EXPECT_TRUE(sink->error().is_ok());
}

TEST_F(DecodeRpcTest, ManyStreamsAtOnce) {
  constexpr uint64_t kNumStreams = 200;
  constexpr int64_t kNumTokens = 20;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t i = 0; i < kNumStreams; ++i) {
    sinks.push_back(attach(i));
  }
  std::vector<std::shared_ptr<TokenSink>> workers_sinks;
  for (uint64_t i = 0; i < kNumStreams; ++i) {
    workers_sinks.push_back(worker_.take_blocking(make_key(i)).sink);
    ASSERT_NE(workers_sinks.back(), nullptr);
  }
  const auto emit = [&](uint64_t begin, uint64_t end) {
    for (int64_t token = 1; token <= kNumTokens; ++token) {
      for (uint64_t i = begin; i < end; ++i) {
        workers_sinks[i]->on_token(
            make_token(token, token == kNumTokens ? std::optional(kLength) : std::nullopt));
      }
    }
  };
  {
    const std::jthread first(emit, 0, kNumStreams / 2);
    const std::jthread second(emit, kNumStreams / 2, kNumStreams);
  }
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->wait_for_tokens_blocking(kNumTokens));
  }
  finish_calls_blocking();
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->error().is_ok()) << sink->error().to_string();
    ASSERT_EQ(sink->tokens().back().index, kNumTokens);
  }
}

TEST_F(DecodeRpcTest, CallsBeyondTheLimitAreRefused) {
  ServiceLimits limits;
  limits.max_open_calls = 1;
  DecodeServiceImpl service(worker_, door_, limits);
  auto server = start_server({&service});
  client_ = std::make_unique<RemoteDecodeWorker>(connect(server->address()), make_info());
  const auto first = attach(1);
  auto call = worker_.take_blocking(make_key(1));
  ASSERT_NE(call.sink, nullptr);
  const auto second = attach(2);
  ASSERT_TRUE(second->wait_until_over_blocking());
  EXPECT_EQ(second->error().code(), StatusCode::kResourceExhausted);
  call.sink->on_token(make_token(1, kLength));
  ASSERT_TRUE(first->wait_for_tokens_blocking(1));
  server.reset();
}

}  // namespace
}  // namespace tessera::rpc::testing
