// The router with its threads, between clients and workers that have threads of their own.
#include "server/router/router.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/unit/server/router/router_fakes.h"

namespace tessera::router {
namespace {

using std::chrono::seconds;

/// Serves everything at once on one thread, and breaks a call now and then.
class BusyWorkers final : public WorkerConnector {
 public:
  explicit BusyWorkers(int failure_percent)
      : failure_percent_(failure_percent),
        thread_([this](const std::stop_token& stop) { run(stop); }) {}

  std::shared_ptr<WorkerConnection> connect(const std::string& address,
                                            WorkerRole role,
                                            std::shared_ptr<WorkerObserver> observer) override {
    auto worker = std::make_shared<Worker>(*this, address, role);
    WorkerLoad load;
    load.num_blocks_total = load.num_blocks_free = 1000;
    load.num_sequences_limit = 1000;
    observer->on_info(worker->info());
    observer->on_load(load);
    return worker;
  }

 private:
  class Worker final : public WorkerConnection, public PrefillWorker, public DecodeWorker {
   public:
    Worker(BusyWorkers& workers, std::string address, WorkerRole role)
        : workers_(workers), address_(std::move(address)), role_(role) {
      info_.model_fingerprint = "model";
      info_.vocab_size = 1000;
    }
    PrefillWorker* prefill() override { return role_ == WorkerRole::kPrefill ? this : nullptr; }
    DecodeWorker* decode() override { return role_ == WorkerRole::kDecode ? this : nullptr; }

    Status prefill(PrefillRequest request, std::shared_ptr<PrefillSink> sink) override {
      // Not `this`: a task may run when the router has let go of the connection.
      workers_.post([&workers = workers_, request = std::move(request), sink = std::move(sink)] {
        workers.serve_prefill(request, *sink);
      });
      return Status::ok();
    }
    Status attach(AttachRequest request, std::shared_ptr<TokenSink> sink) override {
      workers_.post([&workers = workers_, request = std::move(request), sink = std::move(sink)] {
        workers.serve_decode(request, *sink);
      });
      return Status::ok();
    }
    Status generate(const HandoffKey&, GenerationRequest, std::shared_ptr<TokenSink>) override {
      return unimplemented("no local prefill");
    }
    void cancel(const HandoffKey&) override {}
    WorkerLoad load() const override { return {}; }
    const WorkerInfo& info() const override { return info_; }

   private:
    BusyWorkers& workers_;
    const std::string address_;
    const WorkerRole role_;
    WorkerInfo info_;
  };

  bool is_failing() { return static_cast<int>(random_() % 100) < failure_percent_; }
  void serve_prefill(const PrefillRequest& request, PrefillSink& sink) {
    if (is_failing()) {
      sink.on_error({StatusCode::kAborted, "random"});
      return;
    }
    sink.on_reserved(request.decode_candidates.front());
    const int64_t index = request.generation.num_replayed_tokens;
    for (int32_t i = 0; i < request.generation.num_choices; ++i) {
      const int32_t choice = request.generation.first_choice + i;
      const bool is_last = index + 1 >= request.generation.sampling.max_tokens;
      sink.on_token(token(index, static_cast<int32_t>(index), is_last, choice));
    }
    sink.on_handed_over();
  }
  void serve_decode(const AttachRequest& request, TokenSink& sink) {
    for (int64_t i = request.num_replayed_tokens + 1; i < request.sampling.max_tokens; ++i) {
      if (is_failing()) {
        sink.on_error({StatusCode::kAborted, "random"});
        return;
      }
      for (int32_t j = 0; j < request.num_choices; ++j) {
        const bool is_last = i + 1 >= request.sampling.max_tokens;
        sink.on_token(token(i, static_cast<int32_t>(i), is_last, request.first_choice + j));
      }
    }
  }

  void post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    has_task_.notify_one();
  }
  void run(const std::stop_token& stop) {
    while (true) {
      std::unique_lock lock(mutex_);
      if (!has_task_.wait(lock, stop, [this] { return !tasks_.empty(); })) {
        return;
      }
      const auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }

  const int failure_percent_;
  std::minstd_rand random_;  // of the thread
  std::mutex mutex_;         // guards tasks_
  std::condition_variable_any has_task_;
  std::deque<std::function<void()>> tasks_;
  std::jthread thread_;
};

/// Counts ends; checks the order as ClientSink does, on the router's thread.
class CountingSink final : public TokenSink {
 public:
  CountingSink(int32_t num_choices, std::atomic<int>& num_ends)
      : checked_(num_choices), num_ends_(num_ends) {}
  void on_token(const TokenEvent& event) override {
    checked_.on_token(event);
    num_ends_ += checked_.is_finished() ? 1 : 0;
  }
  void on_error(const Status& status) override {
    checked_.on_error(status);
    ++num_ends_;
  }

 private:
  ClientSink checked_;
  std::atomic<int>& num_ends_;
};

RouterOptions threaded_options() {
  RouterOptions options = fake_options();
  options.prefill_workers = "p:1,p:2";
  options.decode_workers = "d:1,d:2";
  options.backoff_first = milliseconds(1);
  options.retry_burst = 1e6;
  options.max_in_flight_requests = 10'000;
  options.max_waiting_requests = 10'000;  // the first come before the workers are connected
  return options;
}

std::unique_ptr<Router> make_router(RouterOptions options, WorkerConnector& connector) {
  auto router = Router::create(std::move(options), connector);
  EXPECT_TRUE(router.is_ok()) << router.status().to_string();
  return std::move(router).value();
}

TEST(RouterTest, ServesManyClientsAtOnceAndDrains) {
  BusyWorkers workers(5);
  const auto router = make_router(threaded_options(), workers);
  std::atomic<int> num_ends{0};
  constexpr int kPerThread = 200;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < kPerThread; ++i) {
          GenerationRequest request = make_request({1, 2, 3}, 1 + i % 3);
          request.sampling.max_tokens = 1 + i % 5;
          const auto sink = std::make_shared<CountingSink>(request.num_choices, num_ends);
          EXPECT_TRUE(router->submit(std::move(request), sink).is_ok());
        }
      });
    }
  }
  EXPECT_TRUE(router->drain_blocking(Deadline::after(seconds(60))).is_ok());
  EXPECT_EQ(num_ends, 3 * kPerThread);
  EXPECT_GT(router->metrics().requests_finished.value(), 0);
  EXPECT_EQ(router->metrics().num_requests_in_flight.value(), 0);
  EXPECT_EQ(router->submit(make_request(), nullptr).code(), StatusCode::kUnavailable);
}

TEST(RouterTest, CancelsFromOtherThreads) {
  BusyWorkers workers(0);
  const auto router = make_router(threaded_options(), workers);
  std::atomic<int> num_ends{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        GenerationRequest request = make_request();
        request.sampling.max_tokens = 20;
        const RequestId id = request.id;
        const auto sink = std::make_shared<CountingSink>(1, num_ends);
        EXPECT_TRUE(router->submit(std::move(request), sink).is_ok());
        router->cancel(id);
      }
    });
  }
  threads.clear();
  EXPECT_TRUE(router->drain_blocking(Deadline::after(seconds(60))).is_ok());
  EXPECT_EQ(num_ends + router->metrics().requests_cancelled.value(), 400);
}

TEST(RouterTest, SeveralRoutersShareTheWorkers) {
  BusyWorkers workers(2);
  const auto first = make_router(threaded_options(), workers);
  const auto second = make_router(threaded_options(), workers);
  std::atomic<int> num_ends{0};
  for (int i = 0; i < 100; ++i) {
    const auto sink = std::make_shared<CountingSink>(1, num_ends);
    GenerationRequest request = make_request();
    request.sampling.max_tokens = 5;
    EXPECT_TRUE((i % 2 == 0 ? first : second)->submit(std::move(request), sink).is_ok());
  }
  EXPECT_TRUE(first->drain_blocking(Deadline::after(seconds(60))).is_ok());
  EXPECT_TRUE(second->drain_blocking(Deadline::after(seconds(60))).is_ok());
  EXPECT_EQ(num_ends, 100);
}

TEST(RouterTest, DrainEndsTheRestAtItsDeadline) {
  FakeConnector nobody;  // takes calls and says nothing
  RouterOptions options = threaded_options();
  const auto router = make_router(options, nobody);
  std::atomic<int> num_ends{0};
  const auto sink = std::make_shared<CountingSink>(1, num_ends);
  ASSERT_TRUE(router->submit(make_request(), sink).is_ok());
  const Status status = router->drain_blocking(Deadline::after(milliseconds(20)));
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(num_ends, 1);
}

TEST(RouterTest, EndsLiveRequestsWhenItIsDestroyed) {
  FakeConnector nobody;
  std::atomic<int> num_ends{0};
  {
    const auto router = make_router(threaded_options(), nobody);
    const auto sink = std::make_shared<CountingSink>(1, num_ends);
    ASSERT_TRUE(router->submit(make_request(), sink).is_ok());
  }
  EXPECT_EQ(num_ends, 1);
  for (const auto& [address, worker] : nobody.workers) {
    for (const auto& call : worker->calls) {
      call->sink->on_token(token(0, 1));  // nobody is there to hear it
    }
  }
}

TEST(RouterTest, FindsWorkersByName) {
  BusyWorkers workers(0);
  RouterOptions options = threaded_options();
  options.prefill_workers = "dns:prefill:1";
  options.decode_workers = "dns:decode:1";
  options.resolve_period = milliseconds(10);
  std::atomic<int> num_resolved{0};
  auto created = Router::create(
      options, workers, [&](const DnsName& name) -> Result<std::vector<std::string>> {
        if (++num_resolved < 10) {
          return unavailable("not yet");
        }
        return std::vector<std::string>{name.name + ":1"};
      });
  ASSERT_TRUE(created.is_ok());
  std::atomic<int> num_ends{0};
  const auto sink = std::make_shared<CountingSink>(1, num_ends);
  ASSERT_TRUE(created.value()->submit(make_request(), sink).is_ok()) << "it waits";
  EXPECT_TRUE(created.value()->drain_blocking(Deadline::after(seconds(60))).is_ok());
  EXPECT_EQ(created.value()->metrics().requests_finished.value(), 1);
}

TEST(RouterTest, RefusesWhatNoWorkerWouldTake) {
  FakeConnector nobody;
  const auto router = make_router(threaded_options(), nobody);
  const auto code_of = [&](GenerationRequest request) {
    return router->submit(std::move(request), nullptr).code();
  };
  EXPECT_EQ(code_of(make_request({})), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(make_request({1000})), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(make_request({-1})), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(make_request(std::vector<int32_t>(4096, 1))), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(make_request({1}, 0)), StatusCode::kInvalidArgument);
  GenerationRequest request = make_request();
  request.sampling.max_tokens = 0;
  EXPECT_EQ(code_of(std::move(request)), StatusCode::kInvalidArgument);
}

TEST(RouterTest, ChecksItsOptions) {
  FakeConnector nobody;
  RouterOptions options = threaded_options();
  options.prefill_workers = "nonsense";
  EXPECT_EQ(Router::create(options, nobody).status().code(), StatusCode::kInvalidArgument);
  options = threaded_options();
  options.model_fingerprint.clear();
  EXPECT_EQ(Router::create(options, nobody).status().code(), StatusCode::kInvalidArgument);
  options = threaded_options();
  options.max_decode_candidates = 17;
  EXPECT_EQ(Router::create(options, nobody).status().code(), StatusCode::kInvalidArgument);
}

TEST(RouterOptionsTest, ParsesPolicies) {
  PolicyKind policy = PolicyKind::kPrefixAffinity;
  EXPECT_TRUE(parse_policy("round_robin", policy));
  EXPECT_EQ(policy, PolicyKind::kRoundRobin);
  EXPECT_TRUE(parse_policy("least_load", policy));
  EXPECT_EQ(policy, PolicyKind::kLeastLoad);
  EXPECT_TRUE(parse_policy("prefix_affinity", policy));
  EXPECT_EQ(policy, PolicyKind::kPrefixAffinity);
  EXPECT_FALSE(parse_policy("random", policy));
}

}  // namespace
}  // namespace tessera::router
