#include <limits>

#include <gtest/gtest.h>

#include "tests/unit/engine/handoff/prefill_fixture.h"

namespace tessera::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// How far a request has come when something happens to it.
enum class Stage { kQueued, kAsked, kGranted, kSending, kSealed, kAcked };
constexpr Stage kStages[] = {
    Stage::kQueued, Stage::kAsked, Stage::kGranted, Stage::kSending, Stage::kSealed, Stage::kAcked};

PrefillFixture::Request bring_to(PrefillFixture& fixture, Stage stage) {
  const auto request = fixture.add(1);
  if (stage >= Stage::kAsked) {
    fixture.connect(1);
  }
  if (stage >= Stage::kGranted) {
    fixture.hear(1, Grant{request.key, 0});
  }
  if (stage >= Stage::kSending) {
    fixture.compute(request, 64);
  }
  if (stage >= Stage::kSealed) {
    fixture.draw_first_tokens(request);
  }
  if (stage >= Stage::kAcked) {
    fixture.ack_all(request);
  }
  return request;
}

TEST(PrefillSideTest, SealsWithTheProbesOfWhatItSent) {
  PrefillFixture fixture;
  fixture.source.answer = {2.5};
  const auto request = fixture.add(1);
  fixture.connect(1);
  fixture.hear(1, Grant{request.key, 64});
  fixture.draw_first_tokens(request);
  ASSERT_EQ(fixture.sent<Seal>(1).size(), 1U);
  EXPECT_EQ(fixture.sent<Seal>(1)[0].probes, std::vector<double>{2.5});
  EXPECT_EQ(fixture.source.asked, (std::vector<int64_t>{3, 64, 130}));
}

TEST(PrefillSideTest, ProbesThatOverflowedAreNotSent) {
  PrefillFixture fixture;
  fixture.source.answer = {1.0, std::numeric_limits<double>::infinity()};
  static_cast<void>(bring_to(fixture, Stage::kSealed));
  ASSERT_EQ(fixture.sent<Seal>(1).size(), 1U);
  EXPECT_TRUE(fixture.sent<Seal>(1)[0].probes.empty());
}

TEST(PrefillSideTest, HandsARequestOver) {
  PrefillFixture fixture;
  const auto request = fixture.add(1);
  ASSERT_EQ(fixture.sent<Hello>(1).size(), 1U);
  EXPECT_EQ(fixture.sent<Hello>(1)[0].epoch, 42U);
  EXPECT_EQ(fixture.sent<Hello>(1)[0].fingerprint, "layout");
  EXPECT_TRUE(fixture.sent<Reserve>(1).empty()) << "the transport is not connected yet";
  fixture.connect(1);
  ASSERT_EQ(fixture.sent<Reserve>(1).size(), 1U);
  EXPECT_EQ(fixture.sent<Reserve>(1)[0].prompt_ids, make_prompt(130));
  EXPECT_EQ(fixture.sent<Reserve>(1)[0].max_total_tokens, 139);
  EXPECT_FALSE(fixture.side.may_start(*fixture.host.find(request.key)));
  fixture.hear(1, Grant{request.key, 0});
  EXPECT_TRUE(fixture.side.may_start(*fixture.host.find(request.key)));
  EXPECT_EQ(request.sink->reserved_at, std::vector<std::string>{"a"});
  fixture.compute(request, 100);
  EXPECT_EQ(fixture.sender.sent.size(), 1U) << "one block is full";
  fixture.draw_first_tokens(request);
  ASSERT_EQ(fixture.sender.sent.size(), 3U) << "the partial last block goes too";
  EXPECT_EQ(fixture.sender.sent[2].block_index, 2);
  ASSERT_EQ(fixture.sent<Seal>(1).size(), 1U);
  EXPECT_EQ(fixture.sent<Seal>(1)[0].first_tokens.size(), 1U);
  fixture.ack_all(request);
  EXPECT_EQ(fixture.host.allocator().num_used(), 3) << "pinned until the commit";
  fixture.hear(1, Committed{request.key});
  EXPECT_TRUE(request.sink->is_handed_over);
  EXPECT_EQ(request.sink->num_ends, 1);
  EXPECT_TRUE(fixture.is_clean());
  EXPECT_TRUE(fixture.sent<Abort>(1).empty());
  EXPECT_EQ(fixture.metrics.terminal[0].value(), 1);
  EXPECT_EQ(fixture.metrics.acked_parcels.value(), 3);
}

TEST(PrefillSideTest, SendsNothingThatDecodeHolds) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kAsked);
  fixture.hear(1, Grant{request.key, 128});
  fixture.draw_first_tokens(request);
  ASSERT_EQ(fixture.sender.sent.size(), 1U);
  EXPECT_EQ(fixture.sender.sent[0].block_index, 2);
}

TEST(PrefillSideTest, SendsTheWindowOfWhatDecodeHoldsToo) {
  const DecodeLayout layout{
      .num_ranks = 2, .num_images = 2, .window = {.num_first = 1, .num_last = 3}};
  PrefillFixture fixture(2, layout);
  const auto request = bring_to(fixture, Stage::kAsked);
  fixture.hear(1, Grant{request.key, 64});
  fixture.compute(request, 64);
  ASSERT_EQ(fixture.sender.sent.size(), 2U) << "block 0 at decode lacks the other slice";
  for (const Parcel& parcel : fixture.sender.sent) {
    EXPECT_EQ(parcel.block_index, 3) << "behind the prompt's three blocks";
  }
  fixture.draw_first_tokens(request);
  // 130 tokens: the last three lie in blocks 1 and 2.
  std::vector<int32_t> to_rank_1;
  for (const Parcel& parcel : fixture.sender.sent) {
    if (parcel.rank == 1) {
      to_rank_1.push_back(parcel.block_index);
    }
  }
  EXPECT_EQ(to_rank_1, (std::vector<int32_t>{3, 1, 4, 2, 5}));
  fixture.ack_all(request);
  fixture.hear(1, Committed{request.key});
  EXPECT_TRUE(request.sink->is_handed_over);
  EXPECT_EQ(fixture.metrics.acked_parcels.value(), 10);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(PrefillSideTest, SendsTheWindowWhenDecodeHoldsTheWholePrompt) {
  const DecodeLayout layout{
      .num_ranks = 2, .num_images = 2, .window = {.num_first = 0, .num_last = 1}};
  PrefillFixture fixture(2, layout);
  const auto request = fixture.add(1, 128);
  fixture.connect(1);
  fixture.hear(1, Grant{request.key, 128});
  fixture.draw_first_tokens(request);
  ASSERT_EQ(fixture.sender.sent.size(), 2U);
  EXPECT_EQ(fixture.sender.sent[0].block_index, 2);
  EXPECT_EQ(fixture.sender.sent[1].block_index, 2);
}

TEST(PrefillSideTest, RefusesAGrantThatMakesNoSense) {
  for (const int64_t num_held : {-64, 63, 192}) {
    PrefillFixture fixture;
    const auto request = bring_to(fixture, Stage::kAsked);
    fixture.hear(1, Grant{request.key, num_held});
    EXPECT_EQ(request.sink->error.code(), StatusCode::kInternal) << num_held;
    EXPECT_EQ(fixture.sent<Abort>(1).size(), 1U) << num_held;
    EXPECT_TRUE(fixture.is_clean()) << num_held;
  }
}

TEST(PrefillSideTest, OneTokenNeedsNoReservation) {
  PrefillFixture fixture;
  const auto request = fixture.add(1, 130, {"a"}, 1);
  EXPECT_TRUE(fixture.port.opened.empty());
  EXPECT_TRUE(fixture.side.may_start(*fixture.host.find(request.key)));
  fixture.draw_first_tokens(request, {true});
  EXPECT_TRUE(request.sink->is_handed_over);
  fixture.host.end_group(*fixture.host.find(request.key));
  EXPECT_TRUE(fixture.is_clean());
}

TEST(PrefillSideTest, AbortsAtDecodeWhenEveryChoiceEndsAtItsFirstToken) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kSending);
  fixture.draw_first_tokens(request, {true});
  EXPECT_EQ(fixture.sent<Abort>(1).size(), 1U);
  EXPECT_TRUE(fixture.sent<Seal>(1).empty());
  EXPECT_TRUE(request.sink->is_handed_over);
  fixture.host.end_group(*fixture.host.find(request.key));
  fixture.mailbox.on_drained(1, request.key);
  fixture.turn();
  EXPECT_EQ(request.sink->num_ends, 1);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(PrefillSideTest, SealsWhenOnlySomeChoicesEnd) {
  PrefillFixture fixture;
  const auto request = fixture.add(1, 130, {"a"}, 9, 1, 2);
  fixture.connect(1);
  fixture.hear(1, Grant{request.key, 0});
  fixture.draw_first_tokens(request, {true, false});
  ASSERT_EQ(fixture.sent<Seal>(1).size(), 1U);
  EXPECT_TRUE(fixture.sent<Seal>(1)[0].first_tokens[0].finish_reason.has_value());
  EXPECT_FALSE(fixture.sent<Seal>(1)[0].first_tokens[1].finish_reason.has_value());
}

TEST(PrefillSideTest, ACancelInAnyStateFreesEverything) {
  for (const Stage stage : kStages) {
    PrefillFixture fixture;
    const auto request = bring_to(fixture, stage);
    fixture.host.end_group(*fixture.host.find(request.key));
    const bool is_known = stage >= Stage::kAsked;
    EXPECT_EQ(fixture.sent<Abort>(1).size(), is_known ? 1U : 0U) << static_cast<int>(stage);
    const bool is_in_flight = stage == Stage::kSending || stage == Stage::kSealed;
    EXPECT_EQ(fixture.sender.aborted.size(), is_in_flight ? 1U : 0U);
    EXPECT_EQ(fixture.is_clean(), !is_in_flight) << "blocks stay until they are drained";
    fixture.mailbox.on_drained(1, request.key);
    fixture.turn();
    EXPECT_TRUE(fixture.is_clean()) << static_cast<int>(stage);
    EXPECT_EQ(request.sink->num_ends, 0) << "the loop tells the sink, if anybody";
  }
}

TEST(PrefillSideTest, ALostLinkInAnyStateEndsItsRequestsOnce) {
  for (const Stage stage : kStages) {
    PrefillFixture fixture;
    const auto request = bring_to(fixture, stage);
    fixture.mailbox.on_link_closed(1, unavailable("cut"));
    fixture.turn();
    if (stage <= Stage::kAsked) {  // nothing was promised: the next try may do
      EXPECT_EQ(request.sink->num_ends, 0);
      fixture.turn(seconds(1));
      EXPECT_EQ(fixture.port.opened.size(), 2U);
      continue;
    }
    EXPECT_EQ(request.sink->num_ends, 1) << static_cast<int>(stage);
    EXPECT_EQ(request.sink->error.code(), StatusCode::kUnavailable);
    EXPECT_EQ(fixture.sender.disconnected, std::vector<PeerId>{1});
    fixture.mailbox.on_disconnected(1);
    fixture.turn();
    EXPECT_TRUE(fixture.is_clean()) << static_cast<int>(stage);
  }
}

TEST(PrefillSideTest, ALostPeerInAnyStateEndsItsRequestsOnce) {
  for (const Stage stage : {Stage::kGranted, Stage::kSending, Stage::kSealed, Stage::kAcked}) {
    PrefillFixture fixture;
    const auto request = bring_to(fixture, stage);
    fixture.mailbox.on_peer_failed(1, unavailable("endpoint failed"));
    fixture.turn();
    EXPECT_EQ(request.sink->num_ends, 1) << static_cast<int>(stage);
    EXPECT_EQ(fixture.port.closed, std::vector<LinkId>{1});
    EXPECT_TRUE(fixture.sender.disconnected.empty()) << "it is gone already";
    EXPECT_TRUE(fixture.is_clean()) << static_cast<int>(stage);
  }
}

TEST(PrefillSideTest, BlocksOfALostLinkStayUntilThePeerIsGone) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kSealed);
  fixture.mailbox.on_link_closed(1, unavailable("cut"));
  fixture.turn();
  EXPECT_EQ(fixture.host.allocator().num_used(), 3);
  EXPECT_TRUE(fixture.side.has_work());
  fixture.mailbox.on_disconnected(1);
  fixture.turn();
  EXPECT_TRUE(fixture.is_clean());
}

TEST(PrefillSideTest, ACommitBeforeTheLastAckPinsUntilDrained) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kSealed);
  fixture.hear(1, Committed{request.key});
  EXPECT_TRUE(request.sink->is_handed_over);
  EXPECT_EQ(fixture.sender.aborted.size(), 1U);
  EXPECT_EQ(fixture.host.allocator().num_used(), 3);
  fixture.mailbox.on_drained(1, request.key);
  fixture.turn();
  EXPECT_TRUE(fixture.is_clean());
  EXPECT_TRUE(fixture.sent<Abort>(1).empty()) << "the handoff is decode's";
}

TEST(PrefillSideTest, BusyAsksTheNextCandidateThenComesRoundAgain) {
  PrefillFixture fixture;
  const auto request = fixture.add(1, 130, {"a", "b"});
  fixture.connect(1);
  fixture.hear(1, Busy{request.key, 50});
  ASSERT_EQ(fixture.port.opened.size(), 2U);
  EXPECT_EQ(fixture.port.opened[1], "b");
  fixture.connect(2);
  fixture.hear(2, Busy{request.key, 50});
  EXPECT_EQ(fixture.sent<Reserve>(1).size(), 1U) << "a pause comes first";
  for (int i = 0; i < 20; ++i) {
    fixture.turn(milliseconds(100));
  }
  EXPECT_EQ(fixture.sent<Reserve>(1).size(), 2U);
  EXPECT_EQ(fixture.metrics.busy_answers.value(), 2);
  EXPECT_EQ(request.sink->num_ends, 0);
}

TEST(PrefillSideTest, AYoungerRequestDoesNotTakeTheRoomThatAnOlderOneWaitsFor) {
  PrefillFixture fixture;
  const auto older = fixture.add(1);
  fixture.connect(1);
  fixture.hear(1, Busy{older.key, 1000});
  const auto younger = fixture.add(2);
  EXPECT_EQ(fixture.sent<Reserve>(1).size(), 1U);
  EXPECT_EQ(fixture.sent<Reserve>(1)[0].key, older.key);
}

TEST(PrefillSideTest, OnlyTheFirstFewWaitingRequestsSeekAReservation) {
  PrefillFixture fixture(2);
  const auto first = fixture.add(1);
  fixture.connect(1);
  const auto second = fixture.add(2);
  const auto third = fixture.add(3);
  EXPECT_EQ(fixture.sent<Reserve>(1).size(), 2U);
  fixture.hear(1, Grant{first.key, 0});
  fixture.compute(first, 64);  // it has started
  fixture.turn();
  ASSERT_EQ(fixture.sent<Reserve>(1).size(), 3U);
  EXPECT_EQ(fixture.sent<Reserve>(1)[2].key, third.key);
}

TEST(PrefillSideTest, AsManyAsOneStepCanTakeSeekAReservation) {
  PrefillFixture fixture(1, {}, 200);
  static_cast<void>(fixture.add(1, 150));
  fixture.connect(1);
  static_cast<void>(fixture.add(2, 40));
  static_cast<void>(fixture.add(3, 40));
  static_cast<void>(fixture.add(4, 40));
  EXPECT_EQ(fixture.sent<Reserve>(1).size(), 3U) << "190 tokens are not yet 200, 230 are";
}

TEST(PrefillSideTest, AfterABusyOnlyTheFirstFewSeekAReservation) {
  PrefillFixture fixture(1, {}, 1000);
  const auto older = fixture.add(1);
  fixture.connect(1);
  fixture.hear(1, Busy{older.key, 1000});
  const auto younger = fixture.add(2, 130, {"b"});
  EXPECT_EQ(fixture.port.opened.size(), 1U)
      << "rounds without an answer would make its pauses long";
  fixture.turn(milliseconds(2000));
  fixture.hear(1, Grant{older.key, 0});
  fixture.turn();
  EXPECT_EQ(fixture.port.opened.size(), 2U);
}

TEST(PrefillSideTest, ARejectEndsTheRequestUnlessAnotherLeaderMayTakeIt) {
  PrefillFixture fixture;
  const auto request = fixture.add(1, 130, {"a", "b"});
  fixture.connect(1);
  fixture.hear(1, Reject{request.key, unavailable("draining")});
  EXPECT_EQ(request.sink->num_ends, 0);
  fixture.connect(2);
  fixture.hear(2, Reject{request.key, resource_exhausted("too long")});
  EXPECT_EQ(request.sink->error.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(request.sink->num_ends, 1);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(PrefillSideTest, GivesUpWhenNoLeaderCanBeReached) {
  PrefillFixture fixture;
  const auto request = fixture.add(1);
  for (int i = 0; i < 100 && request.sink->num_ends == 0; ++i) {
    for (LinkId link = 1; link <= fixture.port.opened.size(); ++link) {
      fixture.mailbox.on_link_closed(link, unavailable("refused"));
    }
    fixture.turn(milliseconds(100));
  }
  EXPECT_EQ(request.sink->error.code(), StatusCode::kUnavailable);
  EXPECT_EQ(request.sink->num_ends, 1);
  EXPECT_LT(fixture.port.opened.size(), 20U) << "links are opened again with a back-off";
  EXPECT_TRUE(fixture.is_clean());
}

TEST(PrefillSideTest, EveryCandidateHasItsTurnBeforeTheRequestIsGivenUp) {
  PrefillFixture fixture;
  const auto request = fixture.add(1, 130, {"a", "b"});
  fixture.turn(seconds(10));  // "a" never connects
  ASSERT_EQ(request.sink->num_ends, 0);
  ASSERT_EQ(fixture.port.opened, (std::vector<std::string>{"a", "b"}));
  fixture.connect(2);
  ASSERT_EQ(fixture.sent<Reserve>(2).size(), 1U);
  fixture.hear(2, Grant{request.key, 0});
  EXPECT_EQ(request.sink->reserved_at, std::vector<std::string>{"b"});
}

TEST(PrefillSideTest, ALeaderThatDoesNotConnectHoldsUpNobodyBehind) {
  PrefillFixture fixture(1);
  const auto first = fixture.add(1);
  const auto second = fixture.add(2, 130, {"b"});
  fixture.connect(2);
  EXPECT_EQ(fixture.sent<Reserve>(2).size(), 1U);
  EXPECT_TRUE(fixture.sent<Reserve>(1).empty());
}

TEST(PrefillSideTest, NoMoreThanTheFirstFewAskALinkThatComesReady) {
  PrefillFixture fixture(1);
  const auto first = fixture.add(2);
  const auto second = fixture.add(1);
  fixture.connect(1);
  ASSERT_EQ(fixture.sent<Reserve>(1).size(), 1U);
  EXPECT_EQ(fixture.sent<Reserve>(1)[0].key, first.key);
}

TEST(PrefillSideTest, ALeaderThatNeverConnectsIsGivenUp) {
  PrefillFixture fixture;
  fixture.add(1);
  fixture.turn(seconds(9));
  EXPECT_TRUE(fixture.port.closed.empty());
  fixture.turn(seconds(1));
  EXPECT_EQ(fixture.port.closed, std::vector<LinkId>{1});
}

TEST(PrefillSideTest, AWelcomeThatDoesNotFitClosesTheLink) {
  PrefillFixture fixture;
  fixture.add(1);
  Welcome welcome = fixture.welcome();
  welcome.regions[0].slot_bytes = 7;
  fixture.hear(1, welcome);
  EXPECT_EQ(fixture.port.closed, std::vector<LinkId>{1});
  EXPECT_EQ(fixture.sender.num_peers, 0U);
}

TEST(PrefillSideTest, SilenceForALeaseLosesTheLink) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kAcked);
  fixture.turn(seconds(9));
  EXPECT_EQ(request.sink->num_ends, 0);
  fixture.hear(1, KeepAlive{{request.key}});
  fixture.turn(seconds(9));
  EXPECT_EQ(request.sink->num_ends, 0);
  fixture.turn(seconds(1));
  EXPECT_EQ(request.sink->error.code(), StatusCode::kUnavailable);
  EXPECT_EQ(fixture.metrics.leases_expired.value(), 1);
}

TEST(PrefillSideTest, NoAcknowledgementForLongLosesTheLink) {
  PrefillFixture fixture;
  const auto request = fixture.add(1);
  fixture.connect(1);
  fixture.hear(1, Grant{request.key, 0});
  fixture.compute(request, 64);
  fixture.turn(seconds(4));
  fixture.hear(1, KeepAlive{{request.key}});
  EXPECT_EQ(request.sink->num_ends, 0);
  fixture.turn(seconds(2));
  EXPECT_EQ(request.sink->error.code(), StatusCode::kUnavailable);
}

TEST(PrefillSideTest, KeepAlivesListWhatIsLiveAndDueInTime) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kGranted);
  EXPECT_LE(fixture.side.next_deadline(), fixture.now + seconds(2));
  fixture.turn(seconds(2));
  ASSERT_EQ(fixture.sent<KeepAlive>(1).size(), 1U);
  EXPECT_EQ(fixture.sent<KeepAlive>(1)[0].live, std::vector<HandoffKey>{request.key});
}

TEST(PrefillSideTest, AGrantedKeyThatDecodeDoesNotListIsDropped) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kAcked);
  fixture.hear(1, KeepAlive{{request.key}});
  EXPECT_EQ(request.sink->num_ends, 0);
  fixture.hear(1, KeepAlive{});
  EXPECT_EQ(request.sink->num_ends, 1);
  EXPECT_EQ(request.sink->error.code(), StatusCode::kUnavailable);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(PrefillSideTest, AnAbortOfDecodeEndsTheRequest) {
  for (const Stage stage : {Stage::kAsked, Stage::kGranted, Stage::kSending, Stage::kSealed}) {
    PrefillFixture fixture;
    const auto request = bring_to(fixture, stage);
    fixture.hear(1, Aborted{request.key, unavailable("no router attached")});
    EXPECT_EQ(request.sink->error.code(), StatusCode::kUnavailable);
    EXPECT_EQ(request.sink->num_ends, 1);
    EXPECT_TRUE(fixture.sent<Abort>(1).empty()) << "decode knows";
    fixture.mailbox.on_drained(1, request.key);
    fixture.turn();
    EXPECT_TRUE(fixture.is_clean()) << static_cast<int>(stage);
  }
}

TEST(PrefillSideTest, AParcelThatIsRefusedTooOftenEndsTheRequest) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kSending);
  fixture.mailbox.on_parcel_failed(1, request.key, data_loss("checksum"));
  fixture.turn();
  EXPECT_EQ(request.sink->error.code(), StatusCode::kUnavailable);
  EXPECT_EQ(fixture.sent<Abort>(1).size(), 1U);
  fixture.mailbox.on_drained(1, request.key);
  fixture.turn();
  EXPECT_TRUE(fixture.is_clean());
}

TEST(PrefillSideTest, AHigherAttemptEndsTheLowerOne) {
  PrefillFixture fixture;
  const auto lower = bring_to(fixture, Stage::kSealed);
  const auto higher = fixture.add(1, 130, {"a"}, 9, 2);
  EXPECT_EQ(lower.sink->error.code(), StatusCode::kAborted);
  EXPECT_EQ(higher.sink->num_ends, 0);
  const auto late = fixture.add(1, 130, {"a"}, 9, 1);
  EXPECT_EQ(late.sink->error.code(), StatusCode::kAborted);
  EXPECT_EQ(higher.sink->num_ends, 0);
}

TEST(PrefillSideTest, WhatAGivenUpLinkStillSaysIsIgnored) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kAsked);
  fixture.mailbox.on_link_closed(1, unavailable("cut"));
  fixture.turn(seconds(1));
  fixture.hear(1, Grant{request.key, 0});
  EXPECT_TRUE(request.sink->reserved_at.empty());
}

TEST(PrefillSideTest, AKeyThatDecodeCommittedBeforeIsNotSentAgain) {
  PrefillFixture fixture;
  const auto request = bring_to(fixture, Stage::kAsked);
  fixture.hear(1, Committed{request.key});
  EXPECT_EQ(request.sink->error.code(), StatusCode::kAborted);
  EXPECT_TRUE(fixture.is_clean());
}

}  // namespace
}  // namespace tessera::testing
