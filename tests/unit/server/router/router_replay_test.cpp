// What happens to a request when a worker fails it, state by state.
#include <gtest/gtest.h>

#include "server/router/router_loop.h"
#include "tests/unit/server/router/router_fakes.h"

namespace tessera::router {
namespace {

using Ids = std::vector<int32_t>;
const Status kBroken = unavailable("stream broke");

class RouterReplayTest : public RouterLoopTest {
 protected:
  /// Two of each; the request has begun, and names say where.
  void start_pairs() {
    start(2, 2);
    begin();
    find_legs();
  }
  /// Where the latest attempt is, after the back-off.
  void find_legs() {
    advance(milliseconds(2000));
    for (const char* address : {"p0", "p1"}) {
      for (const auto& call : worker(address).calls) {
        if (prefill == nullptr || call->key.attempt > prefill->key.attempt) {
          prefill = call;
          prefill_at = address;
        }
      }
    }
  }
  void reserve_first() {
    decode_at = prefill->candidates.front();
    reserve(*prefill, decode_at);
    decode = worker(decode_at).calls.back();
  }
  /// The next attempt, which must be on other workers where `elsewhere` says so.
  void expect_replay(bool other_prefill, const Ids& prompt) {
    const std::string old_prefill = prefill_at;
    const uint32_t attempt = prefill->key.attempt;
    find_legs();
    ASSERT_EQ(prefill->key.attempt, attempt + 1);
    if (other_prefill) {
      EXPECT_NE(prefill_at, old_prefill);
    }
    EXPECT_EQ(prefill->generation.prompt_ids, prompt);
    EXPECT_EQ(prefill->generation.num_replayed_tokens, static_cast<int64_t>(prompt.size()) - 3);
    EXPECT_EQ(num_replays(), attempt);
  }
  /// Lets the current attempt finish the answer from `index` on.
  void complete(int64_t index) {
    reserve_first();
    say(*prefill, token(index, 90));
    hand_over(*prefill);
    say(*decode, token(index + 1, 91, true));
    EXPECT_TRUE(client->is_finished());
    expect_all_over();
  }

  std::shared_ptr<FakeCall> prefill;
  std::shared_ptr<FakeCall> decode;
  std::string prefill_at;
  std::string decode_at;
};

TEST_F(RouterReplayTest, PrefillRefuses) {
  worker("p0").refusal = unavailable("draining");
  start(2, 1);
  begin();
  EXPECT_FALSE(client->is_over());
  advance(milliseconds(2000));
  EXPECT_EQ(worker("p1").calls.size(), 1U);
  EXPECT_EQ(worker("p1").last().key.attempt, 2U);
  EXPECT_EQ(num_replays(), 1);
}

TEST_F(RouterReplayTest, PrefillFailsBeforeTheReservation) {
  start_pairs();
  fail(*prefill, kBroken);
  EXPECT_EQ(prefill->num_cancels, 0) << "it ended by itself";
  expect_replay(true, {1, 2, 3});
  complete(0);
}

TEST_F(RouterReplayTest, PrefillFailsAfterTheReservation) {
  start_pairs();
  reserve_first();
  fail(*prefill, kBroken);
  EXPECT_EQ(decode->num_cancels, 1);
  expect_replay(true, {1, 2, 3});
  EXPECT_NE(prefill->candidates.front(), decode_at);
  complete(0);
}

TEST_F(RouterReplayTest, PrefillFailsAfterTheFirstTokenAndDecodeDoesNotCommit) {
  start_pairs();
  reserve_first();
  say(*prefill, token(0, 10));
  fail(*prefill, kBroken);
  EXPECT_EQ(decode->num_cancels, 0) << "it may have committed";
  fail(*decode, {StatusCode::kAborted, "prefill is gone"});
  expect_replay(true, {1, 2, 3, 10});
  complete(1);
  EXPECT_EQ(client->tokens[0], (Ids{10, 90, 91}));
}

TEST_F(RouterReplayTest, PrefillFailsAfterTheFirstTokenAndDecodeIsSilent) {
  start_pairs();
  reserve_first();
  say(*prefill, token(0, 10));
  fail(*prefill, kBroken);
  advance(options.commit_grace);
  EXPECT_EQ(decode->num_cancels, 1);
  expect_replay(true, {1, 2, 3, 10});
  complete(1);
}

TEST_F(RouterReplayTest, PrefillFailsAfterTheFirstTokenButDecodeGoesOn) {
  start_pairs();
  reserve_first();
  say(*prefill, token(0, 10));
  fail(*prefill, kBroken);
  say(*decode, token(1, 11));
  advance(options.commit_grace * 2);
  say(*decode, token(2, 12, true));
  EXPECT_EQ(client->tokens[0], (Ids{10, 11, 12}));
  EXPECT_EQ(num_replays(), 0);
  expect_all_over();
}

TEST_F(RouterReplayTest, PrefillFailsWhileDecodeRunsAhead) {
  start_pairs();
  reserve_first();
  say(*decode, token(1, 11));
  fail(*prefill, kBroken);  // with it the first token is lost
  EXPECT_EQ(decode->num_cancels, 1);
  expect_replay(false, {1, 2, 3});
  complete(0);
}

TEST_F(RouterReplayTest, AttachFindsNoReservation) {
  start_pairs();
  reserve_first();
  fail(*decode, not_found("no reservation"));
  EXPECT_EQ(prefill->num_cancels, 1);
  expect_replay(false, {1, 2, 3});
  complete(0);
}

TEST_F(RouterReplayTest, AttachIsRefusedAtOnce) {
  start_pairs();
  const std::string first = prefill->candidates.front();
  worker(first).refusal = not_found("no reservation");
  reserve(*prefill, first);
  EXPECT_EQ(prefill->num_cancels, 1);
  expect_replay(false, {1, 2, 3});
  EXPECT_NE(prefill->candidates.front(), first);
  complete(0);
}

TEST_F(RouterReplayTest, DecodeDiesAfterSomeTokens) {
  start_pairs();
  reserve_first();
  say(*prefill, token(0, 10));
  hand_over(*prefill);
  say(*decode, token(1, 11));
  say(*decode, token(2, 12));
  const std::string dead = decode_at;
  fail(*decode, kBroken);
  EXPECT_FALSE(client->is_over()) << "the client sees a pause";
  expect_replay(false, {1, 2, 3, 10, 11, 12});
  EXPECT_NE(prefill->candidates.front(), dead);
  EXPECT_EQ(prefill->generation.first_choice, 0);
  complete(3);
  EXPECT_EQ(client->tokens[0], (Ids{10, 11, 12, 90, 91}));
}

TEST_F(RouterReplayTest, DecodePreempts) {
  start_pairs();
  reserve_first();
  say(*prefill, token(0, 10));
  hand_over(*prefill);
  fail(*decode, {StatusCode::kAborted, "preempted"});
  EXPECT_EQ(metrics.replays[static_cast<size_t>(ReplayReason::kAborted)].value(), 1);
  expect_replay(false, {1, 2, 3, 10});
  reserve_first();
  EXPECT_EQ(decode->attach.num_replayed_tokens, 1);
}

TEST_F(RouterReplayTest, BothWorkersAreLost) {
  start_pairs();
  reserve_first();
  say(*prefill, token(0, 10));
  connector.lose(prefill_at);
  lose(decode_at);
  EXPECT_EQ(decode->num_cancels, 1) << "a lost worker may still live";
  expect_replay(false, {1, 2, 3, 10});
  EXPECT_EQ(metrics.replays[static_cast<size_t>(ReplayReason::kWorkerLost)].value(), 1);
  complete(1);
}

TEST_F(RouterReplayTest, TheOnlyPairIsTriedAgain) {
  start(1, 1);
  begin();
  find_legs();
  fail(*prefill, kBroken);
  expect_replay(false, {1, 2, 3});
  complete(0);
}

TEST_F(RouterReplayTest, SpendsNoReplayOnAWorkerThatHasJustFailed) {
  start(1, 1);
  begin();
  worker("p0").refusal = kBroken;  // dead, but nobody has said so yet
  fail(worker("p0").last(), kBroken);
  advance(milliseconds(400));
  EXPECT_EQ(metrics.attempts.value(), 1);
  worker("p0").refusal = Status::ok();
  connector.report_load("p0");
  run();
  EXPECT_EQ(worker("p0").calls.size(), 2U) << "a report is a proof of life";
}

TEST_F(RouterReplayTest, TrustsASilentWorkerAgainAfterAMoment) {
  start(1, 1);
  begin();
  fail(worker("p0").last(), kBroken);
  advance(options.suspicion - milliseconds(1));
  EXPECT_EQ(metrics.attempts.value(), 1);
  advance(milliseconds(1));
  EXPECT_EQ(metrics.attempts.value(), 2);
}

TEST_F(RouterReplayTest, TwoFailedReplaysEndInOneError) {
  start_pairs();
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(client->is_over());
    fail(*prefill, kBroken);
    find_legs();
  }
  ASSERT_TRUE(client->error.has_value());
  EXPECT_EQ(client->error->code(), StatusCode::kUnavailable);
  EXPECT_NE(client->error->message().find("stream broke"), std::string::npos);
  EXPECT_EQ(num_replays(), 2);
  EXPECT_EQ(metrics.requests_failed.value(), 1);
  expect_all_over();
}

TEST_F(RouterReplayTest, FaultsOfTheRequestAreNotRetried) {
  for (const StatusCode code : {StatusCode::kInvalidArgument,
                                StatusCode::kOutOfRange,
                                StatusCode::kUnimplemented,
                                StatusCode::kPermissionDenied}) {
    prefill.reset();
    start(1, 1);
    begin();
    worker("p0").last().sink->on_error({code, "no"});
    run();
    ASSERT_TRUE(client->error.has_value());
    EXPECT_EQ(client->error->code(), code);
    EXPECT_EQ(num_replays(), 0);
    expect_all_over();
  }
}

TEST_F(RouterReplayTest, NoReplayPastTheDeadline) {
  start(1, 1);
  GenerationRequest request = make_request();
  request.deadline = Deadline(now + milliseconds(100));
  client = std::make_shared<ClientSink>();
  ASSERT_TRUE(submit(std::move(request), client).is_ok());
  now += milliseconds(100);
  fail(worker("p0").last(), {StatusCode::kDeadlineExceeded, "deadline"});
  EXPECT_EQ(client->error->code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(num_replays(), 0);
  expect_all_over();
}

TEST_F(RouterReplayTest, AGapInTheTokensIsAFailure) {
  start_pairs();
  reserve_first();
  say(*prefill, token(0, 10));
  hand_over(*prefill);
  say(*decode, token(2, 12));
  EXPECT_EQ(decode->num_cancels, 1);
  EXPECT_EQ(metrics.replays[static_cast<size_t>(ReplayReason::kBadStream)].value(), 1);
  expect_replay(false, {1, 2, 3, 10});
  complete(1);
}

TEST_F(RouterReplayTest, ARepeatIsAFailure) {
  start_pairs();
  reserve_first();
  say(*prefill, token(0, 10));
  hand_over(*prefill);
  say(*decode, token(1, 11));
  say(*decode, token(1, 11));
  EXPECT_EQ(client->tokens[0], (Ids{10, 11}));
  expect_replay(false, {1, 2, 3, 10, 11});
  complete(2);
}

TEST_F(RouterReplayTest, WorkersThatBreakTheProtocolFailTheAttempt) {
  const std::vector<std::function<void()>> faults = {
      [&] { say(*prefill, token(0, 10, false, 1)); },  // not a choice of this request
      [&] { say(*prefill, token(1, 10)); },            // not the first token
      [&] { say(*decode, token(0, 10)); },             // the first token is prefill's
      [&] { hand_over(*prefill); },                    // without the first token
      [&] { reserve(*prefill, decode_at); },           // a second time
      [&] { reserve(*prefill, "elsewhere"); },         // never offered
      [&] {
        say(*prefill, token(0, 10));
        say(*prefill, token(1, 11));
      },
      [&] {
        say(*decode, token(2, 12));
        say(*prefill, token(0, 10));
      },  // a gap behind the hold
  };
  for (size_t i = 0; i < faults.size(); ++i) {
    SCOPED_TRACE(i);
    prefill.reset();
    for (auto& [address, fake] : connector.workers) {
      fake->calls.clear();
    }
    start_pairs();
    reserve_first();
    const auto failed = prefill;
    faults[i]();
    find_legs();
    EXPECT_EQ(prefill->key.attempt, failed->key.attempt + 1);
    EXPECT_EQ(decode->num_cancels, 1);
    cancel(failed->key.request);
    expect_all_over();
  }
}

TEST_F(RouterReplayTest, UnfinishedChoicesAreReplayedOneByOne) {
  start(1, 1);
  begin(3);
  find_legs();
  reserve_first();
  say(*prefill, token(0, 10, false, 0));
  say(*prefill, token(0, 20, true, 1));
  say(*prefill, token(0, 30, false, 2));
  hand_over(*prefill);
  say(*decode, token(1, 31, false, 2));
  fail(*decode, kBroken);
  advance(milliseconds(2000));
  ASSERT_EQ(worker("p0").calls.size(), 3U);
  const auto first = worker("p0").calls[1];
  const auto second = worker("p0").calls[2];
  EXPECT_EQ(num_replays(), 1);
  std::map<int32_t, Ids> prompts;
  for (const auto& call : {first, second}) {
    EXPECT_EQ(call->generation.num_choices, 1);
    EXPECT_NE(call->key.request, prefill->key.request) << "a request of its own";
    EXPECT_EQ(call->generation.id, call->key.request);
    EXPECT_EQ(call->generation.sampling.seed, prefill->generation.sampling.seed);
    prompts[call->generation.first_choice] = call->generation.prompt_ids;
  }
  EXPECT_EQ(prompts, (std::map<int32_t, Ids>{{0, {1, 2, 3, 10}}, {2, {1, 2, 3, 30, 31}}}));
  for (const auto& call : {first, second}) {
    say(*call,
        token(call->generation.num_replayed_tokens, 99, true, call->generation.first_choice));
  }
  EXPECT_EQ(client->tokens, (std::vector<Ids>{{10, 99}, {20}, {30, 31, 99}}));
  EXPECT_TRUE(client->is_finished());
  expect_all_over();
}

TEST_F(RouterReplayTest, ChoicesWithoutATokenStayTogether) {
  start(1, 1);
  begin(3);
  find_legs();
  fail(*prefill, kBroken);
  find_legs();
  EXPECT_EQ(prefill->key.attempt, 2U);
  EXPECT_EQ(prefill->generation.num_choices, 3);
}

TEST_F(RouterReplayTest, OneLostChoiceEndsTheWholeRequest) {
  start(1, 1);
  begin(2);
  find_legs();
  say(*prefill, token(0, 10, false, 0));
  fail(*prefill, kBroken);
  advance(milliseconds(2000));
  ASSERT_EQ(worker("p0").calls.size(), 3U);
  const auto doomed = worker("p0").calls[1];
  const auto healthy = worker("p0").calls[2];
  fail(*doomed, kBroken);
  advance(milliseconds(2000));
  fail(worker("p0").last(), kBroken);
  ASSERT_TRUE(client->error.has_value());
  EXPECT_EQ(healthy->num_cancels, 1);
  expect_all_over();
}

TEST_F(RouterReplayTest, LocalPrefillIsReplayedThroughPrefillWhenItGrew) {
  options.local_prefill_max_tokens = 3;
  worker("d0").edit_info().max_local_prefill_tokens = 8;
  start(1, 1);
  begin();
  say(worker("d0").last(), token(0, 10));
  fail(worker("d0").last(), kBroken);
  advance(milliseconds(2000));
  ASSERT_EQ(worker("p0").calls.size(), 1U);
  EXPECT_EQ(worker("p0").last().generation.prompt_ids, (Ids{1, 2, 3, 10}));
}

TEST_F(RouterReplayTest, EventsOfAnOldAttemptAreIgnored) {
  start_pairs();
  reserve_first();
  const auto old_prefill = prefill;
  const auto old_decode = decode;
  fail(*prefill, kBroken);
  expect_replay(true, {1, 2, 3});
  say(*old_decode, token(1, 66));
  old_prefill->prefill_sink->on_handed_over();
  run();
  complete(0);
  EXPECT_EQ(client->tokens[0], (Ids{90, 91}));
}

// --- busy workers ---------------------------------------------------------------

TEST_F(RouterReplayTest, BusyWorkersAreTriedAgainWithoutCounting) {
  start(1, 1);
  worker("p0").refusal = resource_exhausted("queue full");
  begin();
  advance(milliseconds(5000));
  EXPECT_FALSE(client->is_over());
  EXPECT_GT(metrics.attempts_busy.value(), 3);
  EXPECT_LT(metrics.attempts_busy.value(), 40) << "the pause grows";
  EXPECT_EQ(num_replays(), 0);
  worker("p0").refusal = Status::ok();
  find_legs();
  complete(0);
}

TEST_F(RouterReplayTest, PreemptionsWithProgressBetweenNeverEndTheRequest) {
  start(1, 1);
  begin();
  find_legs();
  for (int32_t i = 0; i < 5; ++i) {
    reserve_first();
    say(*prefill, token(2 * i, 10 + 2 * i));
    hand_over(*prefill);
    say(*decode, token(2 * i + 1, 11 + 2 * i));
    advance(milliseconds(8000));
    fail(*decode, resource_exhausted("preempted: no block is free"));
    find_legs();
    ASSERT_FALSE(client->is_over());
    ASSERT_EQ(prefill->generation.num_replayed_tokens, 2 * i + 2);
  }
  EXPECT_EQ(num_replays(), 0);
  complete(10);
}

TEST_F(RouterReplayTest, APreemptedRequestWithoutFurtherProgressEndsResourceExhausted) {
  start(1, 1);
  begin();
  find_legs();
  reserve_first();
  say(*prefill, token(0, 10));
  hand_over(*prefill);
  worker("p0").refusal = resource_exhausted("queue full");
  fail(*decode, resource_exhausted("preempted: no block is free"));
  advance(options.worker_wait - milliseconds(1));
  EXPECT_FALSE(client->is_over());
  advance(milliseconds(2));
  ASSERT_TRUE(client->error.has_value());
  EXPECT_EQ(client->error->code(), StatusCode::kResourceExhausted);
  expect_all_over();
}

TEST_F(RouterReplayTest, WorkersThatStayBusyEndTheRequest) {
  start(1, 1);
  worker("p0").refusal = resource_exhausted("queue full");
  begin();
  advance(options.worker_wait + milliseconds(1));
  ASSERT_TRUE(client->error.has_value());
  EXPECT_EQ(client->error->code(), StatusCode::kResourceExhausted);
  EXPECT_NE(client->error->message().find("queue full"), std::string::npos);
  expect_all_over();
}

// --- no workers -------------------------------------------------------------------

TEST_F(RouterReplayTest, WaitsForAWorkerAndStartsInOrder) {
  start(0, 1);
  const RequestId first = begin();
  const RequestId second = begin();
  EXPECT_EQ(metrics.num_requests_waiting.value(), 2);
  advance(milliseconds(9000));
  list(WorkerRole::kPrefill, "p", 1);
  run();
  ASSERT_EQ(worker("p0").calls.size(), 2U);
  EXPECT_EQ(worker("p0").calls[0]->key.request, first);
  EXPECT_EQ(worker("p0").calls[1]->key.request, second);
  EXPECT_EQ(metrics.num_requests_waiting.value(), 0);
  EXPECT_EQ(metrics.no_worker_waits.value(), 2);
}

TEST_F(RouterReplayTest, GivesUpWhenNoWorkerComes) {
  start(1, 0);
  begin();
  advance(options.worker_wait - milliseconds(1));
  EXPECT_FALSE(client->is_over());
  advance(milliseconds(1));
  ASSERT_TRUE(client->error.has_value());
  EXPECT_EQ(client->error->code(), StatusCode::kUnavailable);
  expect_all_over();
}

TEST_F(RouterReplayTest, AReplayWaitsForAWorkerToComeBack) {
  start(1, 1);
  begin();
  find_legs();
  connector.is_down["p0"] = true;
  lose("p0");
  advance(milliseconds(4000));
  EXPECT_FALSE(client->is_over());
  connector.is_down["p0"] = false;
  advance(milliseconds(6000));
  find_legs();
  EXPECT_EQ(prefill->key.attempt, 2U);
  complete(0);
}

}  // namespace
}  // namespace tessera::router
