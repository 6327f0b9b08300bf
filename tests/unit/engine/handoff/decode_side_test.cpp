#include <algorithm>
#include <array>

#include <gtest/gtest.h>

#include "tests/unit/engine/handoff/decode_fixture.h"

namespace tessera::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

enum class Stage { kGranted, kAttached, kSealed, kSealedAndAttached, kCommitted };
constexpr std::array kUncommitted = {
    Stage::kGranted, Stage::kAttached, Stage::kSealed, Stage::kSealedAndAttached};

struct Request {
  HandoffKey key = make_key(1);
  std::shared_ptr<CountingSink> sink;  // null until attached
};

Request bring_to(DecodeFixture& fixture, const DecodeFixture::Worker& worker, Stage stage) {
  Request request;
  fixture.hear(worker, DecodeFixture::make_reserve(request.key));
  if (stage != Stage::kGranted && stage != Stage::kSealed) {
    request.sink = fixture.attach(request.key);
  }
  if (stage >= Stage::kSealed) {
    fixture.hear(worker, DecodeFixture::make_seal(request.key));
  }
  if (stage == Stage::kCommitted) {
    fixture.land(request.key);
  }
  return request;
}

TEST(DecodeSideTest, TakesARequestOver) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  ASSERT_EQ(worker.link->all<Welcome>().size(), 1U);
  EXPECT_EQ(worker.link->all<Welcome>()[0].epoch, 9U);
  const HandoffKey key = make_key(1);
  fixture.hear(worker, DecodeFixture::make_reserve(key));
  ASSERT_EQ(worker.link->all<Grant>().size(), 1U);
  EXPECT_EQ(worker.link->all<Grant>()[0].num_held_tokens, 0);
  EXPECT_EQ(fixture.receivers[0].expected.at(key).size(), 3U);
  EXPECT_EQ(fixture.host.allocator().num_used(), 3);
  const auto sink = fixture.attach(key);
  fixture.hear(worker, DecodeFixture::make_seal(key));
  EXPECT_TRUE(worker.link->all<Committed>().empty());
  fixture.land(key);
  EXPECT_EQ(worker.link->all<Committed>().size(), 1U);
  SequenceGroup* group = fixture.host.find(key);
  ASSERT_NE(group, nullptr);
  const Sequence& first = *group->choices.front();
  EXPECT_EQ(first.num_tokens(), 131);
  EXPECT_EQ(first.num_generated(), 1);
  EXPECT_EQ(first.table().num_blocks(), 3);
  EXPECT_TRUE(fixture.receivers[0].expected.empty());
  EXPECT_EQ(sink->num_ends, 0);
  fixture.host.end_group(*group);
  EXPECT_TRUE(fixture.is_clean());
  EXPECT_EQ(fixture.metrics.terminal[0].value(), 1);
}

TEST(DecodeSideTest, CommitsInWhateverOrderThePartsCome) {
  std::array<int, 3> order = {0, 1, 2};
  do {
    DecodeFixture fixture;
    const auto worker = fixture.greet();
    const HandoffKey key = make_key(1);
    fixture.hear(worker, DecodeFixture::make_reserve(key));
    for (const int part : order) {
      EXPECT_EQ(fixture.host.num_groups(), 0U) << "all three are needed";
      if (part == 0) {
        fixture.attach(key);
      } else if (part == 1) {
        fixture.hear(worker, DecodeFixture::make_seal(key));
      } else {
        fixture.land(key);
      }
    }
    EXPECT_EQ(fixture.host.num_groups(), 1U);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(DecodeSideTest, CommitsOnlyWhenEveryRankHasAllOfIt) {
  DecodeLayout layout;
  layout.num_ranks = 2;
  DecodeFixture fixture(16, layout);
  const auto worker = fixture.greet();
  const HandoffKey key = make_key(1);
  fixture.hear(worker, DecodeFixture::make_reserve(key));
  fixture.attach(key);
  fixture.hear(worker, DecodeFixture::make_seal(key));
  fixture.mailbox.on_landed(0, key);
  fixture.mailbox.on_landed(0, key);
  fixture.turn();
  EXPECT_EQ(fixture.host.num_groups(), 0U);
  fixture.mailbox.on_landed(1, key);
  fixture.turn();
  EXPECT_EQ(fixture.host.num_groups(), 1U);
}

TEST(DecodeSideTest, AnotherLayoutIsRefusedNamingBoth) {
  DecodeFixture fixture;
  const auto worker = fixture.greet("other");
  ASSERT_TRUE(worker.link->closed.has_value());
  EXPECT_EQ(worker.link->closed->code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(worker.link->closed->message().find("other"), std::string::npos);
  EXPECT_NE(worker.link->closed->message().find("layout"), std::string::npos);
  EXPECT_TRUE(worker.link->sent.empty());
  EXPECT_EQ(fixture.receivers[0].num_opened, 0U);
}

TEST(DecodeSideTest, AnotherProtocolIsRefused) {
  DecodeFixture fixture;
  const auto worker = fixture.open_link();
  Hello hello;
  hello.protocol = 2;
  hello.fingerprint = "layout";
  fixture.hear(worker, hello);
  EXPECT_EQ(worker.link->closed->code(), StatusCode::kFailedPrecondition);
}

TEST(DecodeSideTest, NothingComesBeforeHello) {
  DecodeFixture fixture;
  const auto worker = fixture.open_link();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  EXPECT_EQ(worker.link->closed->code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeSideTest, WithoutALandingRegionTheLinkIsRefused) {
  DecodeFixture fixture;
  fixture.receivers[0].open_status = resource_exhausted("no more regions");
  const auto worker = fixture.greet();
  EXPECT_EQ(worker.link->closed->code(), StatusCode::kResourceExhausted);
}

TEST(DecodeSideTest, ARepeatedReserveGetsTheSameGrant) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  EXPECT_EQ(worker.link->all<Grant>().size(), 2U);
  EXPECT_EQ(fixture.host.allocator().num_used(), 3);
}

TEST(DecodeSideTest, ATerminalAnswerIsRepeatedForAWhile) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kCommitted);
  fixture.host.end_group(*fixture.host.find(request.key));
  fixture.hear(worker, DecodeFixture::make_reserve(request.key));
  EXPECT_EQ(worker.link->all<Committed>().size(), 2U);
  fixture.hear(worker, DecodeFixture::make_seal(request.key));
  EXPECT_EQ(worker.link->all<Committed>().size(), 3U);
  for (int i = 0; i < 12; ++i) {
    fixture.turn(seconds(5));
    fixture.hear(worker, KeepAlive{});
  }
  fixture.hear(worker, DecodeFixture::make_reserve(request.key));
  EXPECT_EQ(worker.link->all<Grant>().size(), 2U) << "forgotten after a minute";
}

TEST(DecodeSideTest, ALowerAttemptIsRefused) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1, 3)));
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1, 2)));
  ASSERT_EQ(worker.link->all<Reject>().size(), 1U);
  EXPECT_EQ(worker.link->all<Reject>()[0].status.code(), StatusCode::kAborted);
  EXPECT_EQ(fixture.host.allocator().num_used(), 3);
}

TEST(DecodeSideTest, AHigherAttemptEndsTheLowerOneFirst) {
  for (const Stage stage : {Stage::kGranted, Stage::kSealedAndAttached, Stage::kCommitted}) {
    DecodeFixture fixture;
    const auto worker = fixture.greet();
    const auto other = fixture.greet();
    const Request lower = bring_to(fixture, worker, stage);
    fixture.hear(other, DecodeFixture::make_reserve(make_key(1, 2)));
    EXPECT_EQ(other.link->all<Grant>().size(), 1U);
    EXPECT_EQ(fixture.host.allocator().num_used(), 3) << "only the higher one's";
    if (lower.sink != nullptr) {
      EXPECT_EQ(lower.sink->error.code(), StatusCode::kAborted);
      EXPECT_EQ(lower.sink->num_ends, 1);
    }
    EXPECT_EQ(worker.link->all<Aborted>().size(), stage == Stage::kCommitted ? 0U : 1U);
  }
}

TEST(DecodeSideTest, BusyWhenBlocksOrSeatsAreTaken) {
  DecodeFixture fixture(8);
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1), 300));  // 5 blocks
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(2), 300));
  ASSERT_EQ(worker.link->all<Busy>().size(), 1U);
  EXPECT_GT(worker.link->all<Busy>()[0].retry_after_ms, 0);
  EXPECT_EQ(fixture.host.allocator().num_used(), 5) << "a refused request keeps nothing";
  fixture.hear(worker, Abort{make_key(1), "gone"});
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(2), 10, 3));
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(3), 10, 2));
  EXPECT_EQ(worker.link->all<Busy>().size(), 2U) << "three of four sequences are promised";
}

TEST(DecodeSideTest, LeavesRoomForWhatRunsToGrow) {
  DecodeFixture fixture(8);
  const auto worker = fixture.greet();
  Reserve large = DecodeFixture::make_reserve(make_key(1), 64 * 4);
  large.max_total_tokens = 64 * 8;
  fixture.hear(worker, large);
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(2), 64 * 2));
  EXPECT_EQ(worker.link->all<Busy>().size(), 1U) << "two of the four free blocks are for growth";
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(3), 64));
  EXPECT_EQ(worker.link->all<Grant>().size(), 2U);
}

TEST(DecodeSideTest, RejectsWhatCanNeverRun) {
  DecodeFixture fixture(8);
  const auto worker = fixture.greet();
  std::vector<Reserve> bad(6, DecodeFixture::make_reserve(make_key(1)));
  bad[0].prompt_ids.clear();
  bad[1].prompt_ids[3] = 50;
  bad[2].num_choices = 5;
  bad[3].max_total_tokens = 130;
  bad[4].prompt_ids = make_prompt(1024);  // no room for a token
  bad[4].max_total_tokens = 1100;
  bad[5].max_total_tokens = 64 * 9;
  for (const Reserve& reserve : bad) {
    fixture.hear(worker, reserve);
  }
  const auto rejects = worker.link->all<Reject>();
  ASSERT_EQ(rejects.size(), 6U);
  for (size_t i = 0; i < 6; ++i) {  // the last can never fit: waiting would not help
    EXPECT_EQ(rejects[i].status.code(), StatusCode::kInvalidArgument) << i;
  }
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeSideTest, AKeyThatALocalRequestHasIsNotCommitted) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  fixture.host.is_claimed = true;
  const Request request = bring_to(fixture, worker, Stage::kCommitted);
  ASSERT_EQ(worker.link->all<Aborted>().size(), 1U);
  EXPECT_EQ(worker.link->all<Aborted>()[0].status.code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(request.sink->error.code(), StatusCode::kAlreadyExists);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeSideTest, PrefixHitsArePinnedAndNotExpected) {
  DecodeFixture fixture;
  fixture.publish_prefix(2);
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  ASSERT_EQ(worker.link->all<Grant>().size(), 1U);
  EXPECT_EQ(worker.link->all<Grant>()[0].num_held_tokens, 128);
  const auto& expected = fixture.receivers[0].expected.at(make_key(1));
  EXPECT_EQ(expected[0], -1);
  EXPECT_EQ(expected[1], -1);
  EXPECT_GE(expected[2], 0);
  EXPECT_EQ(fixture.host.allocator().num_used(), 3);
  EXPECT_EQ(fixture.metrics.prompt_tokens_held.value(), 128);
}

TEST(DecodeSideTest, StripedRanksExpectTheirOwnBlocksByLocalId) {
  DecodeLayout layout;
  layout.dealing = DecodeLayout::Dealing::kBlocks;
  layout.num_ranks = 2;
  DecodeFixture fixture(16, layout);
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1), 64 * 3));
  const auto& even = fixture.receivers[0].expected.at(make_key(1));
  const auto& odd = fixture.receivers[1].expected.at(make_key(1));
  ASSERT_EQ(even.size(), 3U);
  EXPECT_EQ(even[1], -1);
  EXPECT_EQ(odd[0], -1);
  EXPECT_EQ(odd[2], -1);
  EXPECT_NE(even[0], even[2]);
  for (const int32_t id : {even[0], even[2], odd[1]}) {
    EXPECT_GE(id, 0);
    EXPECT_LT(id, 8) << "a rank has half of 16 blocks";
  }
}

TEST(DecodeSideTest, AnAbortOfPrefillInAnyStateFreesEverything) {
  for (const Stage stage : kUncommitted) {
    DecodeFixture fixture;
    const auto worker = fixture.greet();
    const Request request = bring_to(fixture, worker, stage);
    fixture.hear(worker, Abort{request.key, "cancelled"});
    EXPECT_TRUE(fixture.is_clean()) << static_cast<int>(stage);
    EXPECT_TRUE(worker.link->all<Aborted>().empty()) << "prefill knows";
    if (request.sink != nullptr) {
      EXPECT_EQ(request.sink->num_ends, 1);
      EXPECT_EQ(request.sink->error.code(), StatusCode::kUnavailable);
    }
    fixture.land(request.key);
    EXPECT_EQ(fixture.host.num_groups(), 0U) << "what lands late commits nothing";
  }
}

TEST(DecodeSideTest, ACancelOfTheRouterInAnyStateFreesEverything) {
  for (const Stage stage : kUncommitted) {
    DecodeFixture fixture;
    const auto worker = fixture.greet();
    const Request request = bring_to(fixture, worker, stage);
    fixture.mailbox.cancel(request.key);
    fixture.turn();
    EXPECT_TRUE(fixture.is_clean()) << static_cast<int>(stage);
    EXPECT_EQ(worker.link->all<Aborted>().size(), 1U);
    EXPECT_TRUE(request.sink == nullptr || request.sink->num_ends == 0);
  }
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kCommitted);
  fixture.mailbox.cancel(request.key);
  fixture.turn();
  EXPECT_TRUE(fixture.is_clean());
  EXPECT_EQ(fixture.host.num_groups(), 0U);
}

TEST(DecodeSideTest, ACancelThatOvertakesTheReserveIsNotLost) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  fixture.mailbox.cancel(make_key(1));
  fixture.turn();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  EXPECT_TRUE(worker.link->all<Grant>().empty());
  EXPECT_EQ(worker.link->all<Aborted>().size(), 1U);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeSideTest, ALostLinkBeforeTheCommitFreesEverything) {
  for (const Stage stage : kUncommitted) {
    DecodeFixture fixture;
    const auto worker = fixture.greet();
    const Request request = bring_to(fixture, worker, stage);
    fixture.mailbox.on_link_closed(worker.id);
    fixture.turn();
    EXPECT_TRUE(fixture.is_clean()) << static_cast<int>(stage);
    EXPECT_EQ(fixture.receivers[0].closed.size(), 1U) << "the region dies with its link";
    if (request.sink != nullptr) {
      EXPECT_EQ(request.sink->num_ends, 1);
      EXPECT_NE(request.sink->error.message().find("prefill"), std::string::npos);
    }
  }
}

TEST(DecodeSideTest, ALostLinkAfterTheCommitTouchesNothing) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kCommitted);
  fixture.mailbox.on_link_closed(worker.id);
  fixture.turn();
  EXPECT_NE(fixture.host.find(request.key), nullptr);
  EXPECT_EQ(request.sink->num_ends, 0);
  EXPECT_EQ(fixture.receivers[0].closed.size(), 1U);
}

TEST(DecodeSideTest, AFailedConnectionLosesItsLink) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const auto other = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kSealedAndAttached);
  fixture.mailbox.on_connection_failed(0, 1, unavailable("endpoint"));
  fixture.turn();
  EXPECT_TRUE(worker.link->closed.has_value());
  EXPECT_FALSE(other.link->closed.has_value());
  EXPECT_EQ(request.sink->num_ends, 1);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeSideTest, SilenceForALeaseLosesTheLink) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kAttached);
  fixture.turn(seconds(9));
  EXPECT_EQ(request.sink->num_ends, 0);
  fixture.turn(seconds(1));
  EXPECT_EQ(request.sink->num_ends, 1);
  EXPECT_EQ(worker.link->closed->code(), StatusCode::kUnavailable);
  EXPECT_EQ(fixture.metrics.leases_expired.value(), 1);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeSideTest, KeepAlivesListReservationsUntilTheyAreCommitted) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kSealedAndAttached);
  fixture.turn(seconds(2));
  fixture.land(request.key);
  fixture.turn(seconds(2));
  const auto keep_alives = worker.link->all<KeepAlive>();
  ASSERT_EQ(keep_alives.size(), 2U);
  EXPECT_EQ(keep_alives[0].live, std::vector<HandoffKey>{request.key});
  EXPECT_TRUE(keep_alives[1].live.empty());
}

TEST(DecodeSideTest, AReservationThatPrefillDoesNotListIsDropped) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kAttached);
  fixture.hear(worker, KeepAlive{{request.key}});
  EXPECT_EQ(request.sink->num_ends, 0);
  fixture.hear(worker, KeepAlive{});
  EXPECT_EQ(request.sink->num_ends, 1);
  EXPECT_EQ(worker.link->all<Aborted>().size(), 1U);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeSideTest, WithoutARouterTheReservationIsDroppedInTime) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kSealed);
  EXPECT_LE(fixture.side.next_deadline(), fixture.now + seconds(3));
  fixture.turn(milliseconds(2999));
  EXPECT_TRUE(worker.link->all<Aborted>().empty());
  fixture.turn(milliseconds(1));
  EXPECT_EQ(worker.link->all<Aborted>().size(), 1U);
  EXPECT_TRUE(fixture.is_clean());
  auto late = std::make_shared<CountingSink>();
  EXPECT_EQ(fixture.mailbox.attach(DecodeFixture::make_attach(request.key), late).code(),
            StatusCode::kNotFound);
}

TEST(DecodeSideTest, AnAttachThatCrossesTheAbortHearsOfIt) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kGranted);
  ASSERT_TRUE(fixture.mailbox.on_link_message(worker.id, Abort{request.key, "gone"}).is_ok());
  auto sink = std::make_shared<CountingSink>();
  ASSERT_TRUE(fixture.mailbox.attach(DecodeFixture::make_attach(request.key), sink).is_ok());
  fixture.turn();
  EXPECT_EQ(sink->num_ends, 1);
  EXPECT_EQ(sink->error.code(), StatusCode::kUnavailable);
}

TEST(DecodeSideTest, OneRouterAttaches) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kAttached);
  auto second = std::make_shared<CountingSink>();
  EXPECT_EQ(fixture.mailbox.attach(DecodeFixture::make_attach(request.key), second).code(),
            StatusCode::kAlreadyExists);
  EXPECT_EQ(fixture.mailbox.attach(DecodeFixture::make_attach(make_key(9)), second).code(),
            StatusCode::kNotFound);
}

TEST(DecodeSideTest, ASealWithoutLandingIsDroppedInTime) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kSealedAndAttached);
  fixture.turn(milliseconds(4999));
  EXPECT_EQ(request.sink->num_ends, 0);
  fixture.turn(milliseconds(1));
  EXPECT_EQ(request.sink->num_ends, 1);
  EXPECT_EQ(worker.link->all<Aborted>().size(), 1U);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeSideTest, ThePassedDeadlineEndsAReservation) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  AttachRequest attach = DecodeFixture::make_attach(make_key(1));
  attach.deadline = Deadline(fixture.now + seconds(1));
  auto sink = std::make_shared<CountingSink>();
  ASSERT_TRUE(fixture.mailbox.attach(attach, sink).is_ok());
  fixture.turn();
  fixture.turn(seconds(1));
  EXPECT_EQ(sink->error.code(), StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeSideTest, PartsThatDoNotFitTogetherAreRefused) {
  const auto run = [](const Seal& seal, const AttachRequest& attach) {
    DecodeFixture fixture;
    const auto worker = fixture.greet();
    fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
    auto sink = std::make_shared<CountingSink>();
    EXPECT_TRUE(fixture.mailbox.attach(attach, sink).is_ok());
    fixture.turn();
    fixture.hear(worker, seal);
    fixture.land(make_key(1));
    EXPECT_TRUE(fixture.is_clean());
    EXPECT_EQ(fixture.host.num_groups(), 0U);
    EXPECT_EQ(sink->num_ends, 1);
    return sink->error.code();
  };
  const Seal seal = DecodeFixture::make_seal(make_key(1));
  const AttachRequest attach = DecodeFixture::make_attach(make_key(1));
  Seal bad_seal = DecodeFixture::make_seal(make_key(1), {false, false});
  EXPECT_EQ(run(bad_seal, attach), StatusCode::kInvalidArgument);
  bad_seal = DecodeFixture::make_seal(make_key(1), {true});
  EXPECT_EQ(run(bad_seal, attach), StatusCode::kInvalidArgument);
  bad_seal = seal;
  bad_seal.first_tokens[0].token_id = 50;
  EXPECT_EQ(run(bad_seal, attach), StatusCode::kInvalidArgument);
  bad_seal = seal;
  bad_seal.first_tokens[0].index = 1;
  EXPECT_EQ(run(bad_seal, attach), StatusCode::kInvalidArgument);
  AttachRequest bad_attach = attach;
  bad_attach.sampling.num_top_logprobs = 64;  // more than a step's output has
  EXPECT_EQ(run(seal, bad_attach), StatusCode::kInvalidArgument);
  bad_attach = attach;
  bad_attach.num_choices = 2;
  EXPECT_EQ(run(seal, bad_attach), StatusCode::kInvalidArgument);
  bad_attach = attach;
  bad_attach.num_replayed_tokens = 130;
  EXPECT_EQ(run(seal, bad_attach), StatusCode::kInvalidArgument);
}

TEST(DecodeSideTest, NobodyGeneratesMoreThanRoomWasPromisedFor) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  Reserve reserve = DecodeFixture::make_reserve(make_key(1));  // 130 tokens
  reserve.max_total_tokens = 140;
  fixture.hear(worker, reserve);
  AttachRequest attach = DecodeFixture::make_attach(make_key(1));
  attach.sampling.max_tokens = 500;  // as if this group took longer sequences than prefill does
  EXPECT_TRUE(fixture.mailbox.attach(attach, std::make_shared<CountingSink>()).is_ok());
  fixture.turn();
  fixture.hear(worker, DecodeFixture::make_seal(make_key(1)));
  fixture.land(make_key(1));
  ASSERT_NE(fixture.host.find(make_key(1)), nullptr);
  EXPECT_EQ(fixture.host.find(make_key(1))->sampling.max_tokens, 10);
}

TEST(DecodeSideTest, ChoicesThatEndedAreNotDecoded) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const HandoffKey key = make_key(1);
  fixture.hear(worker, DecodeFixture::make_reserve(key, 130, 3));
  EXPECT_EQ(fixture.host.allocator().num_used(), 5) << "two copies of the partial block";
  fixture.attach(key, 3);
  fixture.hear(worker, DecodeFixture::make_seal(key, {false, true, false}));
  fixture.land(key);
  EXPECT_EQ(fixture.host.last_ended, (std::vector<bool>{false, true, false}));
  EXPECT_EQ(fixture.host.allocator().num_used(), 3) << "the copies are the fork's to take";
}

TEST(DecodeSideTest, ADrainingGroupTakesNoReservationButKeepsThoseItGave) {
  DecodeFixture fixture;
  const auto worker = fixture.greet();
  const Request request = bring_to(fixture, worker, Stage::kSealedAndAttached);
  fixture.side.begin_drain();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(2)));
  ASSERT_EQ(worker.link->all<Reject>().size(), 1U);
  EXPECT_EQ(worker.link->all<Reject>()[0].status.code(), StatusCode::kUnavailable);
  EXPECT_TRUE(fixture.side.has_work());
  fixture.land(request.key);
  EXPECT_EQ(fixture.host.num_groups(), 1U);
  EXPECT_FALSE(fixture.side.has_work());
}

}  // namespace
}  // namespace tessera::testing
