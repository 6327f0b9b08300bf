// The gRPC target over loopback, before a service that answers by the book or breaks off.
#include "server/bench/grpc_target.h"

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <boost/asio/io_context.hpp>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

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
      std::this_thread::sleep_for(pause);  // the engine's time for a token
    }
    return grpc::Status::OK;
  }

  [[nodiscard]] v1::GenerateTextRequest last_request() const {
    const std::lock_guard lock(mutex_);
    return last_;
  }

  std::string key;
  int break_after = -1;
  std::chrono::milliseconds pause{0};
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

/// Holds up one thread of this process whenever it is asked to.
class HeldUpThread final {
 public:
  explicit HeldUpThread(const std::string& name) : name_(name) {
    struct sigaction action {};
    action.sa_handler = [](int) {
      const timespec pause{.tv_sec = 0, .tv_nsec = 30'000'000};
      nanosleep(&pause, nullptr);  // the delay is what is tried here
    };
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, &before_);
  }
  ~HeldUpThread() { sigaction(SIGUSR1, &before_, nullptr); }
  HeldUpThread(const HeldUpThread&) = delete;
  HeldUpThread& operator=(const HeldUpThread&) = delete;

  /// For 30 ms. False when there is no such thread.
  bool hold_up() const {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(entry.path() / "comm");
      std::string name;
      if (std::getline(file, name) && name == name_) {
        return syscall(
                   SYS_tgkill, getpid(), std::stoi(entry.path().filename().string()), SIGUSR1) == 0;
      }
    }
    return false;
  }

 private:
  const std::string name_;
  struct sigaction before_ {};
};

TEST_F(GrpcTargetTest, LagIsMeasuredOnTheThreadThatReceives) {
  service_.pause = std::chrono::milliseconds(2);
  BenchSettings slow = settings(8, Api::kCompletions);
  slow.data.output_tokens = 200;
  auto run = LoadRun::create(slow).value();
  ASSERT_TRUE(run->start().is_ok());
  const HeldUpThread receiver("bench-receive");
  int num_held_up = 0;
  const Deadline patience = Deadline::after(std::chrono::minutes(1));
  while (!run->wait_blocking(Deadline::after(std::chrono::milliseconds(60)))) {
    ASSERT_FALSE(patience.is_expired());
    num_held_up += receiver.hold_up() ? 1 : 0;
  }
  const Summary summary = summarize(run->take_result());
  EXPECT_EQ(summary.completed, 8);
  EXPECT_GT(num_held_up, 3);
  EXPECT_GT(summary.receive_lag_ms.percentile(99.0), 5.0);
  EXPECT_TRUE(summary.is_saturated);
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

TEST_F(GrpcTargetTest, EndOfTheReceiverCancelsWhatIsOpenAtItsDeadline) {
  service_.pause = std::chrono::milliseconds(20);
  const BenchSettings one = settings(1, Api::kCompletions);
  boost::asio::io_context loop;
  Counter num_events;
  GrpcTarget target(one, loop, num_events);
  const auto exchange =
      target.prepare({.token_ids = {1}, .output_tokens = 1'000'000}, 0);  // takes hours
  bool is_done = false;
  exchange->start([&] { is_done = true; });
  const Clock::time_point begin = Clock::now();
  const auto lag_ms = target.end_receiver_blocking(Deadline::after(std::chrono::milliseconds(50)));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(20));
  EXPECT_EQ(lag_ms.status(),
            Status(StatusCode::kDeadlineExceeded,
                   "gRPC calls open at the end of their receiver: 1, expected 0"));
  loop.run();
  EXPECT_TRUE(is_done);
  EXPECT_EQ(exchange->record().outcome, Outcome::kUnfinished);
}

TEST_F(GrpcTargetTest, EndOfAnIdleReceiverNeedsNoTime) {
  const BenchSettings none = settings(1, Api::kCompletions);
  boost::asio::io_context loop;
  Counter num_events;
  GrpcTarget target(none, loop, num_events);
  target.probe_receiver();
  EXPECT_TRUE(target.end_receiver_blocking(Deadline(Clock::now())).is_ok());
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
