#include "engine/serving/engine_inbox.h"

#include <chrono>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

namespace tessera {
namespace {

Deadline soon() {
  return Deadline::after(std::chrono::seconds(10));
}

HandoffKey key_of(uint64_t low) {
  return {.request = {.high = 0, .low = low}, .attempt = 0};
}

std::unique_ptr<SequenceGroup> group_with_id(uint64_t low) {
  auto group = std::make_unique<SequenceGroup>();
  group->id = {.high = 0, .low = low};
  return group;
}

TEST(EngineInboxTest, HandsOutSubmissionsInOrder) {
  EngineInbox inbox(4);
  EXPECT_TRUE(inbox.submit(group_with_id(1)).is_ok());
  EXPECT_TRUE(inbox.submit(group_with_id(2)).is_ok());
  EngineInbox::Work work;
  inbox.collect(work);
  ASSERT_EQ(work.submissions.size(), 2U);
  EXPECT_EQ(work.submissions[0]->id.low, 1U);
  inbox.collect(work);
  EXPECT_TRUE(work.submissions.empty());
}

TEST(EngineInboxTest, CountsQueuedRequestsUntilTheyStart) {
  EngineInbox inbox(1);
  EXPECT_TRUE(inbox.submit(group_with_id(1)).is_ok());
  EngineInbox::Work work;
  inbox.collect(work);
  EXPECT_EQ(inbox.submit(group_with_id(2)).code(), StatusCode::kResourceExhausted);
  inbox.note_started();
  EXPECT_TRUE(inbox.submit(group_with_id(2)).is_ok());
  inbox.note_ended(key_of(2), false);
  EXPECT_TRUE(inbox.submit(group_with_id(3)).is_ok());
}

TEST(EngineInboxTest, RefusesAnIdThatIsLive) {
  EngineInbox inbox(4);
  EXPECT_TRUE(inbox.submit(group_with_id(1)).is_ok());
  EXPECT_EQ(inbox.submit(group_with_id(1)).code(), StatusCode::kInvalidArgument);
}

TEST(EngineInboxTest, TakesOneCancelALiveRequest) {
  EngineInbox inbox(4);
  inbox.cancel(key_of(1));
  EXPECT_TRUE(inbox.submit(group_with_id(1)).is_ok());
  inbox.cancel(key_of(1));
  inbox.cancel(key_of(1));
  EngineInbox::Work work;
  inbox.collect(work);
  EXPECT_EQ(work.cancels.size(), 1U);
}

TEST(EngineInboxTest, ALateCancelDoesNotHitALaterRequestOfTheSameId) {
  EngineInbox inbox(4);
  EXPECT_TRUE(inbox.submit(group_with_id(1)).is_ok());
  EngineInbox::Work work;
  inbox.collect(work);
  inbox.cancel(key_of(1));
  inbox.note_ended(key_of(1), false);
  EXPECT_TRUE(inbox.submit(group_with_id(1)).is_ok());
  inbox.collect(work);
  EXPECT_TRUE(work.cancels.empty());
}

TEST(EngineInboxTest, KeepsTheFirstReasonForClosing) {
  EngineInbox inbox(4);
  EXPECT_TRUE(inbox.state().is_ok());
  inbox.close(unavailable("draining"));
  inbox.close(unavailable("failed"));
  EXPECT_EQ(inbox.state().message(), "draining");
  EXPECT_EQ(inbox.submit(group_with_id(1)), inbox.state());
}

TEST(EngineInboxTest, AWaitEndsByWorkByAWakeAndAtTheDeadline) {
  EngineInbox inbox(4);
  EngineInbox::Work work;
  inbox.collect_blocking(work, Deadline(Deadline::Clock::now()));
  EXPECT_TRUE(work.submissions.empty());
  {
    const std::jthread waker([&inbox] { inbox.wake(); });
    inbox.collect_blocking(work, soon());
  }
  EXPECT_TRUE(work.submissions.empty());
  const std::jthread submitter([&inbox] { EXPECT_TRUE(inbox.submit(group_with_id(1)).is_ok()); });
  inbox.collect_blocking(work, soon());
  EXPECT_EQ(work.submissions.size(), 1U);
}

TEST(EngineInboxTest, WaitingForEmptinessEndsWithTheLastRequest) {
  EngineInbox inbox(4);
  EXPECT_TRUE(inbox.wait_until_empty_blocking(Deadline()));
  EXPECT_TRUE(inbox.submit(group_with_id(1)).is_ok());
  EXPECT_FALSE(inbox.wait_until_empty_blocking(Deadline(Deadline::Clock::now())));
  const std::jthread engine([&inbox] { inbox.note_ended(key_of(1), false); });
  EXPECT_TRUE(inbox.wait_until_empty_blocking(soon()));
}

TEST(EngineInboxTest, HandsOutAnAbort) {
  EngineInbox inbox(4);
  inbox.abort_live(unavailable("down"));
  EngineInbox::Work work;
  inbox.collect_blocking(work, soon());
  ASSERT_TRUE(work.abort.has_value());
  EXPECT_EQ(work.abort->message(), "down");
  inbox.collect(work);
  EXPECT_FALSE(work.abort.has_value());
}

}  // namespace
}  // namespace tessera
