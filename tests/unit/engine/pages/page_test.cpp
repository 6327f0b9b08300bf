#include "engine/pages/page.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(PageTest, NumbersAreShort) {
  EXPECT_EQ(short_number(0.0), "0");
  EXPECT_EQ(short_number(0.01234), "0.0123");
  EXPECT_EQ(short_number(1.5e-12), "1.5e-12");
  EXPECT_EQ(short_number(12500.0), "12500");
}

TEST(PageTest, TextIsEscapedAndTheFirstRowIsTheHeading) {
  EXPECT_EQ(render_html_table({{"a<b", "c"}, {"1", "\"2\""}}),
            "<table>\n<tr><th>a&lt;b</th><th>c</th></tr>\n"
            "<tr><td>1</td><td>&quot;2&quot;</td></tr>\n</table>\n");
}

TEST(PageTest, DocumentNeedsNothingFromElsewhere) {
  const std::string page = render_document("T & U", "<p>body</p>\n");
  EXPECT_NE(page.find("<title>T &amp; U</title>"), std::string::npos);
  EXPECT_NE(page.find("<p>body</p>"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos);
  EXPECT_EQ(page.find("<script"), std::string::npos);
}

TEST(PageTest, LegendNamesEverySeriesInItsColour) {
  const std::string legend = render_legend({"one", "two"});
  EXPECT_NE(legend.find("line s0"), std::string::npos);
  EXPECT_NE(legend.find("line s1"), std::string::npos);
  EXPECT_NE(legend.find(" two</li>"), std::string::npos);
}

}  // namespace
}  // namespace tessera
