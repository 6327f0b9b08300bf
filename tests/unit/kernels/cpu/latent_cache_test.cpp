#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/kernels/cpu/latent_fixture.h"
#include "tests/unit/kernels/cpu/ops_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;
using kernels::LatentColumns;

class LatentCacheTest : public CpuOpsTest {};

TEST_P(LatentCacheTest, WrittenRowsComeBackFromShuffledBlocks) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const int64_t count : {1, 63, 64, 65, 200}) {
      const PoisonedCache cache(dtype, 6, 40, 12);
      const std::vector<int32_t> blocks = {4, 0, 5, 2};
      const HostTensor slots(slots_of(blocks, count));
      const HostTensor latent(DType::kFloat32, random_.array({count, 40}), 3);
      const HostTensor rope(DType::kFloat32, random_.array({count, 12}), 40);
      ops().latent_write({.latent = latent.view(),
                          .rope = rope.view(),
                          .slots = slots.view(),
                          .columns = LatentColumns::all(40),
                          .cache = cache.view()},
                         {});
      const HostTensor table(blocks);
      for (const int64_t begin : {int64_t{0}, count / 2, count - 1}) {
        HostTensor latent_out(dtype, std::vector<int64_t>{count - begin, 40}, 5);
        HostTensor rope_out(dtype, std::vector<int64_t>{count - begin, 12}, 1);
        ops().latent_gather({.cache = cache.view(),
                             .block_table = table.view(),
                             .begin = begin,
                             .columns = LatentColumns::all(40),
                             .latent = latent_out.view(),
                             .rope = rope_out.view()},
                            {});
        // Storing rounds to the cache's type and nothing else.
        const Array latent_rows = latent.to_array().rows(begin, count - begin);
        const Array rope_rows = rope.to_array().rows(begin, count - begin);
        EXPECT_EQ(latent_out.bytes(), HostTensor(dtype, latent_rows, 5).bytes());
        EXPECT_EQ(rope_out.bytes(), HostTensor(dtype, rope_rows, 1).bytes());
      }
    }
  }
}

TEST_P(LatentCacheTest, RowsHoldTheirRangesOfColumnsInOrder) {
  const LatentColumns kCases[] = {
      LatentColumns::of_slice(28, 8, 1, 2),
      LatentColumns::of_slice(28, 28, 2, 4),
      {.ranges = {{{5, 4}, {9, 7}}}},    // two that could be one
      {.ranges = {{{22, 3}, {3, 17}}}},  // in any order, with gaps
      {.ranges = {{{}, {11, 13}}}},
  };
  constexpr int64_t kCount = 67;
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const LatentColumns& columns : kCases) {
      const std::vector<int64_t> held = row_columns(columns);
      const auto width = static_cast<int64_t>(held.size());
      SCOPED_TRACE("row width " + std::to_string(width));
      const PoisonedCache cache(dtype, 3, width, 6);
      const std::vector<int32_t> blocks = {2, 0};
      const std::vector<int64_t> slot_list = slots_of(blocks, kCount);
      const HostTensor slots(slot_list);
      const HostTensor latent(DType::kFloat32, random_.array({kCount, 28}), 3);
      const HostTensor rope(DType::kFloat32, random_.array({kCount, 6}), 1);
      ops().latent_write({.latent = latent.view(),
                          .rope = rope.view(),
                          .slots = slots.view(),
                          .columns = columns,
                          .cache = cache.view()},
                         {});
      const Array stored = HostTensor(dtype, latent.to_array()).to_array();
      const Array rows = cache.rows().to_array();
      for (int64_t t = 0; t < kCount; ++t) {
        const int64_t slot = slot_list[static_cast<size_t>(t)];
        const int64_t row = slot + slot / kernels::kBlockTokens * PoisonedCache::kGapRows;
        for (int64_t i = 0; i < width; ++i) {
          ASSERT_EQ(rows.at(row, i), stored.at(t, held[static_cast<size_t>(i)])) << t << ", " << i;
        }
      }
      const HostTensor table(blocks);
      HostTensor latent_out(dtype, std::vector<int64_t>{kCount - 2, 28}, 5);
      HostTensor rope_out(dtype, std::vector<int64_t>{kCount - 2, 6}, 1);
      ops().latent_gather({.cache = cache.view(),
                           .block_table = table.view(),
                           .begin = 2,
                           .columns = columns,
                           .latent = latent_out.view(),
                           .rope = rope_out.view()},
                          {});
      const std::set<int64_t> held_set(held.begin(), held.end());
      const Array gathered = latent_out.to_array();
      for (int64_t t = 0; t < kCount - 2; ++t) {
        for (int64_t column = 0; column < 28; ++column) {
          if (held_set.count(column) == 0) {
            ASSERT_TRUE(std::isnan(gathered.at(t, column))) << t << ", " << column;
          } else {
            ASSERT_EQ(gathered.at(t, column), stored.at(t + 2, column)) << t << ", " << column;
          }
        }
      }
      EXPECT_TRUE(latent_out.is_padding_untouched());
      EXPECT_EQ(rope_out.bytes(),
                HostTensor(dtype, rope.to_array().rows(2, kCount - 2), 1).bytes());
    }
  }
}

TEST_P(LatentCacheTest, SlicesTogetherRestoreTheLatent) {
  constexpr int64_t kCount = 66, kWidth = 28, kShared = 8;
  for (const int64_t num_slices : {1, 2, 4}) {
    const HostTensor latent(DType::kFloat32, random_.array({kCount, kWidth}));
    const HostTensor rope(DType::kFloat32, random_.array({kCount, 4}));
    HostTensor latent_out(DType::kBFloat16, std::vector<int64_t>{kCount, kWidth});
    HostTensor rope_out(DType::kBFloat16, std::vector<int64_t>{kCount, 4});
    for (int64_t slice = 0; slice < num_slices; ++slice) {
      const auto columns = LatentColumns::of_slice(kWidth, kShared, slice, num_slices);
      const PoisonedCache cache(DType::kBFloat16, 2, columns.width(), 4);
      const std::vector<int32_t> blocks = {1, 0};
      const HostTensor slots(slots_of(blocks, kCount));
      ops().latent_write({.latent = latent.view(),
                          .rope = rope.view(),
                          .slots = slots.view(),
                          .columns = columns,
                          .cache = cache.view()},
                         {});
      const HostTensor table(blocks);
      ops().latent_gather({.cache = cache.view(),
                           .block_table = table.view(),
                           .columns = columns,
                           .latent = latent_out.view(),
                           .rope = rope_out.view()},
                          {});
    }
    EXPECT_EQ(latent_out.bytes(), HostTensor(DType::kBFloat16, latent.to_array()).bytes());
  }
}

TEST_P(LatentCacheTest, OtherRowsStayAsTheyWere) {
  const PoisonedCache cache(DType::kBFloat16, 3, 8, 4);
  const std::vector<int64_t> written = {64, 127, 5};
  const HostTensor slots(written);
  const HostTensor latent(DType::kFloat32, random_.array({3, 8}));
  const HostTensor rope(DType::kFloat32, random_.array({3, 4}));
  ops().latent_write({.latent = latent.view(),
                      .rope = rope.view(),
                      .slots = slots.view(),
                      .columns = LatentColumns::all(8),
                      .cache = cache.view()},
                     {});
  std::set<int64_t> rows;  // counted with the gaps between blocks
  for (const int64_t slot : written) {
    rows.insert(slot + slot / kernels::kBlockTokens * PoisonedCache::kGapRows);
  }
  const Array all = cache.rows().to_array();
  for (int64_t row = 0; row < all.dim(0); ++row) {
    for (int64_t column = 0; column < all.dim(1); ++column) {
      ASSERT_EQ(std::isnan(all.at(row, column)), rows.count(row) == 0) << row << ", " << column;
    }
  }
}

TEST_P(LatentCacheTest, TokensOfOtherRanksAreSkipped) {
  const PoisonedCache cache(DType::kFloat32, 2, 8, 4);
  const HostTensor slots(std::vector<int64_t>{-1, 70, -1});
  const HostTensor latent(DType::kFloat32, random_.array({3, 8}));
  const HostTensor rope(DType::kFloat32, random_.array({3, 4}));
  ops().latent_write({.latent = latent.view(),
                      .rope = rope.view(),
                      .slots = slots.view(),
                      .columns = LatentColumns::all(8),
                      .cache = cache.view()},
                     {});
  const Array all = cache.rows().to_array();
  for (int64_t row = 0; row < all.dim(0); ++row) {
    ASSERT_EQ(std::isnan(all.at(row, 0)), row != 70 + PoisonedCache::kGapRows) << row;
  }
  EXPECT_EQ(all.at(70 + PoisonedCache::kGapRows, 7), latent.to_array().at(1, 7));
}

TEST_P(LatentCacheTest, NothingToWriteOrGather) {
  const PoisonedCache cache(DType::kFloat32, 1, 8, 4);
  const HostTensor none(std::vector<int64_t>{});
  const HostTensor latent(DType::kFloat32, Array({0, 8}));
  const HostTensor rope(DType::kFloat32, Array({0, 4}));
  ops().latent_write({.latent = latent.view(),
                      .rope = rope.view(),
                      .slots = none.view(),
                      .columns = LatentColumns::all(8),
                      .cache = cache.view()},
                     {});
  const PoisonedCache untouched(DType::kFloat32, 1, 8, 4);
  EXPECT_EQ(cache.rows().bytes(), untouched.rows().bytes());
}

TESSERA_TEST_THREADS(LatentCacheTest);

}  // namespace
}  // namespace tessera::testing
