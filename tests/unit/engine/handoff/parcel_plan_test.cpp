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
  append_parcels(make_key(1), layout, source, 3, 7, parcels);
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
  for (int64_t index = 0; index < 5; ++index) {
    append_parcels(make_key(1), layout, source, 3, index, parcels);
  }
  ASSERT_EQ(parcels.size(), 5U);
  for (int32_t index = 0; index < 5; ++index) {
    EXPECT_EQ(parcels[static_cast<size_t>(index)].rank, index % 3);
    EXPECT_EQ(parcels[static_cast<size_t>(index)].source, source.bytes_ + 30) << "image 0";
  }
}

TEST(ParcelPlanTest, RefusesAWelcomeThatDoesNotFitTheCache) {
  const SlicedSource source;
  Welcome welcome;
  welcome.layout = {.dealing = DecodeLayout::Dealing::kImages, .num_ranks = 2, .num_images = 2};
  LandingRegion region;
  region.num_slots = 1;
  region.slot_bytes = 101;
  welcome.regions = {region, region};
  EXPECT_TRUE(check_welcome(welcome, source).is_ok());
  Welcome bad = welcome;
  bad.regions.pop_back();
  EXPECT_EQ(check_welcome(bad, source).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.layout.num_images = 1;
  EXPECT_EQ(check_welcome(bad, source).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.regions[1].slot_bytes = int64_t{4} << 30;  // nobody's image: the sender would make room
  EXPECT_EQ(check_welcome(bad, source).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.regions[1].num_slots = 1 << 20;
  EXPECT_EQ(check_welcome(bad, source).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.regions[1].slot_bytes = 100;
  EXPECT_EQ(check_welcome(bad, source).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.regions[0].num_slots = 0;
  EXPECT_EQ(check_welcome(bad, source).code(), StatusCode::kFailedPrecondition);
  bad = welcome;
  bad.layout.num_ranks = 0;
  bad.regions.clear();
  EXPECT_EQ(check_welcome(bad, source).code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace tessera::testing
