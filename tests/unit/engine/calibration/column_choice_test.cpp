#include "engine/calibration/column_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/small_model.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

/// 32 columns and a rope part of 16: 32 elements a token in two slices.
constexpr double kPlain = 32.0;

class ColumnChoiceTest : public ::testing::Test {
 protected:
  static LayerCandidates layer(double harm) {
    return {.columns = {{0, 4.0}, {8, 1.0}, {16, 0.5}, {32, 0.0}}, .plain_harm = harm};
  }
  [[nodiscard]] Result<ColumnChoice> choose(double ratio, kernels::LatentWindow window = {}) const {
    return choose_columns(
        config_, {layer(1.0), layer(3.0)}, {.num_slices = 2, .window = window, .ratio = ratio});
  }

  const ModelConfig config_ = test::small_model_config();
};

TEST_F(ColumnChoiceTest, SpendsWhereItHelpsMost) {
  const ColumnChoice choice = choose(1.0 + 4.0 / (2.0 * kPlain)).value();  // 8 columns of a layer
  EXPECT_EQ(choice.layers[0].num_shared, 0);
  EXPECT_EQ(choice.layers[1].num_shared, 8);
  EXPECT_DOUBLE_EQ(choice.layers[0].harm, 1.0);
  EXPECT_DOUBLE_EQ(choice.layers[1].harm, 0.75);
  EXPECT_DOUBLE_EQ(choice.layers[1].bytes_ratio, 36.0 / kPlain);
  EXPECT_DOUBLE_EQ(choice.bytes_ratio, 34.0 / kPlain);
}

TEST_F(ColumnChoiceTest, ABudgetOfOneBuysNothing) {
  const ColumnChoice choice = choose(1.0).value();
  EXPECT_EQ(choice.layers[0].num_shared + choice.layers[1].num_shared, 0);
  EXPECT_DOUBLE_EQ(choice.bytes_ratio, 1.0);
}

TEST_F(ColumnChoiceTest, AWindowTakesItsPartOfTheBudget) {
  // 64 tokens of 48 elements, over 1,024: 3 elements a token and layer.
  const kernels::LatentWindow window{.num_first = 16, .num_last = 48};
  EXPECT_DOUBLE_EQ(window_elements(config_, window), 3.0);
  EXPECT_DOUBLE_EQ(least_budget(config_, 2, window), 35.0 / kPlain);
  const ColumnChoice without = choose(36.0 / kPlain).value();
  const ColumnChoice with = choose(36.0 / kPlain, window).value();
  EXPECT_EQ(without.layers[0].num_shared + without.layers[1].num_shared, 16);
  EXPECT_EQ(with.layers[0].num_shared + with.layers[1].num_shared, 0);
  EXPECT_DOUBLE_EQ(with.bytes_ratio, 35.0 / kPlain);
}

TEST_F(ColumnChoiceTest, WholeLayersHaveNoWindow) {
  const ColumnChoice choice = choose(2.0, {.num_last = 64}).value();
  EXPECT_EQ(choice.layers[0].num_shared, 32);
  EXPECT_DOUBLE_EQ(choice.bytes_ratio, 48.0 / kPlain);
}

TEST_F(ColumnChoiceTest, RefusesAWindowThatThereIsNoRoomFor) {
  const Status status = choose(1.05, {.num_last = 64}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("64 tokens needs a budget of 1.09"));
  EXPECT_THAT(status.message(), HasSubstr("given is 1.05"));
}

}  // namespace
}  // namespace tessera
