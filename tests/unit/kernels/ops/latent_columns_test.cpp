#include "kernels/ops/latent_columns.h"

#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace tessera::kernels {
namespace {

/// The latent's column that each column of a row holds.
std::vector<int64_t> row_columns(const LatentColumns& columns) {
  std::vector<int64_t> result;
  columns.for_each_range([&](const ColumnRange& range, int64_t row_begin) {
    EXPECT_EQ(row_begin, static_cast<int64_t>(result.size()));
    EXPECT_GT(range.count, 0);
    for (int64_t i = 0; i < range.count; ++i) {
      result.push_back(range.begin + i);
    }
  });
  return result;
}

TEST(LatentColumnsTest, AllAreTheLatentInItsOrder) {
  const auto columns = LatentColumns::all(3);
  EXPECT_EQ(row_columns(columns), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(columns.num_values(), 3);
  EXPECT_TRUE(columns.fits(3));
  EXPECT_FALSE(columns.fits(2));
}

TEST(LatentColumnsTest, ASliceOrdersOthersSharedItsSharedItsOwn) {
  const auto columns = LatentColumns::of_slice(18, 6, 1, 3);
  EXPECT_EQ(row_columns(columns), (std::vector<int64_t>{0, 1, 4, 5, 2, 3, 10, 11, 12, 13}));
  EXPECT_EQ(columns.value_begin, 4);
}

TEST(LatentColumnsTest, SlicesShareTheFirstColumnsAndDivideTheValues) {
  for (const int64_t width : {28, 64, 512}) {
    for (const int64_t num_slices : {1, 2, 4}) {
      for (int64_t num_shared = 0; num_shared <= width; num_shared += num_slices) {
        std::multiset<int64_t> values;
        for (int64_t slice = 0; slice < num_slices; ++slice) {
          const auto columns = LatentColumns::of_slice(width, num_shared, slice, num_slices);
          const std::vector<int64_t> held = row_columns(columns);
          ASSERT_TRUE(columns.fits(width));
          ASSERT_EQ(columns.width(), num_shared + (width - num_shared) / num_slices);
          ASSERT_EQ(columns.num_values(), width / num_slices);
          ASSERT_EQ(static_cast<int64_t>(held.size()), columns.width());
          const std::set<int64_t> held_set(held.begin(), held.end());
          for (int64_t column = 0; column < num_shared; ++column) {
            ASSERT_EQ(held_set.count(column), 1U);
          }
          values.insert(held.begin() + columns.value_begin, held.end());
        }
        const std::vector<int64_t> sorted(values.begin(), values.end());
        ASSERT_EQ(sorted, row_columns(LatentColumns::all(width)));
      }
    }
  }
}

TEST(LatentColumnsTest, RangesThatLeaveTheLatentOrOverlapDoNotFit) {
  EXPECT_TRUE((LatentColumns{.ranges = {{{4, 4}, {0, 4}, {5, 0}}}}.fits(8)));
  EXPECT_FALSE((LatentColumns{.ranges = {{{4, 5}}}}.fits(8)));
  EXPECT_FALSE((LatentColumns{.ranges = {{{-1, 3}}}}.fits(8)));
  EXPECT_FALSE((LatentColumns{.ranges = {{{0, 3}, {5, -2}}}}.fits(8)));
  EXPECT_FALSE((LatentColumns{.ranges = {{{0, 3}, {}, {2, 2}}}}.fits(8)));
}

TEST(LatentColumnsTest, ValuesThatBeginOutsideOfTheRowDoNotFit) {
  EXPECT_TRUE((LatentColumns{.ranges = {{{2, 3}}}, .value_begin = 2}.fits(8)));
  EXPECT_FALSE((LatentColumns{.ranges = {{{2, 3}}}, .value_begin = 3}.fits(8)));
  EXPECT_FALSE((LatentColumns{.ranges = {{{2, 3}}}, .value_begin = -1}.fits(8)));
}

}  // namespace
}  // namespace tessera::kernels
