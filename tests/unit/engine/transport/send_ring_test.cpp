#include "engine/transport/send_ring.h"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "engine/transport/checksum.h"
#include "tests/support/fake_image_mover.h"

namespace tessera {
namespace {

constexpr int64_t kSlotBytes = 128;
constexpr int64_t kImageBytes = 100;

class SendRingTest : public ::testing::Test {
 protected:
  SlotQueue::Put put(int32_t slot) {
    std::byte* source = images_.data() + (slot * kImageBytes);
    std::memset(source, 'a' + slot, kImageBytes);
    return {slot, source, kImageBytes};
  }
  /// Asks until there are some.
  std::vector<SlotQueue::Put> await_packed() {
    std::vector<SlotQueue::Put> puts;
    for (int tries = 0; puts.empty() && tries < 10; ++tries) {
      puts = ring_->take_packed().value();
    }
    return puts;
  }

  std::vector<std::byte> images_ = std::vector<std::byte>(8 * kImageBytes);
  testing::FakeImageMover mover_{3};
  DevicePool pool_{mover_};
  std::unique_ptr<SendRing> ring_ = SendRing::create(pool_, 8, kSlotBytes).value();
};

TEST_F(SendRingTest, NothingIsPutBeforeTheDeviceHasPackedIt) {
  EXPECT_FALSE(ring_->is_packing());
  ASSERT_TRUE(ring_->pack(std::vector{put(2)}).is_ok());
  EXPECT_TRUE(ring_->is_packing());
  EXPECT_TRUE(ring_->take_packed().value().empty());
  const std::vector<SlotQueue::Put> puts = ring_->take_packed().value();
  ASSERT_EQ(puts.size(), 1U);
  EXPECT_EQ(puts[0].checksum, image_checksum(puts[0].source, kImageBytes));
  EXPECT_FALSE(ring_->is_packing());
}

TEST_F(SendRingTest, AdjacentSlotsAreOneRunInWhateverOrderTheyWereTaken) {
  ASSERT_TRUE(ring_->pack(std::vector{put(5), put(4), put(1)}).is_ok());
  const std::vector<SlotQueue::Put> puts = await_packed();
  const std::vector<SendRing::Run> runs = ring_->runs(puts);
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[0].first_slot, 1);
  EXPECT_EQ(runs[0].num_bytes, kImageBytes);
  EXPECT_EQ(runs[1].first_slot, 4);
  EXPECT_EQ(runs[1].num_bytes, kSlotBytes + kImageBytes);
  EXPECT_EQ(runs[1].source - runs[0].source, 3 * kSlotBytes);
  EXPECT_EQ(std::memcmp(runs[1].source, puts[1].source, kImageBytes), 0);
  EXPECT_EQ(std::memcmp(runs[1].source + kSlotBytes, puts[2].source, kImageBytes), 0);
}

TEST_F(SendRingTest, MoreThanADeviceTakesAtOnceArePackedOneAfterTheOther) {
  std::vector<SlotQueue::Put> all;
  for (int32_t slot = 0; slot < 8; ++slot) {
    all.push_back(put(slot));
  }
  ASSERT_TRUE(ring_->pack(all).is_ok());
  EXPECT_EQ(await_packed().size(), 3U);
  EXPECT_EQ(await_packed().size(), 3U);
  EXPECT_EQ(await_packed().size(), 2U);
  EXPECT_FALSE(ring_->is_packing());
}

TEST_F(SendRingTest, ABrokenDeviceIsAnError) {
  ASSERT_TRUE(ring_->pack(std::vector{put(0)}).is_ok());
  mover_.fail();
  EXPECT_EQ(ring_->take_packed().status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(ring_->pack(std::vector{put(1)}).code(), StatusCode::kUnavailable);
}

TEST_F(SendRingTest, WhatIsStillPackedIsFinishedWithTheRing) {
  ASSERT_TRUE(ring_->pack(std::vector{put(0)}).is_ok());
  ring_.reset();
  EXPECT_TRUE(mover_.is_idle());
}

TEST_F(SendRingTest, TheNextRingTakesTheMemoryOfTheLastAndFreesNone) {
  ring_.reset();
  mover_.fill();
  Result<std::unique_ptr<SendRing>> next = SendRing::create(pool_, 6, kSlotBytes);
  ASSERT_TRUE(next.is_ok());
  EXPECT_EQ(SendRing::create(pool_, 6, kSlotBytes).status().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tessera
