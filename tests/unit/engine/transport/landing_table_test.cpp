#include "engine/transport/landing_table.h"

#include <atomic>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "engine/base/check.h"
#include "engine/transport/checksum.h"
#include "tests/support/fake_image_mover.h"

namespace tessera {
namespace {

constexpr int64_t kImage = 1000;
constexpr int64_t kStride = 1024;
constexpr int64_t kSlot = 1008;
constexpr int32_t kNumSlots = 4;
constexpr int32_t kNumBlocks = 8;
constexpr uint64_t kConnection = 77;

HandoffKey key_of(uint64_t low) {
  return {{1, low}, 1};
}

class LandingTableTest : public ::testing::Test {
 protected:
  explicit LandingTableTest(TransportFaults faults = {}) : table_(blocks(), faults) {
    table_.add_region(kConnection, {slots_.data(), kNumSlots, kSlot});
  }

  CacheBlocks blocks() { return {cache_.data(), kStride, kImage, kNumBlocks}; }
  std::byte* slot(int32_t number) { return slots_.data() + (number * kSlot); }
  /// Puts an image of `fill` into the slot and describes it.
  Ready put(const HandoffKey& key, int32_t block_index, int32_t number, char fill) {
    std::memset(slot(number), fill, kImage);
    return {key, block_index, number, ++generation_, kImage, image_checksum(slot(number), kImage)};
  }
  char byte_of_block(int32_t block) {
    return static_cast<char>(cache_[static_cast<size_t>(block * kStride) + kImage - 1]);
  }

  std::vector<std::byte> cache_ = std::vector<std::byte>(kStride * kNumBlocks);
  std::vector<std::byte> slots_ = std::vector<std::byte>(kSlot * kNumSlots);
  uint64_t generation_ = 0;
  LandingTable table_;
};

TEST_F(LandingTableTest, CopiesExpectedImagesAndTellsTheLast) {
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {5, -1, 2}));
  LandingTable::Answer answer = table_.land(kConnection, put(key_of(1), 2, 0, 'c'));
  EXPECT_EQ(answer.code, AckCode::kLanded);
  EXPECT_FALSE(answer.is_complete);
  answer = table_.land(kConnection, put(key_of(1), 0, 3, 'a'));
  EXPECT_EQ(answer.code, AckCode::kLanded);
  EXPECT_TRUE(answer.is_complete);
  EXPECT_EQ(byte_of_block(2), 'c');
  EXPECT_EQ(byte_of_block(5), 'a');
  EXPECT_EQ(table_.counts().landed_parcels, 2);
  EXPECT_EQ(table_.counts().landed_bytes, 2 * kImage);
  // Nothing between the images was touched.
  EXPECT_EQ(cache_[(5 * kStride) + kImage], std::byte{0});
}

TEST_F(LandingTableTest, NothingToComeIsCompleteAtOnce) {
  EXPECT_TRUE(table_.expect(kConnection, key_of(1), {-1, -1}));
  EXPECT_TRUE(table_.expect(kConnection, key_of(2), {}));
}

TEST_F(LandingTableTest, DuplicatesAreAnsweredWithoutACopy) {
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {0, 1}));
  const Ready ready = put(key_of(1), 0, 0, 'a');
  EXPECT_EQ(table_.land(kConnection, ready).code, AckCode::kLanded);
  std::memset(slot(0), 'z', kImage);  // the slot is the sender's again
  EXPECT_EQ(table_.land(kConnection, ready).code, AckCode::kLanded);
  EXPECT_EQ(table_.land(kConnection, put(key_of(1), 0, 1, 'y')).code, AckCode::kLanded);
  EXPECT_EQ(byte_of_block(0), 'a');
  EXPECT_EQ(table_.counts().landed_parcels, 1);
}

TEST_F(LandingTableTest, DamagedImagesAreRefusedAndTheirNextPutAccepted) {
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {0}));
  Ready ready = put(key_of(1), 0, 0, 'a');
  slot(0)[500] ^= std::byte{4};
  EXPECT_EQ(table_.land(kConnection, ready).code, AckCode::kDamaged);
  // Announced again before the refusal was heard: the answer stays the same.
  EXPECT_EQ(table_.land(kConnection, ready).code, AckCode::kDamaged);
  EXPECT_EQ(table_.counts().refused_parcels, 1);
  const LandingTable::Answer answer = table_.land(kConnection, put(key_of(1), 0, 0, 'a'));
  EXPECT_EQ(answer.code, AckCode::kLanded);
  EXPECT_TRUE(answer.is_complete);
}

TEST_F(LandingTableTest, AnOlderGenerationIsNotReadAgain) {
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {0, 1}));
  const Ready old = put(key_of(1), 0, 0, 'a');
  EXPECT_EQ(table_.land(kConnection, put(key_of(1), 1, 0, 'b')).code, AckCode::kLanded);
  EXPECT_EQ(table_.land(kConnection, old).code, AckCode::kDropped);
  EXPECT_EQ(byte_of_block(0), 0);
}

TEST_F(LandingTableTest, UnknownKeysComeLaterAndForgottenOnesNotAtAll) {
  const Ready ready = put(key_of(1), 0, 0, 'a');
  EXPECT_EQ(table_.land(kConnection, ready).code, AckCode::kLater);
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {3}));
  EXPECT_EQ(table_.land(kConnection, ready).code, AckCode::kLanded);
  EXPECT_FALSE(table_.expect(kConnection, key_of(2), {4}));
  table_.forget(key_of(2));
  EXPECT_EQ(table_.land(kConnection, put(key_of(2), 0, 1, 'b')).code, AckCode::kDropped);
  EXPECT_EQ(byte_of_block(4), 0);
}

TEST_F(LandingTableTest, AForgottenKeyThatWasCompleteIsStillAnsweredAsLanded) {
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {3}));
  EXPECT_EQ(table_.land(kConnection, put(key_of(1), 0, 0, 'a')).code, AckCode::kLanded);
  table_.forget(key_of(1));
  EXPECT_EQ(table_.land(kConnection, put(key_of(1), 0, 1, 'x')).code, AckCode::kLanded);
  EXPECT_EQ(byte_of_block(3), 'a');
}

TEST_F(LandingTableTest, AnotherConnectionCannotFillTheBlocks) {
  std::vector<std::byte> other_slots(kSlot * kNumSlots);
  table_.add_region(78, {other_slots.data(), kNumSlots, kSlot});
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {0}));
  Ready ready = put(key_of(1), 0, 0, 'a');
  std::memcpy(other_slots.data(), slot(0), kImage);
  EXPECT_EQ(table_.land(78, ready).code, AckCode::kLater);
  EXPECT_EQ(byte_of_block(0), 0);
}

TEST_F(LandingTableTest, AnnouncementsOutOfBoundsAreRefused) {
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {0, 1}));
  const Ready good = put(key_of(1), 0, 0, 'a');
  for (const int32_t number : {-1, kNumSlots, INT32_MAX, INT32_MIN}) {
    Ready bad = good;
    bad.slot = number;
    EXPECT_EQ(table_.land(kConnection, bad).code, AckCode::kDamaged) << number;
  }
  for (const int32_t index : {-1, 2, INT32_MAX, INT32_MIN}) {
    Ready bad = put(key_of(1), index, 0, 'a');
    EXPECT_EQ(table_.land(kConnection, bad).code, AckCode::kDamaged) << index;
  }
  for (const int64_t num_bytes : {int64_t{0}, int64_t{-1}, kImage - 1, kImage + 1, INT64_MAX}) {
    Ready bad = put(key_of(1), 0, 0, 'a');
    bad.num_bytes = num_bytes;
    EXPECT_EQ(table_.land(kConnection, bad).code, AckCode::kDamaged) << num_bytes;
    bad.key = kSelfTestKey;
    bad.generation = ++generation_;
    EXPECT_EQ(table_.land(kConnection, bad).code, AckCode::kDamaged) << num_bytes;
  }
  EXPECT_EQ(byte_of_block(0), 0);
}

TEST_F(LandingTableTest, AClosedRegionIsNotRead) {
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {0}));
  const Ready ready = put(key_of(1), 0, 0, 'a');
  table_.remove_region(kConnection);
  EXPECT_EQ(table_.land(kConnection, ready).code, AckCode::kDropped);
  EXPECT_EQ(byte_of_block(0), 0);
}

TEST_F(LandingTableTest, TheSelfTestIsCheckedButNotCopied) {
  EXPECT_EQ(table_.land(kConnection, put(kSelfTestKey, 0, 2, 's')).code, AckCode::kLanded);
  const Ready bad = put(kSelfTestKey, 0, 2, 's');
  slot(2)[0] ^= std::byte{1};
  EXPECT_EQ(table_.land(kConnection, bad).code, AckCode::kDamaged);
  EXPECT_EQ(table_.counts().landed_parcels, 0);
}

TEST_F(LandingTableTest, AfterForgetNothingIsCopied) {
  // The other thread lands without pause while blocks change hands here.
  std::atomic<bool> is_done{false};
  std::thread lander([&] {
    uint64_t generation = 0;
    std::memset(slot(0), 'a', kImage);
    const uint64_t checksum = image_checksum(slot(0), kImage);
    while (!is_done) {
      const Ready ready{key_of(1), 0, 0, ++generation, kImage, checksum};
      static_cast<void>(table_.land(kConnection, ready));
    }
  });
  for (int round = 0; round < 300; ++round) {
    EXPECT_FALSE(table_.expect(kConnection, key_of(1), {0}));
    table_.forget(key_of(1));
    std::memset(cache_.data(), 'n', kImage);  // the next owner's bytes
    EXPECT_EQ(byte_of_block(0), 'n');
  }
  is_done = true;
  lander.join();
  EXPECT_EQ(byte_of_block(0), 'n');
}

class FlippedLandingTest : public LandingTableTest {
 protected:
  FlippedLandingTest() : LandingTableTest({0, 0, 2}) {}
};

TEST_F(FlippedLandingTest, TheSecondImageIsDamagedOnPurpose) {
  EXPECT_FALSE(table_.expect(kConnection, key_of(1), {0, 1}));
  EXPECT_EQ(table_.land(kConnection, put(key_of(1), 0, 0, 'a')).code, AckCode::kLanded);
  EXPECT_EQ(table_.land(kConnection, put(key_of(1), 1, 0, 'b')).code, AckCode::kDamaged);
  EXPECT_EQ(table_.land(kConnection, put(key_of(1), 1, 0, 'b')).code, AckCode::kLanded);
}

/// Slots and blocks in a device's memory, which copies several images at once.
class DeviceLandingTableTest : public LandingTableTest {
 protected:
  explicit DeviceLandingTableTest(TransportFaults faults = {})
      : on_device_(blocks(), faults, &mover_) {
    on_device_.add_region(kConnection, {slots_.data(), kNumSlots, kSlot});
  }

  testing::FakeImageMover mover_{3};
  LandingTable on_device_;
};

TEST_F(DeviceLandingTableTest, CopiesABatchAtOnceAndAnswersEachParcel) {
  EXPECT_FALSE(on_device_.expect(kConnection, key_of(1), {5, 6, 7, 2}));
  const std::vector<Ready> batch = {put(key_of(1), 0, 0, 'a'),
                                    put(key_of(2), 0, 1, 'x'),
                                    put(key_of(1), 1, 2, 'b'),
                                    put(key_of(1), 3, 3, 'd')};
  const std::vector<LandingTable::Answer> answers = on_device_.land(kConnection, batch);
  ASSERT_EQ(answers.size(), 4U);
  EXPECT_EQ(answers[0].code, AckCode::kLanded);
  EXPECT_EQ(answers[1].code, AckCode::kLater);
  EXPECT_EQ(answers[2].copied_bytes, kImage);
  EXPECT_FALSE(answers[3].is_complete);
  EXPECT_TRUE(on_device_.land(kConnection, put(key_of(1), 2, 0, 'c')).is_complete);
  EXPECT_EQ(byte_of_block(5), 'a');
  EXPECT_EQ(byte_of_block(6), 'b');
  EXPECT_EQ(byte_of_block(7), 'c');
  EXPECT_EQ(byte_of_block(2), 'd');
  EXPECT_EQ(mover_.largest_batch(), 3);
  EXPECT_TRUE(mover_.is_idle());
}

TEST_F(DeviceLandingTableTest, BatchesLargerThanTheDeviceTakesAreCut) {
  EXPECT_FALSE(on_device_.expect(kConnection, key_of(1), {0, 1, 2, 3}));
  std::vector<Ready> batch;
  for (int32_t i = 0; i < kNumSlots; ++i) {
    batch.push_back(put(key_of(1), i, i, static_cast<char>('a' + i)));
  }
  const std::vector<LandingTable::Answer> answers = on_device_.land(kConnection, batch);
  EXPECT_TRUE(answers.back().is_complete);
  EXPECT_EQ(byte_of_block(3), 'd');
  EXPECT_EQ(mover_.largest_batch(), 3);
}

TEST_F(DeviceLandingTableTest, WhatComesTwiceInOneBatchIsCopiedOnce) {
  EXPECT_FALSE(on_device_.expect(kConnection, key_of(1), {0, 1}));
  const Ready first = put(key_of(1), 0, 0, 'a');
  const Ready again = put(key_of(1), 0, 1, 'z');
  const std::vector<LandingTable::Answer> answers =
      on_device_.land(kConnection, std::vector<Ready>{first, first, again});
  for (const LandingTable::Answer& answer : answers) {
    EXPECT_EQ(answer.code, AckCode::kLanded);
  }
  EXPECT_EQ(byte_of_block(0), 'a');
  EXPECT_EQ(on_device_.counts().landed_parcels, 1);
}

TEST_F(DeviceLandingTableTest, ADamagedImageOfABatchIsRefusedAlone) {
  EXPECT_FALSE(on_device_.expect(kConnection, key_of(1), {0, 1}));
  Ready damaged = put(key_of(1), 0, 0, 'a');
  damaged.checksum ^= 1U;
  const std::vector<LandingTable::Answer> answers =
      on_device_.land(kConnection, std::vector<Ready>{damaged, put(key_of(1), 1, 1, 'b')});
  EXPECT_EQ(answers[0].code, AckCode::kDamaged);
  EXPECT_EQ(answers[1].code, AckCode::kLanded);
  EXPECT_FALSE(answers[1].is_complete);
  EXPECT_EQ(on_device_.counts().refused_parcels, 1);
  EXPECT_TRUE(on_device_.land(kConnection, put(key_of(1), 0, 0, 'c')).is_complete);
  EXPECT_EQ(byte_of_block(0), 'c');
}

TEST_F(DeviceLandingTableTest, SelfTestsAreSummedOnTheDevice) {
  EXPECT_EQ(on_device_.land(kConnection, put(kSelfTestKey, 0, 0, 's')).code, AckCode::kLanded);
  Ready wrong = put(kSelfTestKey, 0, 0, 's');
  wrong.checksum ^= 1U;
  EXPECT_EQ(on_device_.land(kConnection, wrong).code, AckCode::kDamaged);
}

TEST_F(DeviceLandingTableTest, ABrokenDeviceIsReportedAndNothingCounted) {
  EXPECT_FALSE(on_device_.expect(kConnection, key_of(1), {0}));
  const Ready ready = put(key_of(1), 0, 0, 'a');
  mover_.fail();
  EXPECT_THROW(static_cast<void>(on_device_.land(kConnection, ready)), DeviceError);
  EXPECT_EQ(on_device_.counts().landed_parcels, 0);
  on_device_.forget(key_of(1));  // nothing is locked
}

class FlippingDeviceTest : public DeviceLandingTableTest {
 protected:
  FlippingDeviceTest() : DeviceLandingTableTest({.flip = 2}) {}
};

TEST_F(FlippingDeviceTest, AFaultMadeOnPurposeDamagesTheDevicesImage) {
  EXPECT_FALSE(on_device_.expect(kConnection, key_of(1), {0, 1}));
  const std::vector<LandingTable::Answer> answers = on_device_.land(
      kConnection, std::vector<Ready>{put(key_of(1), 0, 0, 'a'), put(key_of(1), 1, 1, 'b')});
  EXPECT_EQ(answers[0].code, AckCode::kLanded);
  EXPECT_EQ(answers[1].code, AckCode::kDamaged);
}

}  // namespace
}  // namespace tessera
