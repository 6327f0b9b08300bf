// WorkerServiceImpl against WorkerWatch and drain_worker() over loopback.
#include <atomic>
#include <future>
#include <memory>
#include <vector>

#include <grpcpp/channel.h>
#include <gtest/gtest.h>

#include "proto/tessera/worker.grpc.pb.h"
#include "server/rpc/worker_service.h"
#include "server/rpc/worker_watch.h"
#include "tests/unit/server/rpc/fake_workers.h"
#include "tests/unit/server/rpc/loopback.h"

namespace tessera::rpc::testing {
namespace {

class WatchListener final : public WorkerWatch::Listener, public Watched {
 public:
  void on_worker_up(const WorkerIdentity& identity) override {
    change([&] { ups_.push_back(identity); });
  }
  void on_worker_load(const WorkerLoad& load) override {
    change([&] { loads_.push_back(load); });
  }
  void on_worker_gone(const Status& status) override {
    change([&] { ends_.push_back(status); });
  }

  [[nodiscard]] bool wait_for_blocking(size_t ups, size_t loads, size_t ends) const {
    return wait_blocking(
        [&] { return ups_.size() >= ups && loads_.size() >= loads && ends_.size() >= ends; });
  }
  [[nodiscard]] std::vector<WorkerIdentity> ups() const {
    const std::lock_guard lock(mutex_);
    return ups_;
  }
  [[nodiscard]] std::vector<WorkerLoad> loads() const {
    const std::lock_guard lock(mutex_);
    return loads_;
  }
  [[nodiscard]] std::vector<Status> ends() const {
    const std::lock_guard lock(mutex_);
    return ends_;
  }

 private:
  std::vector<WorkerIdentity> ups_;
  std::vector<WorkerLoad> loads_;
  std::vector<Status> ends_;
};

class WorkerRpcTest : public ::testing::Test {
 protected:
  WorkerServiceImpl::Callbacks callbacks() {
    return {[this] {
              return WorkerIdentity{WorkerRole::kDecode, make_info(), "0.1.0"};
            },
            [this] {
              WorkerLoad load;
              load.num_blocks_total = 100;
              load.num_blocks_free = num_blocks_free_;
              load.num_requests_running = num_running_;
              load.is_draining = is_draining_;
              return load;
            },
            [this] { return is_alive_ ? Status::ok() : unavailable("the engine is silent"); },
            [this] { is_draining_ = true; }};
  }
  /// What a watch hears last of a worker that stops in this state, of which no load has told.
  Status end_of_watch(bool is_draining, int64_t num_running) {
    WorkerWatch::Options options;
    options.load_period = std::chrono::seconds(10);
    const WorkerWatch watch(connect(server_->address()), listener_, options);
    EXPECT_TRUE(listener_.wait_for_blocking(1, 1, 0));
    is_draining_ = is_draining;
    num_running_ = num_running;
    server_->shutdown_blocking(Deadline::after(std::chrono::seconds(30)));
    if (!listener_.wait_for_blocking(1, 1, 1)) {
      return internal_error("the watch has not ended");
    }
    return listener_.ends().front();
  }
  static WorkerWatch::Options quick() {
    WorkerWatch::Options options;
    options.load_period = std::chrono::milliseconds(10);
    return options;
  }

  std::atomic<int64_t> num_blocks_free_{100};
  std::atomic<int64_t> num_running_{0};
  std::atomic<bool> is_draining_{false};
  std::atomic<bool> is_alive_{true};
  WorkerServiceImpl service_{callbacks()};
  std::unique_ptr<RpcServer> server_ = start_server({&service_});
  WatchListener listener_;
};

TEST_F(WorkerRpcTest, WatchTellsIdentityAndEachChangeOfTheLoad) {
  const WorkerWatch watch(connect(server_->address()), listener_, quick());
  ASSERT_TRUE(listener_.wait_for_blocking(1, 1, 0));
  EXPECT_EQ(listener_.ups()[0].role, WorkerRole::kDecode);
  EXPECT_EQ(listener_.ups()[0].info.epoch, 77U);
  EXPECT_EQ(listener_.ups()[0].info.attention, make_info().attention);
  EXPECT_EQ(listener_.ups()[0].version, "0.1.0");
  EXPECT_EQ(listener_.loads()[0].num_blocks_free, 100);
  num_blocks_free_ = 60;
  ASSERT_TRUE(listener_.wait_for_blocking(1, 2, 0));
  EXPECT_EQ(listener_.loads()[1].num_blocks_free, 60);
}

TEST_F(WorkerRpcTest, WatchTellsLossAndReturn) {
  const WorkerWatch watch(connect(server_->address()), listener_, quick());
  ASSERT_TRUE(listener_.wait_for_blocking(1, 1, 0));
  RpcServerOptions options;
  options.port = server_->port();
  server_.reset();
  ASSERT_TRUE(listener_.wait_for_blocking(1, 1, 1));
  WorkerServiceImpl returned(callbacks());  // the old one refuses calls after its end
  server_ = start_server({&returned}, options);
  EXPECT_TRUE(listener_.wait_for_blocking(2, 2, 1));
  server_.reset();
}

TEST_F(WorkerRpcTest, WatchOfNobodyCanBeStopped) {
  const std::string address = server_->address();
  server_.reset();
  { const WorkerWatch watch(connect(address), listener_, quick()); }
  EXPECT_TRUE(listener_.ups().empty());
}

TEST_F(WorkerRpcTest, ShutdownEndsWatchesAtOnce) {
  const WorkerWatch watch(connect(server_->address()), listener_, quick());
  ASSERT_TRUE(listener_.wait_for_blocking(1, 1, 0));
  const auto begin = std::chrono::steady_clock::now();
  server_->shutdown_blocking(Deadline::after(std::chrono::seconds(30)));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST_F(WorkerRpcTest, AWorkerThatHasDrainedEndsItsWatchWithOk) {
  const Status status = end_of_watch(/*is_draining=*/true, /*num_running=*/0);
  EXPECT_TRUE(status.is_ok()) << status.to_string();
}

TEST_F(WorkerRpcTest, AWorkerThatStopsWithRequestsDoesNot) {
  EXPECT_EQ(end_of_watch(/*is_draining=*/true, /*num_running=*/1).code(), StatusCode::kUnavailable);
}

TEST_F(WorkerRpcTest, AWorkerWhoseEngineFailedDoesNot) {
  is_alive_ = false;  // which is no more ready than one that drains
  EXPECT_EQ(end_of_watch(/*is_draining=*/true, /*num_running=*/0).code(), StatusCode::kUnavailable);
}

TEST_F(WorkerRpcTest, AWorkerThatStopsWithoutADrainDoesNot) {
  EXPECT_EQ(end_of_watch(/*is_draining=*/false, /*num_running=*/0).code(),
            StatusCode::kUnavailable);
}

TEST_F(WorkerRpcTest, AWorkerThatHasEndedItsWatchesIsNobodyToConnectTo) {
  service_.end_endless_calls();
  const auto stub = v1::WorkerService::NewStub(connect(server_->address())->grpc_channel());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  v1::WorkerInfo info;
  EXPECT_EQ(stub->GetInfo(&context, v1::GetInfoRequest(), &info).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(WorkerRpcTest, DrainAnswersWhenNoRequestIsLeft) {
  num_running_ = 2;
  std::promise<Result<int64_t>> answer;
  auto future = answer.get_future();
  drain_worker(connect(server_->address()),
               Deadline::after(std::chrono::seconds(20)),
               [&](Result<int64_t> result) { answer.set_value(std::move(result)); });
  EXPECT_EQ(future.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  num_running_ = 0;
  ASSERT_EQ(future.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  const auto result = future.get();
  ASSERT_TRUE(result.is_ok()) << result.status().to_string();
  EXPECT_EQ(result.value(), 0);
  EXPECT_TRUE(is_draining_);
}

TEST_F(WorkerRpcTest, DrainAnswersAtItsDeadlineWithWhatIsLeft) {
  num_running_ = 3;
  std::promise<Result<int64_t>> answer;
  auto future = answer.get_future();
  drain_worker(connect(server_->address()),
               Deadline::after(std::chrono::milliseconds(50)),
               [&](Result<int64_t> result) { answer.set_value(std::move(result)); });
  ASSERT_EQ(future.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  const auto result = future.get();
  ASSERT_TRUE(result.is_ok()) << result.status().to_string();
  EXPECT_EQ(result.value(), 3);
}

}  // namespace
}  // namespace tessera::rpc::testing
