#include "engine/handoff/parcel_plan.h"

#include <gtest/gtest.h>

#include "tests/unit/engine/handoff/fake_engine_host.h"

namespace tessera::testing {
namespace {

class SlicedSource final : public BlockSource {
 public:
  const void* image_address(int32_t block_id, int32_t image) const override {
    return bytes_ + block_id * 10 + image;
  }
  int64_t image_bytes(int32_t image) const override { return 100 + image; }
  int32_t num_images() const override { return 2; }

  char bytes_[256] = {};
};

TEST(ParcelPlanTest, DealsImagesToRanksInTurn) {
  const DecodeLayout layout{
      .dealing = DecodeLayout::Dealing::kImages, .num_ranks = 4, .num_images = 2};
  const SlicedSource source;
  std::vector<Parcel> parcels;
  ParcelPlan(make_key(1), layout, 500, 0).append(source, 3, 7, parcels);
  ASSERT_EQ(parcels.size(), 4U);
  for (int32_t rank = 0; rank < 4; ++rank) {
    const Parcel& parcel = parcels[static_cast<size_t>(rank)];
    EXPECT_EQ(parcel.rank, rank);
    EXPECT_EQ(parcel.block_index, 7);
    EXPECT_EQ(parcel.source, source.bytes_ + 30 + rank % 2);
    EXPECT_EQ(parcel.num_bytes, 100 + rank % 2);
  }
}

TEST(ParcelPlanTest, DealsStripedBlocksToOneRankEach) {
  const DecodeLayout layout{
      .dealing = DecodeLayout::Dealing::kBlocks, .num_ranks = 3, .num_images = 1};
  const SlicedSource source;
  std::vector<Parcel> parcels;
  const ParcelPlan plan(make_key(1), layout, 320, 0);
  for (int64_t index = 0; index < 5; ++index) {
    plan.append(source, 3, index, parcels);
  }
  ASSERT_EQ(parcels.size(), 5U);
  for (int32_t index = 0; index < 5; ++index) {
    EXPECT_EQ(parcels[static_cast<size_t>(index)].rank, index % 3);
    EXPECT_EQ(parcels[static_cast<size_t>(index)].source, source.bytes_ + 30) << "image 0";
  }
}

class ThreeSlices final : public BlockSource {
 public:
  const void* image_address(int32_t block_id, int32_t image) const override {
    return bytes_ + block_id * 10 + image;
  }
  int64_t image_bytes(int32_t /*image*/) const override { return 8; }
  int32_t num_images() const override { return 3; }

  char bytes_[256] = {};
};

struct Expected {
  int32_t rank;
  int32_t block_index;
  int32_t image;
};

void expect_parcels(const std::vector<Parcel>& parcels,
                    const char* block,
                    const std::vector<Expected>& expected) {
  ASSERT_EQ(parcels.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(parcels[i].rank, expected[i].rank) << i;
    EXPECT_EQ(parcels[i].block_index, expected[i].block_index) << i;
    EXPECT_EQ(parcels[i].source, block + expected[i].image) << i;
    EXPECT_EQ(parcels[i].num_bytes, 8) << i;
  }
}

// 260 tokens are blocks 0 to 4; the first 2 and the last 10 lie in blocks 0, 3 and 4.
TEST(ParcelPlanTest, BlocksOfTheWindowBringTheOtherSlicesImagesBehindThePrompt) {
  const DecodeLayout layout{
      .num_ranks = 3, .num_images = 3, .window = {.num_first = 2, .num_last = 10}};
  EXPECT_EQ(num_other_images(layout, 260), 6);
  const ThreeSlices source;
  const ParcelPlan plan(make_key(1), layout, 260, 0);
  std::vector<Parcel> parcels;
  plan.append(source, 7, 3, parcels);
  expect_parcels(parcels,
                 source.bytes_ + 70,
                 {{0, 3, 0},
                  {0, 7, 1},
                  {0, 8, 2},
                  {1, 3, 1},
                  {1, 7, 2},
                  {1, 8, 0},
                  {2, 3, 2},
                  {2, 7, 0},
                  {2, 8, 1}});
  parcels.clear();
  plan.append(source, 7, 1, parcels);
  expect_parcels(parcels, source.bytes_ + 70, {{0, 1, 0}, {1, 1, 1}, {2, 1, 2}});
}

TEST(ParcelPlanTest, RanksOfOneSliceGetTheSameImages) {
  const DecodeLayout layout{
      .num_ranks = 4, .num_images = 2, .window = {.num_first = 0, .num_last = 1}};
  const SlicedSource source;
  std::vector<Parcel> parcels;
  ParcelPlan(make_key(1), layout, 64, 0).append(source, 2, 0, parcels);
  ASSERT_EQ(parcels.size(), 8U);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(parcels[i].source, parcels[i + 4].source);
    EXPECT_EQ(parcels[i].block_index, parcels[i + 4].block_index);
    EXPECT_EQ(parcels[i].rank + 2, parcels[i + 4].rank);
  }
  EXPECT_EQ(parcels[1].block_index, 1);
}

TEST(ParcelPlanTest, OfAHeldBlockOnlyTheOtherSlicesImagesTravel) {
  const DecodeLayout layout{
      .num_ranks = 2, .num_images = 2, .window = {.num_first = 2, .num_last = 10}};
  const SlicedSource source;
  const ParcelPlan plan(make_key(1), layout, 260, 128);
  std::vector<Parcel> parcels;
  plan.append(source, 3, 0, parcels);
  ASSERT_EQ(parcels.size(), 2U);
  for (int32_t rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(parcels[static_cast<size_t>(rank)].rank, rank);
    EXPECT_EQ(parcels[static_cast<size_t>(rank)].block_index, 5);
    EXPECT_EQ(parcels[static_cast<size_t>(rank)].source, source.bytes_ + 30 + (1 - rank));
  }
  parcels.clear();
  plan.append(source, 3, 1, parcels);
  EXPECT_TRUE(parcels.empty());
}

TEST(ParcelPlanTest, AWindowLongerThanThePromptIsTheWholePrompt) {
  const DecodeLayout layout{
      .num_ranks = 2, .num_images = 2, .window = {.num_first = 16, .num_last = 512}};
  EXPECT_EQ(num_other_images(layout, 1), 1);
  EXPECT_EQ(num_other_images(layout, 200), 4);
  EXPECT_EQ(num_other_images({.num_ranks = 2, .num_images = 2}, 200), 0) << "without a window";
}

TEST(ParcelPlanTest, RefusesAnotherWindowNamingBoth) {
  const SlicedSource source;
  Welcome welcome;
  welcome.layout = {.num_ranks = 2, .num_images = 2, .window = {.num_first = 4, .num_last = 16}};
  LandingRegion region;
  region.num_slots = 1;
  region.slot_bytes = 101;
  welcome.regions = {region, region};
  EXPECT_TRUE(check_welcome(welcome, source, {.num_first = 4, .num_last = 16}).is_ok());
  const Status status = check_welcome(welcome, source, {.num_first = 4, .num_last = 17});
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("16"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("17"), std::string::npos) << status.message();
}

TEST(ParcelPlanTest, RefusesAWelcomeThatDoesNotFitTheCache) {
  const SlicedSource source;
  Welcome welcome;
  welcome.layout = {.dealing = DecodeLayout::Dealing::kImages, .num_ranks = 2, .num_images = 2};
  LandingRegion region;
  region.num_slots = 1;
  region.slot_bytes = 101;
  welcome.regions = {region, region};
  EXPECT_TRUE(check_welcome(welcome, source, {}).is_ok());
  Welcome bad = welcome;
  bad.regions.pop_back();
  EXPECT_EQ(check_welcome(bad, source, {}).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.layout.num_images = 1;
  EXPECT_EQ(check_welcome(bad, source, {}).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.regions[1].slot_bytes = int64_t{4} << 30;  // nobody's image: the sender would make room
  EXPECT_EQ(check_welcome(bad, source, {}).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.regions[1].num_slots = 1 << 20;
  EXPECT_EQ(check_welcome(bad, source, {}).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.regions[1].slot_bytes = 100;
  EXPECT_EQ(check_welcome(bad, source, {}).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.regions[0].num_slots = 0;
  EXPECT_EQ(check_welcome(bad, source, {}).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.layout.num_ranks = 0;
  bad.regions.clear();
  EXPECT_EQ(check_welcome(bad, source, {}).code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace tessera::testing
