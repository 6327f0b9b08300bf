#include "engine/calibration/dealing.h"

#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera {
namespace {

/// Directions that a column holds something of.
std::set<int64_t> members(const Matrix& dealing, int64_t column) {
  std::set<int64_t> result;
  for (int64_t direction = 0; direction < dealing.rows(); ++direction) {
    if (std::abs(dealing(direction, column)) > 1e-9) {
      result.insert(direction);
    }
  }
  return result;
}

TEST(DealingTest, IsOrthogonalWhateverTheSizes) {
  for (const DealingKind kind : {DealingKind::kContiguous,
                                 DealingKind::kSnake,
                                 DealingKind::kFold,
                                 DealingKind::kRandomMix}) {
    for (const int64_t slices : {1, 2, 3, 4, 6}) {
      for (const int64_t shared : {0, 12, 24, 48}) {
        const Matrix dealing =
            deal(48, {.kind = kind, .num_slices = slices, .num_shared = shared, .seed = 4});
        EXPECT_LT(test::identity_error(dealing.transpose() * dealing), 1e-9)
            << dealing_kind_name(kind) << ' ' << slices << ' ' << shared;
      }
    }
  }
}

TEST(DealingTest, FoldMixesStrongWithWeakAsTheStudyDid) {
  const Matrix two = deal(256, {.kind = DealingKind::kFold, .num_slices = 2});
  const Matrix four = deal(256, {.kind = DealingKind::kFold, .num_slices = 4});
  for (const int64_t j : {0, 1, 17, 63}) {
    EXPECT_EQ(members(two, j), (std::set<int64_t>{j, 255 - j}));
    EXPECT_EQ(members(two, 128 + j), (std::set<int64_t>{j, 255 - j}));
    for (int64_t slice = 0; slice < 4; ++slice) {
      EXPECT_EQ(members(four, slice * 64 + j), (std::set<int64_t>{j, 127 - j, 128 + j, 255 - j}));
    }
  }
}

TEST(DealingTest, FoldGivesEverySliceTheSamePartOfEachStrongDirection) {
  const int64_t slices = 3;
  const Matrix dealing = deal(24, {.kind = DealingKind::kFold, .num_slices = slices});
  for (int64_t direction = 0; direction < 8; ++direction) {
    for (int64_t slice = 0; slice < slices; ++slice) {
      const double energy = dealing.row(direction).segment(slice * 8, 8).squaredNorm();
      EXPECT_NEAR(energy, 1.0 / 3.0, 1e-12) << direction;
    }
  }
}

TEST(DealingTest, SnakeGoesForthAndBack) {
  const Matrix dealing = deal(8, {.kind = DealingKind::kSnake, .num_slices = 2});
  const int64_t expected[] = {0, 3, 4, 7, 1, 2, 5, 6};
  for (int64_t column = 0; column < 8; ++column) {
    EXPECT_EQ(members(dealing, column), (std::set<int64_t>{expected[column]}));
  }
}

TEST(DealingTest, SharedColumnsAreTheStrongestDirectionsInTheirOrder) {
  const Matrix dealing = deal(16, {.kind = DealingKind::kFold, .num_slices = 2, .num_shared = 4});
  for (int64_t column = 0; column < 4; ++column) {
    EXPECT_EQ(members(dealing, column), (std::set<int64_t>{column}));
  }
  EXPECT_EQ(members(dealing, 4), (std::set<int64_t>{4, 15}));
}

TEST(DealingTest, NamesAreReadBack) {
  for (const DealingKind kind : {DealingKind::kContiguous,
                                 DealingKind::kSnake,
                                 DealingKind::kFold,
                                 DealingKind::kRandomMix}) {
    EXPECT_EQ(parse_dealing_kind(dealing_kind_name(kind)), kind);
  }
  EXPECT_EQ(parse_dealing_kind(""), std::nullopt);
}

}  // namespace
}  // namespace tessera
