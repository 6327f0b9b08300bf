// A decode side whose ranks keep the tokens of an exact window whole: other slices' images land in
// blocks of their own.
#include <algorithm>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/engine/handoff/decode_fixture.h"

namespace tessera::testing {
namespace {

using ::testing::SizeIs;

/// 130 tokens: the window lies in blocks 0, 1 and 2.
constexpr DecodeLayout kLayout{
    .num_ranks = 2, .num_images = 2, .window = {.num_first = 1, .num_last = 3}};

std::vector<int32_t> expected_of(const DecodeFixture& fixture, size_t rank) {
  return fixture.receivers[rank].expected.at(make_key(1));
}

TEST(DecodeWindowTest, SaysWhichTokensItKeepsWhole) {
  DecodeFixture fixture(16, kLayout);
  const auto worker = fixture.greet();
  ASSERT_THAT(worker.link->all<Welcome>(), SizeIs(1));
  EXPECT_EQ(worker.link->all<Welcome>()[0].layout.window, kLayout.window);
}

TEST(DecodeWindowTest, OtherImagesLandBehindThePromptInBlocksOfTheirOwn) {
  DecodeFixture fixture(16, kLayout);
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  const std::vector<int32_t> expected = expected_of(fixture, 0);
  ASSERT_THAT(expected, SizeIs(6)) << "three blocks of the prompt, three other images";
  EXPECT_EQ(expected, expected_of(fixture, 1)) << "ids mean the same on every rank";
  EXPECT_GE(*std::min_element(expected.begin(), expected.end()), 0);
  EXPECT_THAT(std::set<int32_t>(expected.begin(), expected.end()), SizeIs(6));
  EXPECT_EQ(fixture.host.allocator().num_used(), 6);
  EXPECT_EQ(fixture.metrics.reserved_blocks.value(), 6);
}

TEST(DecodeWindowTest, OtherImagesOfHeldBlocksAreExpectedToo) {
  DecodeFixture fixture(16, kLayout);
  fixture.publish_prefix(2);
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  EXPECT_EQ(worker.link->all<Grant>()[0].num_held_tokens, 128);
  const std::vector<int32_t> expected = expected_of(fixture, 1);
  ASSERT_THAT(expected, SizeIs(6));
  EXPECT_EQ(expected[0], -1);
  EXPECT_EQ(expected[1], -1);
  EXPECT_TRUE(
      std::all_of(expected.begin() + 2, expected.end(), [](int32_t id) { return id >= 0; }));
}

TEST(DecodeWindowTest, APromptHeldAsAWholeStillWaitsForOtherImages) {
  DecodeFixture fixture(16, kLayout);
  fixture.publish_prefix(2);
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1), 128));
  EXPECT_EQ(worker.link->all<Grant>()[0].num_held_tokens, 128);
  const std::vector<int32_t> expected = expected_of(fixture, 0);
  ASSERT_THAT(expected, SizeIs(4));
  EXPECT_EQ(std::count(expected.begin(), expected.end(), -1), 2);
}

TEST(DecodeWindowTest, ACommitHandsThemToTheLoopAndThenTheyAreFree) {
  DecodeFixture fixture(16, kLayout);
  const auto worker = fixture.greet();
  const HandoffKey key = make_key(1);
  fixture.hear(worker, DecodeFixture::make_reserve(key));
  std::vector<int32_t> other_images = expected_of(fixture, 0);
  other_images.erase(other_images.begin(), other_images.begin() + 3);
  fixture.attach(key);
  fixture.hear(worker, DecodeFixture::make_seal(key));
  fixture.land(key);
  SequenceGroup* group = fixture.host.find(key);
  ASSERT_NE(group, nullptr);
  EXPECT_EQ(fixture.host.last_other_images, other_images);
  EXPECT_EQ(group->choices.front()->table().num_blocks(), 3);
  EXPECT_EQ(fixture.host.allocator().num_used(), 3);
  EXPECT_EQ(fixture.metrics.reserved_blocks.value(), 0);
  fixture.host.end_group(*group);
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeWindowTest, AnAbortFreesThem) {
  DecodeFixture fixture(16, kLayout);
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  fixture.hear(worker, Abort{make_key(1), "gone"});
  EXPECT_TRUE(fixture.is_clean());
}

TEST(DecodeWindowTest, RoomForThemIsPartOfTheReservation) {
  // 130 tokens take 3 blocks and 3 other images at once.
  DecodeFixture fixture(11, kLayout);
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(2)));
  EXPECT_THAT(worker.link->all<Grant>(), SizeIs(1));
  EXPECT_THAT(worker.link->all<Busy>(), SizeIs(1)) << "5 of 11 blocks are free";
  EXPECT_EQ(fixture.host.allocator().num_used(), 6);
}

TEST(DecodeWindowTest, APromptThatFitsOnlyWithoutThemIsRejected) {
  DecodeFixture fixture(5, kLayout);
  const auto worker = fixture.greet();
  fixture.hear(worker, DecodeFixture::make_reserve(make_key(1)));
  ASSERT_THAT(worker.link->all<Reject>(), SizeIs(1));
  EXPECT_EQ(worker.link->all<Reject>()[0].status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(fixture.is_clean());
}

}  // namespace
}  // namespace tessera::testing
