// The gRPC target over loopback, before a service that answers by the book or breaks off.
#include "server/bench/grpc_target.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include "proto/tessera/inference.grpc.pb.h"
#include "server/bench/summary.h"
#include "tests/unit/server/bench/load_support.h"

namespace tessera::bench {
namespace {

/// As many events as tokens are asked for, the last with reason and usage.
class FakeInference final : public v1::InferenceService::Service {
 public:
  grpc::Status ListModels(grpc::ServerContext* context,
                          const v1::ListModelsRequest* /*request*/,
                          v1::ListModelsResponse* response) override {
    if (!is_allowed(*context)) {
      return {grpc::StatusCode::UNAUTHENTICATED, "no key"};
    }
    response->add_models()->set_name("fake");
    return grpc::Status::OK;
  }
  grpc::Status Generate(grpc::ServerContext* context,
                        const v1::GenerateTextRequest* request,
                        grpc::ServerWriter<v1::GenerateTextEvent>* writer) override {
    {
      const std::lock_guard lock(mutex_);
      last_ = *request;
    }
    if (break_after >= 0 && break_after == num_answers++) {
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "too busy"};
    }
    const int64_t num_tokens = request->sampling().max_tokens();
    for (int64_t i = 0; i < num_tokens && !context->IsCancelled(); ++i) {
      v1::GenerateTextEvent event;
      event.set_text("a");
      event.add_tokens()->set_token_id(7);
      if (i + 1 == num_tokens) {
        event.set_finish_reason(v1::FINISH_REASON_LENGTH);
        event.mutable_usage()->set_prompt_tokens(11);
        event.mutable_usage()->set_completion_tokens(num_tokens);
      }
      writer->Write(event);
    }
    return grpc::Status::OK;
  }

  [[nodiscard]] v1::GenerateTextRequest last_request() const {
    const std::lock_guard lock(mutex_);
    return last_;
  }

  std::string key;
  int break_after = -1;
  std::atomic<int> num_answers{0};

 private:
  [[nodiscard]] bool is_allowed(const grpc::ServerContext& context) const {
    const auto found = context.client_metadata().find("authorization");
    return key.empty() || (found != context.client_metadata().end() &&
                           found->second == grpc::string_ref("Bearer " + key));
  }

  mutable std::mutex mutex_;  // guards last_
  v1::GenerateTextRequest last_;
};

class GrpcTargetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  void TearDown() override { server_->Shutdown(); }

  [[nodiscard]] BenchSettings settings(int64_t num_requests, Api api) const {
    BenchSettings settings =
        testing::chat_settings("grpc://127.0.0.1:" + std::to_string(port_), num_requests);
    settings.api = api;
    return settings;
  }

  FakeInference service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

TEST_F(GrpcTargetTest, TokenIdsAreSentAndEventsRecorded) {
  const LoadResult result = testing::run_blocking(settings(20, Api::kCompletions));
  const Summary summary = summarize(result);
  EXPECT_EQ(summary.completed, 20);
  EXPECT_EQ(summary.input_tokens, 20 * 11);
  EXPECT_EQ(summary.output_tokens, 20 * 4);
  EXPECT_EQ(summary.itl_ms.count(), 20 * 3);
  EXPECT_EQ(result.settings.model, "fake");
  const v1::GenerateTextRequest request = service_.last_request();
  EXPECT_EQ(request.token_ids().ids_size(), 5);
  EXPECT_EQ(request.sampling().max_tokens(), 4);
  EXPECT_TRUE(request.sampling().ignore_eos());
  EXPECT_EQ(request.model(), "fake");
  for (const RequestRecord& record : result.records) {
    EXPECT_LE(record.sent, record.first_content);
    EXPECT_LE(record.first_content, record.last_content);
    EXPECT_LE(record.last_content, record.done);
  }
}

TEST_F(GrpcTargetTest, ChatSendsOneMessageOfWords) {
  (void)testing::run_blocking(settings(1, Api::kChat));
  const v1::GenerateTextRequest request = service_.last_request();
  ASSERT_EQ(request.chat().messages_size(), 1);
  EXPECT_EQ(request.chat().messages(0).role(), "user");
  EXPECT_FALSE(request.chat().messages(0).content().empty());
}

TEST_F(GrpcTargetTest, RefusalIsKeptWithCodeAndMessage) {
  service_.break_after = 0;
  const Summary summary = summarize(testing::run_blocking(settings(3, Api::kCompletions)));
  EXPECT_EQ(summary.completed, 2);
  ASSERT_EQ(summary.errors.size(), 1U);
  EXPECT_EQ(summary.errors[0].error, "RESOURCE_EXHAUSTED: too busy");
}

TEST_F(GrpcTargetTest, CancelledCallsEndAsCancelled) {
  BenchSettings all = settings(10, Api::kCompletions);
  all.data.output_tokens = 5000;
  all.cancel_share = 1.0;
  const Summary summary = summarize(testing::run_blocking(all));
  EXPECT_EQ(summary.cancelled + summary.completed, 10);
  EXPECT_GT(summary.cancelled, 0);
}

TEST_F(GrpcTargetTest, MissingKeyIsSaidBeforeTheLoad) {
  service_.key = "sk-1";
  BenchSettings keyless = settings(1, Api::kCompletions);
  EXPECT_EQ(LoadRun::create(keyless).status().code(), StatusCode::kUnauthenticated);
  keyless.api_key = "sk-1";
  EXPECT_TRUE(LoadRun::create(keyless).is_ok());
}

TEST(GrpcProbeTest, NobodyThereIsUnavailable) {
  BenchSettings settings = testing::chat_settings("grpc://127.0.0.1:1", 1);
  EXPECT_EQ(probe_grpc_blocking(settings).status().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tessera::bench
