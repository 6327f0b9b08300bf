// PrefillServiceImpl and RemotePrefillWorker against each other over loopback.
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "server/rpc/prefill_service.h"
#include "server/rpc/remote_workers.h"
#include "tests/unit/server/rpc/fake_workers.h"
#include "tests/unit/server/rpc/loopback.h"

namespace tessera::rpc::testing {
namespace {

class PrefillRpcTest : public ::testing::Test {
 protected:
  static PrefillRequest make_request(uint64_t number) {
    PrefillRequest request;
    request.key = make_key(number);
    request.generation.id = request.key.request;
    request.generation.prompt_ids = {1, 2, 3};
    request.generation.sampling.max_tokens = 5;
    request.generation.deadline = Deadline::after(std::chrono::minutes(1));
    request.decode_candidates = {"10.0.0.1:7000", "10.0.0.2:7000"};
    return request;
  }
  std::shared_ptr<RecordingSink> submit(const PrefillRequest& request) {
    auto sink = std::make_shared<RecordingSink>();
    const Status status = client_->prefill(request, sink);
    EXPECT_TRUE(status.is_ok()) << status.to_string();
    return sink;
  }

  FakePrefillWorker worker_;
  PrefillServiceImpl service_{worker_};
  std::unique_ptr<RpcServer> server_ = start_server({&service_});
  std::unique_ptr<RemotePrefillWorker> client_ =
      std::make_unique<RemotePrefillWorker>(connect(server_->address()), make_info());
};

TEST_F(PrefillRpcTest, RequestAndEventsArriveAsTheyWereSent) {
  const PrefillRequest request = make_request(1);
  const auto sink = submit(request);
  auto call = worker_.take_blocking(request.key);
  ASSERT_NE(call.sink, nullptr);
  EXPECT_EQ(call.request.generation.id, request.key.request);
  EXPECT_EQ(call.request.generation.prompt_ids, request.generation.prompt_ids);
  EXPECT_EQ(call.request.generation.sampling.max_tokens, 5);
  EXPECT_EQ(call.request.decode_candidates, request.decode_candidates);
  EXPECT_FALSE(call.request.generation.deadline.is_infinite());

  call.sink->on_reserved("10.0.0.2:7000");
  call.sink->on_token(make_token(0));
  call.sink->on_handed_over();
  ASSERT_TRUE(sink->wait_until_over_blocking());
  EXPECT_TRUE(sink->error().is_ok()) << sink->error().to_string();
  EXPECT_EQ(sink->reserved(), "10.0.0.2:7000");
  ASSERT_EQ(sink->tokens().size(), 1U);
  EXPECT_EQ(sink->tokens()[0].token_id, 100);
}

TEST_F(PrefillRpcTest, WorkersRefusalArrivesWithCodeAndMessage) {
  worker_.refuse(resource_exhausted("the queue is full"));
  const auto sink = submit(make_request(1));
  ASSERT_TRUE(sink->wait_until_over_blocking());
  EXPECT_EQ(sink->error(), resource_exhausted("the queue is full"));
}

TEST_F(PrefillRpcTest, WorkersErrorFollowsItsEvents) {
  const PrefillRequest request = make_request(1);
  const auto sink = submit(request);
  auto call = worker_.take_blocking(request.key);
  ASSERT_NE(call.sink, nullptr);
  call.sink->on_token(make_token(0));
  call.sink->on_error(data_loss("a block was dealt wrong"));
  ASSERT_TRUE(sink->wait_until_over_blocking());
  EXPECT_EQ(sink->tokens().size(), 1U);
  EXPECT_EQ(sink->error(), data_loss("a block was dealt wrong"));
  EXPECT_EQ(worker_.num_cancels(request.key), 0);
}

TEST_F(PrefillRpcTest, CancelReachesTheWorkerOnceAndSilencesTheSink) {
  const PrefillRequest request = make_request(1);
  const auto sink = submit(request);
  auto call = worker_.take_blocking(request.key);
  ASSERT_NE(call.sink, nullptr);
  client_->cancel(request.key);
  client_->cancel(request.key);
  ASSERT_TRUE(worker_.wait_for_cancel_blocking(request.key));
  call.sink->on_token(make_token(0));
  call.sink->on_error(unavailable("late"));
  call.sink.reset();
  server_->shutdown_blocking(Deadline::after(std::chrono::seconds(10)));
  EXPECT_EQ(worker_.num_cancels(request.key), 1);
  EXPECT_TRUE(sink->error().is_ok());
  EXPECT_TRUE(sink->tokens().empty());
}

TEST_F(PrefillRpcTest, DeathOfTheServerIsOneUnavailable) {
  const PrefillRequest request = make_request(1);
  const auto sink = submit(request);
  auto call = worker_.take_blocking(request.key);
  ASSERT_NE(call.sink, nullptr);
  call.sink->on_token(make_token(0));
  ASSERT_TRUE(sink->wait_for_tokens_blocking(1));
  server_.reset();
  ASSERT_TRUE(sink->wait_until_over_blocking());
  EXPECT_EQ(sink->error().code(), StatusCode::kUnavailable) << sink->error().to_string();
  EXPECT_EQ(sink->num_late_calls(), 0);
  EXPECT_EQ(worker_.num_cancels(request.key), 1);
  call.sink->on_token(make_token(1));  // the sink outlives its call
}

TEST_F(PrefillRpcTest, NobodyListeningIsUnavailable) {
  const std::string address = server_->address();
  server_.reset();
  RemotePrefillWorker client(connect(address), make_info());
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(client.prefill(make_request(1), sink).is_ok());
  ASSERT_TRUE(sink->wait_until_over_blocking());
  EXPECT_EQ(sink->error().code(), StatusCode::kUnavailable) << sink->error().to_string();
}

TEST_F(PrefillRpcTest, DroppedSinkIsAnInternalError) {
  const PrefillRequest request = make_request(1);
  const auto sink = submit(request);
  ASSERT_NE(worker_.take_blocking(request.key).sink, nullptr);  // and let go
  ASSERT_TRUE(sink->wait_until_over_blocking());
  EXPECT_EQ(sink->error().code(), StatusCode::kInternal);
}

TEST_F(PrefillRpcTest, PromptLongerThanTheModelIsRefusedWithBothNumbers) {
  PrefillRequest request = make_request(1);
  request.generation.prompt_ids.assign(65, 1);
  const auto sink = submit(request);
  ASSERT_TRUE(sink->wait_until_over_blocking());
  EXPECT_EQ(sink->error(), invalid_argument("prompt_ids has 65 tokens, expected 1 to 64"));
}

TEST_F(PrefillRpcTest, CallEndsAfterItsDeadline) {
  PrefillRequest request = make_request(1);
  request.generation.deadline = Deadline::after(std::chrono::milliseconds(-900));
  const auto sink = submit(request);
  ASSERT_TRUE(sink->wait_until_over_blocking());
  EXPECT_EQ(sink->error().code(), StatusCode::kDeadlineExceeded) << sink->error().to_string();
}

TEST_F(PrefillRpcTest, KeyInUseIsRefused) {
  const auto sink = submit(make_request(1));
  auto second = std::make_shared<RecordingSink>();
  EXPECT_EQ(client_->prefill(make_request(1), second).code(), StatusCode::kAlreadyExists);
  client_->cancel(make_key(1));
}

}  // namespace
}  // namespace tessera::rpc::testing
