#include "engine/cache/latent_layout.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

using kernels::DType;

TEST(LatentLayoutTest, CountsBlocksOfTokens) {
  EXPECT_EQ(blocks_for_tokens(0), 0);
  EXPECT_EQ(blocks_for_tokens(1), 1);
  EXPECT_EQ(blocks_for_tokens(63), 1);
  EXPECT_EQ(blocks_for_tokens(64), 1);
  EXPECT_EQ(blocks_for_tokens(65), 2);
}

TEST(LatentLayoutTest, PlacesLayersOfUnequalWidthBackToBack) {
  const LatentShard shard =
      LatentShard::full({.latent_widths = {16, 24, 8}, .rope_width = 8, .dtype = DType::kBFloat16});
  EXPECT_EQ(shard.num_layers(), 3);
  EXPECT_EQ(shard.row_bytes(0), 48);
  EXPECT_EQ(shard.row_bytes(1), 64);
  EXPECT_EQ(shard.row_bytes(2), 32);
  EXPECT_EQ(shard.layer_offset_bytes(0), 0);
  EXPECT_EQ(shard.layer_offset_bytes(1), 64 * 48);
  EXPECT_EQ(shard.layer_offset_bytes(2), 64 * (48 + 64));
  EXPECT_EQ(shard.block_bytes(), 64 * (48 + 64 + 32));
  EXPECT_EQ(shard.row_offset_bytes(1, 63), 64 * 48 + 63 * 64);
}

TEST(LatentLayoutTest, MatchesDeepSeekV3sBytesPerToken) {
  // 61 layers of 512 latent and 64 rope columns in bfloat16: 70,272 bytes a token.
  const LatentShard shard = LatentShard::full({.latent_widths = std::vector<int64_t>(61, 512),
                                               .rope_width = 64,
                                               .dtype = DType::kBFloat16});
  EXPECT_EQ(shard.block_bytes(), 64 * 70'272);
}

TEST(LatentLayoutTest, AShardHoldsItsColumnsAndTheWholeRopePart) {
  const LatentLayout layout{.latent_widths = {32, 32}, .rope_width = 4, .dtype = DType::kFloat32};
  const LatentShard shard(layout, {{.ranges = {{{16, 16}}}}, {.ranges = {{{4, 4}, {24, 4}}}}});
  EXPECT_EQ(shard.latent_width(0), 16);
  EXPECT_EQ(shard.columns(0).ranges[0].begin, 16);
  EXPECT_EQ(shard.latent_width(1), 8);
  EXPECT_EQ(shard.row_bytes(0), 80);
  EXPECT_EQ(shard.row_bytes(1), 48);
}

TEST(LatentLayoutTest, Float8RowsOfSlicesHaveAScaleEach) {
  const LatentLayout layout{
      .latent_widths = {512, 512}, .rope_width = 64, .dtype = DType::kFloat8E4M3};
  const LatentShard slice(layout, {{.ranges = {{{0, 256}}}}, {.ranges = {{{0, 64}, {288, 224}}}}});
  EXPECT_EQ(slice.row_bytes(0), 256 + 16 + 128);
  EXPECT_EQ(slice.row_bytes(1), 288 + 16 + 128);
  EXPECT_EQ(slice.row_offset_bytes(1, 2), 64 * 400 + 2 * 432);
  EXPECT_EQ(slice.block_bytes(), 64 * (400 + 432));
  EXPECT_EQ(LatentShard::full(layout).row_bytes(0), 656);
}

}  // namespace
}  // namespace tessera
