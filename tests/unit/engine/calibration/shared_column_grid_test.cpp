#include "engine/calibration/shared_column_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/engine/calibration/test_layer.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;

TEST(SharedColumnGridTest, IsFineWhereItIsSmallAndEndsAtAll) {
  EXPECT_THAT(shared_column_grid(64, 2), ElementsAre(0, 8, 16, 24, 32, 40, 48, 64));
  EXPECT_THAT(shared_column_grid(64, 4), ElementsAre(0, 16, 32, 48, 64));
  EXPECT_THAT(shared_column_grid(256, 2),
              ElementsAre(0, 8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256));
}

TEST(SharedColumnGridTest, CountsWhatARankKeeps) {
  const ModelConfig config = test::small_model_config();  // R 32, dr 16
  EXPECT_EQ(row_elements(config, 2, 0), 32);
  EXPECT_EQ(row_elements(config, 2, 8), 36);
  EXPECT_EQ(row_elements(config, 4, 16), 36);
  EXPECT_EQ(row_elements(config, 4, 32), 48);
}

}  // namespace
}  // namespace tessera
