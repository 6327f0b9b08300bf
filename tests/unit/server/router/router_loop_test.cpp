// Requests that go well, are cancelled, or run out of time.
#include "server/router/router_loop.h"

#include <gtest/gtest.h>

#include "tests/unit/server/router/router_fakes.h"

namespace tessera::router {
namespace {

using Ids = std::vector<int32_t>;

TEST_F(RouterLoopTest, SendsARequestThroughPrefillAndDecode) {
  start(1, 1);
  const RequestId id = begin();
  FakeCall& prefill = worker("p0").last();
  EXPECT_EQ(prefill.key.request, id);
  EXPECT_EQ(prefill.generation.id, id);
  EXPECT_EQ(prefill.candidates, std::vector<std::string>{"d0"});
  reserve(prefill, "d0");
  FakeCall& decode = worker("d0").last();
  EXPECT_EQ(decode.key, prefill.key);
  say(prefill, token(0, 10));
  EXPECT_EQ(client->tokens[0], Ids{10}) << "the first token does not wait for decode";
  hand_over(prefill);
  say(decode, token(1, 11));
  say(decode, token(2, 12, true));
  EXPECT_EQ(client->tokens[0], (Ids{10, 11, 12}));
  EXPECT_TRUE(client->is_finished());
  EXPECT_EQ(prefill.num_cancels + decode.num_cancels, 0) << "both ended by themselves";
  expect_all_over();
}

TEST_F(RouterLoopTest, FixesTheSeedForBothLegs) {
  start(1, 1);
  const RequestId id = begin();
  reserve(worker("p0").last(), "d0");
  EXPECT_EQ(worker("p0").last().generation.sampling.seed, id.low);
  EXPECT_EQ(worker("d0").last().attach.sampling.seed, id.low);
}

TEST_F(RouterLoopTest, ServesSeveralChoicesWithOnePrefill) {
  start(1, 1);
  begin(3);
  FakeCall& prefill = worker("p0").last();
  reserve(prefill, "d0");
  FakeCall& decode = worker("d0").last();
  EXPECT_EQ(decode.attach.num_choices, 3);
  say(prefill, token(0, 10, false, 0));
  say(prefill, token(0, 20, true, 1));
  say(prefill, token(0, 30, false, 2));
  hand_over(prefill);
  say(decode, token(1, 31, false, 2));
  say(decode, token(1, 11, true, 0));
  say(decode, token(2, 32, true, 2));
  EXPECT_EQ(client->tokens, (std::vector<Ids>{{10, 11}, {20}, {30, 31, 32}}));
  EXPECT_TRUE(client->is_finished());
  EXPECT_EQ(worker("p0").calls.size(), 1U);
  EXPECT_EQ(prefill.num_cancels + decode.num_cancels, 0);
  expect_all_over();
}

TEST_F(RouterLoopTest, HoldsDecodesTokensUntilTheFirstOneIsHere) {
  start(1, 1);
  begin();
  FakeCall& prefill = worker("p0").last();
  reserve(prefill, "d0");
  FakeCall& decode = worker("d0").last();
  say(decode, token(1, 11));
  say(decode, token(2, 12, true));
  EXPECT_TRUE(client->tokens[0].empty());
  say(prefill, token(0, 10));
  EXPECT_EQ(client->tokens[0], (Ids{10, 11, 12}));
  EXPECT_TRUE(client->is_finished());
  expect_all_over();
}

TEST_F(RouterLoopTest, EndsWithoutDecodeWhenTheFirstTokenIsTheLast) {
  start(1, 1);
  begin();
  say(worker("p0").last(), token(0, 10, true));
  EXPECT_TRUE(client->is_finished());
  EXPECT_TRUE(worker("d0").calls.empty());
  EXPECT_EQ(worker("p0").last().num_cancels, 0);
  expect_all_over();
}

TEST_F(RouterLoopTest, CancelsAnAttachedDecodeThatGetsNoChoice) {
  start(1, 1);
  begin();
  reserve(worker("p0").last(), "d0");
  say(worker("p0").last(), token(0, 10, true));
  EXPECT_TRUE(client->is_finished());
  EXPECT_EQ(worker("d0").last().num_cancels, 1);
  EXPECT_EQ(worker("p0").last().num_cancels, 0);
  expect_all_over();
}

TEST_F(RouterLoopTest, AttachesAtTheCandidateThatHasRoom) {
  start(1, 3);
  begin();
  FakeCall& prefill = worker("p0").last();
  ASSERT_EQ(prefill.candidates.size(), 3U);
  const std::string second = prefill.candidates[1];
  reserve(prefill, second);
  EXPECT_EQ(worker(second).calls.size(), 1U);
}

TEST_F(RouterLoopTest, SendsShortPromptsToDecodeAlone) {
  options.local_prefill_max_tokens = 16;
  worker("d0").edit_info().max_local_prefill_tokens = 8;
  start(1, 1);
  begin();
  EXPECT_TRUE(worker("p0").calls.empty());
  FakeCall& local = worker("d0").last();
  EXPECT_EQ(local.generation.prompt_ids, (Ids{1, 2, 3}));
  say(local, token(0, 10));
  say(local, token(1, 11, true));
  EXPECT_EQ(client->tokens[0], (Ids{10, 11}));
  EXPECT_EQ(local.num_cancels, 0);
  EXPECT_EQ(metrics.attempts_local.value(), 1);
  expect_all_over();
}

TEST_F(RouterLoopTest, ContinuesARequestThatWasReplayedBefore) {
  start(1, 1);
  GenerationRequest request = make_request({1, 2, 3, 50});
  request.num_replayed_tokens = 1;
  client = std::make_shared<ClientSink>();
  client->tokens[0] = {50};
  ASSERT_TRUE(submit(std::move(request), client).is_ok());
  say(worker("p0").last(), token(1, 51, true));
  EXPECT_EQ(client->tokens[0], (Ids{50, 51}));
  EXPECT_TRUE(client->is_finished());
}

// --- cancellation -------------------------------------------------------------

TEST_F(RouterLoopTest, CancelBeforeTheReservationReachesPrefill) {
  start(1, 1);
  const RequestId id = begin();
  cancel(id);
  EXPECT_EQ(worker("p0").last().num_cancels, 1);
  expect_all_over();
}

TEST_F(RouterLoopTest, CancelReachesBothLegsOnce) {
  start(1, 1);
  const RequestId id = begin();
  reserve(worker("p0").last(), "d0");
  cancel(id);
  cancel(id);
  EXPECT_EQ(worker("p0").last().num_cancels, 1);
  EXPECT_EQ(worker("d0").last().num_cancels, 1);
  EXPECT_FALSE(client->is_over()) << "the caller knows that it cancelled";
  expect_all_over();
}

TEST_F(RouterLoopTest, CancelAfterTheHandoverReachesDecodeOnly) {
  start(1, 1);
  const RequestId id = begin();
  reserve(worker("p0").last(), "d0");
  say(worker("p0").last(), token(0, 10));
  hand_over(worker("p0").last());
  cancel(id);
  EXPECT_EQ(worker("p0").last().num_cancels, 0);
  EXPECT_EQ(worker("d0").last().num_cancels, 1);
  expect_all_over();
}

TEST_F(RouterLoopTest, CancelOfALocalPrefillReachesDecode) {
  options.local_prefill_max_tokens = 16;
  worker("d0").edit_info().max_local_prefill_tokens = 8;
  start(0, 1);
  const RequestId id = begin();
  cancel(id);
  EXPECT_EQ(worker("d0").last().num_cancels, 1);
  expect_all_over();
}

TEST_F(RouterLoopTest, CancelWhileWaitingForAWorkerOrForTheNextTry) {
  start(0, 0);
  cancel(begin());
  expect_all_over();
  list(WorkerRole::kPrefill, "p", 1);
  list(WorkerRole::kDecode, "d", 1);
  run();
  const RequestId id = begin();
  fail(worker("p0").last(), unavailable("broken"));
  cancel(id);
  EXPECT_EQ(worker("p0").calls.size(), 1U);
  expect_all_over();
}

TEST_F(RouterLoopTest, IgnoresEventsAfterTheCancel) {
  start(1, 1);
  const RequestId id = begin();
  reserve(worker("p0").last(), "d0");
  cancel(id);
  say(worker("p0").last(), token(0, 10));
  say(worker("d0").last(), token(1, 11));
  fail(worker("p0").last(), unavailable("late"));
  EXPECT_TRUE(client->tokens[0].empty());
  EXPECT_FALSE(client->is_over());
  expect_all_over();
}

TEST_F(RouterLoopTest, IgnoresCancelsOfUnknownRequests) {
  start(1, 1);
  cancel(RequestId::random());
  expect_all_over();
}

// --- time ---------------------------------------------------------------------

TEST_F(RouterLoopTest, EndsARunningRequestAtItsDeadline) {
  start(1, 1);
  GenerationRequest request = make_request();
  request.deadline = Deadline(now + milliseconds(500));
  client = std::make_shared<ClientSink>();
  ASSERT_TRUE(submit(std::move(request), client).is_ok());
  reserve(worker("p0").last(), "d0");
  advance(milliseconds(499));
  EXPECT_FALSE(client->is_over());
  advance(milliseconds(1));
  ASSERT_TRUE(client->error.has_value());
  EXPECT_EQ(client->error->code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(worker("p0").last().num_cancels, 1);
  EXPECT_EQ(worker("d0").last().num_cancels, 1);
  expect_all_over();
}

TEST_F(RouterLoopTest, ReplaysWhenAWorkerIsSilentForTooLong) {
  start(2, 1);
  begin();
  FakeWorker& silent = worker(worker("p0").calls.empty() ? "p1" : "p0");
  FakeWorker& other = worker(worker("p0").calls.empty() ? "p0" : "p1");
  advance(options.prefill_stall + milliseconds(100));
  EXPECT_EQ(silent.last().num_cancels, 1);
  EXPECT_EQ(other.calls.size(), 1U);
  EXPECT_EQ(metrics.replays[static_cast<size_t>(ReplayReason::kTimeout)].value(), 1);
  reserve(other.last(), "d0");
  say(other.last(), token(0, 10));
  hand_over(other.last());
  for (int i = 1; i < 4; ++i) {
    advance(options.decode_stall - milliseconds(1));
    say(worker("d0").last(), token(i, 10 + i));
  }
  EXPECT_EQ(client->tokens[0].size(), 4U) << "each token buys time";
  advance(options.decode_stall + milliseconds(1));
  EXPECT_EQ(worker("d0").calls[0]->num_cancels, 1);
}

TEST_F(RouterLoopTest, MeasuresFirstTokensAndGaps) {
  start(1, 1);
  begin();
  reserve(worker("p0").last(), "d0");
  advance(milliseconds(250));
  say(worker("p0").last(), token(0, 10));
  hand_over(worker("p0").last());
  advance(milliseconds(40));
  say(worker("d0").last(), token(1, 11, true));
  EXPECT_NEAR(metrics.time_to_first_token_seconds.sum(), 0.25, 1e-9);
  EXPECT_NEAR(metrics.inter_token_seconds.sum(), 0.04, 1e-9);
  EXPECT_NEAR(metrics.request_seconds.sum(), 0.29, 1e-9);
  EXPECT_EQ(metrics.generation_tokens.value(), 2);
}

TEST_F(RouterLoopTest, EndsEverythingOnAnAbort) {
  start(1, 1);
  begin();
  inbox->abort_live(unavailable("shutting down"));
  run();
  EXPECT_EQ(client->error->code(), StatusCode::kUnavailable);
  EXPECT_EQ(worker("p0").last().num_cancels, 1);
  expect_all_over();
}

}  // namespace
}  // namespace tessera::router
