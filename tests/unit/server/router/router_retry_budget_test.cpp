// Many requests that a worker fails at once: which of their replays the bucket paces and counts.
#include <gtest/gtest.h>

#include "server/router/router_loop.h"
#include "tests/unit/server/router/router_fakes.h"

namespace tessera::router {
namespace {

using Clients = std::vector<std::shared_ptr<ClientSink>>;

class RouterRetryBudgetTest : public RouterLoopTest {
 protected:
  /// Of those that count.
  void allow_one_replay() {
    options.retry_burst = 1;
    options.retry_ratio = 0;
    options.retry_floor_per_second = 0.001;
    options.max_replays = 0;
    options.backoff_last = milliseconds(20);
  }
  Clients begin_many(int num_requests) {
    Clients clients;
    for (int i = 0; i < num_requests; ++i) {
      begin();
      clients.push_back(client);
    }
    return clients;
  }
  static void expect_all_go_on(const Clients& clients) {
    for (const auto& each : clients) {
      EXPECT_FALSE(each->is_over());
    }
  }
};

TEST_F(RouterRetryBudgetTest, WhatADrainingWorkerHandsBackIsNeitherCountedNorPaced) {
  allow_one_replay();
  start(2, 1);
  const auto clients = begin_many(8);
  const auto held = worker("p0").calls;
  ASSERT_GE(held.size(), 2U);
  worker("p0").current_load.is_draining = true;
  connector.report_load("p0");
  run();
  fail(*held.front(), unavailable("the engine is shutting down"));
  lose("p0");  // with all the others
  advance(milliseconds(100));
  EXPECT_EQ(worker("p0").calls.size(), held.size()) << "it is told to stop";
  EXPECT_EQ(worker("p1").calls.size(), clients.size());
  EXPECT_EQ(num_replays(), static_cast<int64_t>(held.size()));
  expect_all_go_on(clients);
}

TEST_F(RouterRetryBudgetTest, WhatAWorkerStillHadWhenItLeftIsNeitherCountedNorPaced) {
  allow_one_replay();
  start(2, 1);
  const auto clients = begin_many(8);
  const size_t num_held = worker("p0").calls.size();
  ASSERT_GE(num_held, 2U);
  connector.is_down["p0"] = true;
  leave("p0");  // nobody has heard that it drains
  advance(milliseconds(100));
  EXPECT_EQ(worker("p1").calls.size(), clients.size());
  EXPECT_EQ(metrics.replays[static_cast<size_t>(ReplayReason::kUnavailable)].value(),
            static_cast<int64_t>(num_held));
  EXPECT_EQ(metrics.replays[static_cast<size_t>(ReplayReason::kWorkerLost)].value(), 0);
  expect_all_go_on(clients);
}

TEST_F(RouterRetryBudgetTest, AnEmptyRetryBudgetDelaysReplaysAndLosesNone) {
  options.retry_burst = 1;
  options.retry_ratio = 0;
  options.retry_floor_per_second = 2;
  options.backoff_last = milliseconds(20);
  start(1, 1);
  const auto clients = begin_many(5);
  for (int i = 0; i < 5; ++i) {
    fail(*worker("p0").calls[static_cast<size_t>(i)], {StatusCode::kAborted, "preempted"});
  }
  advance(milliseconds(400));
  EXPECT_EQ(worker("p0").calls.size(), 6U) << "the burst";
  advance(milliseconds(3000));
  EXPECT_EQ(worker("p0").calls.size(), 10U);
  expect_all_go_on(clients);
}

}  // namespace
}  // namespace tessera::router
