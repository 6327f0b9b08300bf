#include "engine/pages/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tessera {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(SvgChartTest, DrawsALineASeriesBetweenLabelledAxes) {
  const std::string svg = render_chart(
      {.title = "a < b",
       .x_label = "position",
       .y_label = "percent",
       .series = {{"one", {{0.0, 0.0}, {10.0, 50.0}}}, {"two", {{0.0, 100.0}, {10.0, 100.0}}}}});
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  EXPECT_THAT(svg, HasSubstr(">position<"));
  EXPECT_THAT(svg, HasSubstr(">percent<"));
  // The plot is 72 to 708 wide and 28 to 256 high.
  EXPECT_THAT(svg, HasSubstr("class=\"line s0\" points=\"72.0,256.0 708.0,142.0\""));
  EXPECT_THAT(svg, HasSubstr("class=\"line s1\" points=\"72.0,28.0 708.0,28.0\""));
  EXPECT_THAT(svg, HasSubstr(">100<"));
}

TEST(SvgChartTest, LogarithmicAxisHasPowersOfTenAndAFloor) {
  const std::string svg = render_chart({.title = "t",
                                        .is_log = true,
                                        .log_floor = 1e-2,
                                        .series = {{"one", {{0.0, 0.0}, {1.0, 1.0}}}}});
  EXPECT_THAT(svg, HasSubstr("points=\"72.0,256.0 708.0,28.0\""));
  EXPECT_THAT(svg, HasSubstr(">0.1<"));
}

TEST(SvgChartTest, ChartsOfOneValueOrNoneAreDrawn) {
  EXPECT_THAT(render_chart({.title = "t", .series = {{"one", {{3.0, 3.0}}}}}),
              Not(HasSubstr("nan")));
  EXPECT_THAT(render_chart({.title = "t"}), Not(HasSubstr("nan")));
}

TEST(SvgChartTest, ColoursRepeatDashed) {
  EXPECT_EQ(series_class(0), "line s0");
  EXPECT_EQ(series_class(kNumChartColours), "line s0 dashed");
}

}  // namespace
}  // namespace tessera
