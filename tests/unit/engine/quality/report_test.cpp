#include "engine/quality/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/quality/report_page.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

QualityReport example() {
  QualityReport report{.model = "a <model>",
                       .model_fingerprint = "f",
                       .text = "text.txt",
                       .text_tokens = 100,
                       .dtype = "float32",
                       .num_windows = 1,
                       .cells = {}};
  for (const char* text : {"dcp:2", "tpla:2:hadamard"}) {
    QualityCell cell;
    cell.mode = parse_decode_mode(text).value();
    cell.basis = cell.mode.basis;
    cell.quality.lengths = {.prefill_tokens = 5, .decode_tokens = 2};
    cell.quality.divergences = {
        {{.kl = 0.5, .exact_nll = 1.0, .mode_nll = 1.5, .is_same_top = true},
         {.kl = 0.7, .exact_nll = 1.0, .mode_nll = 1.5}}};
    cell.quality.agreement_lengths = {1};
    cell.quality.bytes_per_token = 10.0;
    cell.quality.exact_bytes_per_token = 20.0;
    report.cells.push_back(cell);
  }
  return report;
}

TEST(ReportTest, TableHasALineACell) {
  const std::string table = render_table(example());
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 4);
  EXPECT_THAT(table, HasSubstr("tpla:2"));
  EXPECT_THAT(table, HasSubstr("0.6"));
  EXPECT_THAT(table, HasSubstr("+64.872"));  // e^0.5 - 1
}

TEST(ReportTest, JsonHasFiguresWindowsAndCurves) {
  const auto json = nlohmann::json::parse(render_json(example()));
  ASSERT_EQ(json.at("cells").size(), 2U);
  const auto& cell = json.at("cells").at(1);
  EXPECT_EQ(cell.at("mode"), "tpla:2:hadamard");
  EXPECT_EQ(cell.at("slices"), 2);
  EXPECT_EQ(cell.at("basis"), "hadamard");
  EXPECT_NEAR(cell.at("kl").get<double>(), 0.6, 1e-12);
  EXPECT_NEAR(cell.at("top1_agreement").get<double>(), 0.5, 1e-12);
  EXPECT_EQ(cell.at("agreement_length"), 1.0);
  EXPECT_EQ(cell.at("bytes_ratio"), 0.5);
  EXPECT_EQ(cell.at("windows").at("kl").size(), 1U);
  EXPECT_EQ(cell.at("curve").at("kl").size(), 2U);
  EXPECT_EQ(cell.at("prefill_tokens"), 5);
}

TEST(ReportTest, PageIsSelfContainedAndEscaped) {
  const std::string page = render_page(example());
  EXPECT_THAT(page, HasSubstr("a &lt;model&gt;"));
  EXPECT_THAT(page, Not(HasSubstr("http")));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("url(")));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_THAT(page, HasSubstr("2 tokens decoded after a prompt of 5"));
  EXPECT_THAT(page, HasSubstr("decoded position"));
}

}  // namespace
}  // namespace tessera
