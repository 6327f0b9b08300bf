#include "engine/transport/slot_queue.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

using std::chrono::milliseconds;
using Outcome = SlotQueue::Outcome;

constexpr int64_t kSlot = 64;
constexpr uint64_t kChecksum = 77;
constexpr milliseconds kResend{200};
const SlotQueue::Time kStart{std::chrono::seconds(100)};

HandoffKey key_of(uint64_t low) {
  return {{1, low}, 1};
}

class SlotQueueTest : public testing::Test {
 protected:
  Parcel parcel(uint64_t low, int32_t index) { return {key_of(low), 0, index, bytes_, kSlot}; }
  std::vector<SlotQueue::Put> start() {
    std::vector<SlotQueue::Put> puts;
    queue_.start_puts(1 << 20, puts);
    return puts;
  }
  std::vector<Ready> due(SlotQueue::Time now = kStart) {
    std::vector<Ready> ready;
    queue_.take_due(now, kResend, ready);
    return ready;
  }
  /// Puts everything that can be and announces it.
  std::vector<Ready> deliver() {
    for (SlotQueue::Put& put : start()) {
      put.checksum = kChecksum;
      queue_.finish_put(put);
    }
    return due();
  }
  SlotQueue::Answer answer(const Ready& ready, AckCode code) {
    return queue_.handle({ready.key, ready.block_index, ready.slot, ready.generation, code});
  }

  char bytes_[kSlot] = "image";
  SlotQueue queue_{2, kSlot, 3};
};

TEST_F(SlotQueueTest, SlotsBoundWhatIsInFlight) {
  for (int32_t i = 0; i < 5; ++i) {
    queue_.push(parcel(1, i));
  }
  const std::vector<Ready> first = deliver();
  ASSERT_EQ(first.size(), 2U);
  EXPECT_NE(first[0].slot, first[1].slot);
  EXPECT_EQ(first[1].checksum, kChecksum);
  EXPECT_TRUE(start().empty());
  const SlotQueue::Answer done = answer(first[0], AckCode::kLanded);
  EXPECT_EQ(done.outcome, Outcome::kLanded);
  EXPECT_EQ(done.num_bytes, kSlot);
  const std::vector<SlotQueue::Put> next = start();
  ASSERT_EQ(next.size(), 1U);
  EXPECT_EQ(next[0].slot, first[0].slot);
}

TEST_F(SlotQueueTest, NothingIsAnnouncedBeforeItsPutIsVisible) {
  queue_.push(parcel(1, 0));
  const std::vector<SlotQueue::Put> puts = start();
  ASSERT_EQ(puts.size(), 1U);
  EXPECT_TRUE(due().empty());
  queue_.finish_put(puts[0]);
  EXPECT_EQ(due().size(), 1U);
}

TEST_F(SlotQueueTest, UnansweredAnnouncementsAreRepeated) {
  queue_.push(parcel(1, 0));
  const std::vector<Ready> first = deliver();
  ASSERT_EQ(first.size(), 1U);
  EXPECT_TRUE(due(kStart + milliseconds(199)).empty());
  EXPECT_EQ(due(kStart + milliseconds(200)), first);
  EXPECT_TRUE(due(kStart + milliseconds(399)).empty());
  EXPECT_EQ(answer(first[0], AckCode::kLater).outcome, Outcome::kNothing);
  EXPECT_EQ(due(kStart + milliseconds(400)), first);
  EXPECT_EQ(answer(first[0], AckCode::kLanded).outcome, Outcome::kLanded);
  EXPECT_EQ(answer(first[0], AckCode::kLanded).outcome, Outcome::kNothing);
  EXPECT_FALSE(queue_.is_busy());
}

TEST_F(SlotQueueTest, ADamagedParcelIsPutAgainWithANewGenerationAndGivenUpAfterThree) {
  queue_.push(parcel(1, 0));
  std::vector<Ready> ready = deliver();
  for (int put = 1; put < 3; ++put) {
    ASSERT_EQ(ready.size(), 1U);
    const uint64_t generation = ready[0].generation;
    EXPECT_EQ(answer(ready[0], AckCode::kDamaged).outcome, Outcome::kPutAgain);
    EXPECT_EQ(answer(ready[0], AckCode::kDamaged).outcome, Outcome::kNothing);
    ready = deliver();
    ASSERT_EQ(ready.size(), 1U);
    EXPECT_GT(ready[0].generation, generation);
  }
  EXPECT_EQ(answer(ready[0], AckCode::kDamaged).outcome, Outcome::kGivenUp);
  EXPECT_FALSE(queue_.is_busy());
}

TEST_F(SlotQueueTest, AnswersToOtherGenerationsAndSlotsAreIgnored) {
  queue_.push(parcel(1, 0));
  const Ready ready = deliver().at(0);
  Ready other = ready;
  ++other.generation;
  EXPECT_EQ(answer(other, AckCode::kLanded).outcome, Outcome::kNothing);
  other = ready;
  other.key = key_of(2);
  EXPECT_EQ(answer(other, AckCode::kLanded).outcome, Outcome::kNothing);
  other = ready;
  for (const int32_t slot : {-1, 2, INT32_MAX}) {
    other.slot = slot;
    EXPECT_EQ(answer(other, AckCode::kLanded).outcome, Outcome::kNothing);
  }
  EXPECT_EQ(answer(ready, AckCode::kLanded).outcome, Outcome::kLanded);
}

TEST_F(SlotQueueTest, ADroppedKeyStopsWhatWaitsOfIt) {
  for (int32_t i = 0; i < 4; ++i) {
    queue_.push(parcel(1, i));
  }
  queue_.push(parcel(2, 0));
  const std::vector<Ready> ready = deliver();
  ASSERT_EQ(ready.size(), 2U);
  EXPECT_EQ(answer(ready[0], AckCode::kDropped).outcome, Outcome::kDropped);
  EXPECT_EQ(answer(ready[1], AckCode::kDropped).outcome, Outcome::kDropped);
  const std::vector<Ready> next = deliver();
  ASSERT_EQ(next.size(), 1U);
  EXPECT_EQ(next[0].key, key_of(2));
}

TEST_F(SlotQueueTest, AbortWaitsForThePutOnly) {
  queue_.push(parcel(1, 0));
  queue_.push(parcel(1, 1));
  queue_.push(parcel(1, 2));
  const std::vector<SlotQueue::Put> puts = start();
  ASSERT_EQ(puts.size(), 2U);
  queue_.finish_put(puts[0]);
  const Ready announced = due().at(0);
  queue_.abort(key_of(1));
  EXPECT_TRUE(queue_.is_reading(key_of(1)));
  queue_.finish_put(puts[1]);
  EXPECT_FALSE(queue_.is_reading(key_of(1)));
  EXPECT_TRUE(due().empty());
  // One slot is free again; the announced one only after its answer, which nobody is told of.
  for (int32_t i = 0; i < 2; ++i) {
    queue_.push(parcel(2, i));
  }
  EXPECT_EQ(start().size(), 1U);
  EXPECT_EQ(answer(announced, AckCode::kLater).outcome, Outcome::kNothing);
  EXPECT_EQ(start().size(), 1U);
}

}  // namespace
}  // namespace tessera
