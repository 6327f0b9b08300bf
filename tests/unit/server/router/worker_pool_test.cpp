#include "server/router/worker_pool.h"

#include <gtest/gtest.h>

#include "engine/base/log.h"
#include "tests/unit/server/router/router_fakes.h"

namespace tessera::router {
namespace {

class WorkerPoolTest : public RouterLoopTest {
 protected:
  std::optional<WorkerState> state(const std::string& address) const {
    const WorkerRole role = address[0] == 'p' ? WorkerRole::kPrefill : WorkerRole::kDecode;
    return loop->pool().state_of(role, address);
  }
  void report(const std::string& address) {
    connector.report_load(address);
    run();
  }
};

TEST_F(WorkerPoolTest, IsReadyWithAPairOfOneLayout) {
  worker("d0").edit_info().layout_fingerprint = "other";
  start(1, 1);
  EXPECT_EQ(state("p0"), WorkerState::kReady);
  EXPECT_EQ(state("d0"), WorkerState::kReady);
  EXPECT_FALSE(inbox->readiness().is_ok());
  list(WorkerRole::kDecode, "d", 2);
  run();
  EXPECT_TRUE(inbox->readiness().is_ok());
  lose("d1");
  EXPECT_FALSE(inbox->readiness().is_ok());
}

TEST_F(WorkerPoolTest, PairsWorkersOfOneLayoutOnly) {
  worker("d0").edit_info().layout_fingerprint = "other";
  start(1, 2);
  for (int i = 0; i < 4; ++i) {
    begin();
    EXPECT_EQ(worker("p0").last().candidates, std::vector<std::string>{"d1"});
  }
}

TEST_F(WorkerPoolTest, RefusesWorkersOfAnotherModel) {
  worker("p0").edit_info().model_fingerprint = "other";
  worker("p1").edit_info().vocab_size = 999;
  start(3, 1);
  EXPECT_EQ(state("p0"), WorkerState::kRefused);
  EXPECT_EQ(state("p1"), WorkerState::kRefused);
  EXPECT_EQ(state("p2"), WorkerState::kReady);
  report("p0");
  EXPECT_EQ(state("p0"), WorkerState::kRefused) << "load reports change nothing";
  EXPECT_EQ(metrics.workers_refused.value(), 2);
  EXPECT_EQ(metrics.num_ready_prefill_workers.value(), 1);
}

TEST_F(WorkerPoolTest, ARefusedWorkerMayComeBackWithTheRightModel) {
  worker("p0").edit_info().model_fingerprint = "other";
  start(1, 1);
  worker("p0").edit_info().model_fingerprint = "model";
  lose("p0");
  advance(milliseconds(1000));
  EXPECT_EQ(state("p0"), WorkerState::kReady);
}

TEST_F(WorkerPoolTest, ADrainingWorkerGetsNoRequestButKeepsWhatItHas) {
  start(1, 1);
  begin();
  worker("p0").current_load.is_draining = true;
  report("p0");
  EXPECT_EQ(state("p0"), WorkerState::kDraining);
  const auto first = client;
  begin();
  EXPECT_EQ(worker("p0").calls.size(), 1U);
  say(worker("p0").last(), token(0, 10, true));
  EXPECT_TRUE(first->is_finished());
  worker("p0").current_load.is_draining = false;
  report("p0");
  EXPECT_EQ(worker("p0").calls.size(), 2U) << "the waiting request";
}

TEST_F(WorkerPoolTest, ConnectsAgainWithGrowingPauses) {
  connector.is_down["p0"] = true;
  start(1, 1);
  EXPECT_EQ(state("p0"), WorkerState::kLost);
  advance(milliseconds(99));
  EXPECT_EQ(connector.num_connects["p0"], 1);
  advance(milliseconds(1));
  EXPECT_EQ(connector.num_connects["p0"], 2);
  advance(milliseconds(199));
  EXPECT_EQ(connector.num_connects["p0"], 2);
  advance(milliseconds(1));
  EXPECT_EQ(connector.num_connects["p0"], 3);
  advance(milliseconds(60'000));
  EXPECT_LT(connector.num_connects["p0"], 20);
  connector.is_down["p0"] = false;
  advance(options.reconnect_last);
  EXPECT_EQ(state("p0"), WorkerState::kReady);
  lose("p0");
  advance(options.reconnect_first);
  EXPECT_EQ(state("p0"), WorkerState::kReady) << "a success resets the pause";
}

TEST_F(WorkerPoolTest, WarnsOnceOfALostWorkerAndCountsIt) {
  init_logging(LogLevel::kInfo);
  start(1, 1);
  connector.is_down["p0"] = true;
  ::testing::internal::CaptureStderr();
  lose("p0");
  advance(milliseconds(1000));
  const std::string log = ::testing::internal::GetCapturedStderr();
  ASSERT_GT(connector.num_connects["p0"], 2);
  const std::string warning =
      R"(warning worker_lost worker_role=prefill address=p0 reason="UNAVAILABLE: gone")";
  const size_t first = log.find(warning);
  ASSERT_NE(first, std::string::npos) << log;
  EXPECT_EQ(log.find("worker_lost", first + warning.size()), std::string::npos) << log;
  EXPECT_EQ(metrics.workers_lost.value(), 1);
}

TEST_F(WorkerPoolTest, AWorkerThatLeavesIsNotALostOne) {
  init_logging(LogLevel::kInfo);
  start(1, 1);
  connector.is_down["p0"] = true;
  ::testing::internal::CaptureStderr();
  leave("p0");
  advance(milliseconds(1000));
  const std::string log = ::testing::internal::GetCapturedStderr();
  ASSERT_GT(connector.num_connects["p0"], 2) << "it is awaited";
  EXPECT_NE(log.find("info worker_left worker_role=prefill address=p0"), std::string::npos) << log;
  EXPECT_EQ(log.find("worker_lost"), std::string::npos) << log;
  EXPECT_EQ(metrics.workers_lost.value(), 0);
}

TEST_F(WorkerPoolTest, AWorkerThatLeftAndCameBackMayBeLost) {
  start(1, 1);
  leave("p0");
  EXPECT_EQ(metrics.num_ready_prefill_workers.value(), 0);
  advance(options.reconnect_first);
  EXPECT_EQ(state("p0"), WorkerState::kReady);
  EXPECT_EQ(metrics.workers_lost.value(), 0);
  lose("p0");
  EXPECT_EQ(metrics.workers_lost.value(), 1);
}

TEST_F(WorkerPoolTest, AWorkerThatDrainsAndDiesIsLost) {
  init_logging(LogLevel::kInfo);
  start(1, 1);
  begin();
  worker("p0").current_load.is_draining = true;
  report("p0");
  ::testing::internal::CaptureStderr();
  lose("p0");
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("warning worker_lost worker_role=prefill"), std::string::npos) << log;
  EXPECT_EQ(log.find("worker_left"), std::string::npos) << log;
  EXPECT_EQ(metrics.workers_lost.value(), 1);
}

TEST_F(WorkerPoolTest, IgnoresReportsOfAnOldConnection) {
  start(1, 1);
  const auto old = connector.observers["p0"];
  lose("p0");
  advance(milliseconds(200));
  ASSERT_EQ(state("p0"), WorkerState::kReady);
  old->on_gone(unavailable("late"));
  run();
  EXPECT_EQ(state("p0"), WorkerState::kReady);
}

TEST_F(WorkerPoolTest, FollowsTheListOfAddresses) {
  start(1, 1);
  list(WorkerRole::kPrefill, "p", 3);
  run();
  EXPECT_EQ(metrics.num_ready_prefill_workers.value(), 3);
  list(WorkerRole::kPrefill, "p", 1);
  run();
  EXPECT_EQ(metrics.num_ready_prefill_workers.value(), 1);
  EXPECT_EQ(state("p2"), std::nullopt);
  EXPECT_EQ(connector.num_connects["p0"], 1) << "a known worker keeps its connection";
}

TEST_F(WorkerPoolTest, AWorkerThatLeavesTheListFinishesFirst) {
  start(1, 1);
  begin();
  list(WorkerRole::kPrefill, "p", 0);
  run();
  EXPECT_EQ(state("p0"), WorkerState::kDraining);
  say(worker("p0").last(), token(0, 10, true));
  EXPECT_TRUE(client->is_finished());
  EXPECT_EQ(state("p0"), std::nullopt);
}

TEST_F(WorkerPoolTest, CountsWhatItPlacedSinceTheLastReport) {
  start(2, 2);
  for (int i = 0; i < 4; ++i) {
    begin();
  }
  EXPECT_EQ(worker("p0").calls.size(), 2U);
  EXPECT_EQ(worker("p1").calls.size(), 2U);
  const auto views = loop->pool().ready(WorkerRole::kPrefill);
  EXPECT_EQ(views[0].num_placed_requests, 2);
  EXPECT_EQ(views[0].num_placed_tokens, 6);
  worker("p0").current_load.num_queued_prompt_tokens = 6;
  report("p0");
  EXPECT_EQ(loop->pool().ready(WorkerRole::kPrefill)[0].num_placed_tokens, 0);
}

// --- affinity under load --------------------------------------------------------

/// Four conversations with long prefixes of their own, in a shuffled order, over two pairs. Returns
/// the part of the prompt tokens that a worker had seen before, from the workers' point of view.
class SharedPrefixLoad : public WorkerPoolTest {
 protected:
  double hit_rate(PolicyKind policy) {
    connector.workers.clear();
    options.policy = policy;
    start(2, 2);
    std::map<std::string, std::vector<std::vector<int32_t>>> seen;
    int64_t num_tokens = 0;
    int64_t num_hits = 0;
    uint32_t random = 12345;
    for (int i = 0; i < 200; ++i) {
      random = random * 1664525U + 1013904223U;
      const auto talk = static_cast<int32_t>(random >> 16U) % 5;
      std::vector<int32_t> prompt(640, talk);
      prompt.resize(704, i % 1000);
      num_tokens += 704;
      num_hits += serve(prompt, seen);
    }
    return static_cast<double>(num_hits) / static_cast<double>(num_tokens);
  }

 private:
  int64_t serve(const std::vector<int32_t>& prompt,
                std::map<std::string, std::vector<std::vector<int32_t>>>& seen) {
    client = std::make_shared<ClientSink>();
    EXPECT_TRUE(submit(make_request(prompt), client).is_ok());
    int64_t num_matched = 0;
    for (const char* address : {"p0", "p1"}) {
      if (worker(address).calls.empty()) {
        continue;
      }
      for (const auto& old : seen[address]) {
        const auto [end, other] = std::mismatch(prompt.begin(), prompt.end(), old.begin());
        num_matched = std::max(num_matched, static_cast<int64_t>(end - prompt.begin()) / 64 * 64);
      }
      seen[address].push_back(prompt);
      say(worker(address).last(), token(0, 10, true));
      worker(address).calls.clear();
      report(address);
    }
    EXPECT_TRUE(client->is_finished());
    return num_matched;
  }
};

TEST_F(SharedPrefixLoad, AffinityBeatsRoundRobin) {
  const double round_robin = hit_rate(PolicyKind::kRoundRobin);
  const double affinity = hit_rate(PolicyKind::kPrefixAffinity);
  RecordProperty("round_robin", std::to_string(round_robin));
  RecordProperty("affinity", std::to_string(affinity));
  // Each of five prefixes is computed once at best: 195 of 200 requests can hit 640 of 704 tokens.
  EXPECT_GT(affinity, 0.88);
  EXPECT_LT(round_robin, affinity - 0.01);
}

TEST_F(WorkerPoolTest, ShowsAllWorkersWithWhatTheyReport) {
  worker("d0").edit_info().num_ranks = 4;
  worker("p1").edit_info().model_fingerprint = "other";
  start(2, 1);
  advance(options.board_period);
  const ClusterBoard::Snapshot shown = board.read();
  ASSERT_EQ(shown->size(), 3U);
  EXPECT_EQ((*shown)[0].address, "p0");
  EXPECT_EQ((*shown)[0].state, WorkerState::kReady);
  EXPECT_EQ((*shown)[1].address, "p1");
  EXPECT_EQ((*shown)[1].state, WorkerState::kRefused);
  EXPECT_EQ((*shown)[2].role, "decode");
  EXPECT_EQ((*shown)[2].info->num_ranks, 4);
  EXPECT_EQ((*shown)[2].load->num_blocks_total, 1000);
}

TEST_F(WorkerPoolTest, ShowsNewLoadsAfterTheBoardsPeriodAtTheLatest) {
  start(1, 1);
  advance(options.board_period);
  worker("d0").current_load.num_requests_running = 7;
  report("d0");
  advance(options.board_period);
  EXPECT_EQ((*board.read())[1].load->num_requests_running, 7);
  const ClusterBoard::Snapshot before = board.read();
  advance(10 * options.board_period);
  EXPECT_EQ(board.read(), before) << "nothing has changed";
}

TEST_F(WorkerPoolTest, ShowsThatAWorkerWasLostAndForgetsWhatItReported) {
  start(1, 1);
  advance(options.board_period);
  lose("d0");
  advance(options.board_period);
  const ClusterBoard::Snapshot shown = board.read();
  EXPECT_NE((*shown)[1].state, WorkerState::kReady);
  EXPECT_EQ((*shown)[0].state, WorkerState::kReady);
}

TEST_F(WorkerPoolTest, ForgetsWorkersThatAreNoLongerListed) {
  start(2, 1);
  list(WorkerRole::kPrefill, "p", 1);
  run();
  EXPECT_EQ(board.read()->size(), 2U);
}

}  // namespace
}  // namespace tessera::router
