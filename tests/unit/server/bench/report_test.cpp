#include <algorithm>
#include <cstdio>
#include <iterator>
#include <sstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/bench/report/live_line.h"
#include "server/bench/report/reports.h"

namespace tessera::bench {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

LoadResult make_result(int num_requests) {
  LoadResult result;
  result.start = Clock::time_point() + std::chrono::hours(1);
  result.settings.model = "<model>";
  result.settings.arrivals.rate = 2.5;
  result.settings.num_requests = num_requests;
  result.wall_s = 1.0;
  for (int i = 0; i < num_requests; ++i) {
    RequestRecord record;
    record.index = i;
    record.outcome = Outcome::kCompleted;
    record.scheduled = record.sent = result.start + milliseconds(i);
    record.first_byte = record.first_content = record.sent + milliseconds(20);
    record.last_content = record.done = record.sent + milliseconds(30);
    record.gaps_ms = {10.0F};
    record.num_content_events = record.completion_tokens = 2;
    record.prompt_tokens = 3;
    result.records.push_back(record);
  }
  return result;
}

TEST(ReportJsonTest, HasTheKeysThatPlotScriptsRead) {
  LoadResult result = make_result(4);
  result.records[3].outcome = Outcome::kFailed;
  result.records[3].error = "timeout";
  const json report = json::parse(render_json(result, summarize(result)));
  for (const char* key : {"date",
                          "backend",
                          "endpoint_type",
                          "label",
                          "tokenizer_id",
                          "model_id",
                          "num_prompts",
                          "request_rate",
                          "burstiness",
                          "max_concurrency",
                          "duration",
                          "completed",
                          "failed",
                          "total_input_tokens",
                          "total_output_tokens",
                          "request_throughput",
                          "request_goodput",
                          "output_throughput",
                          "total_token_throughput",
                          "input_lens",
                          "output_lens",
                          "ttfts",
                          "itls",
                          "errors",
                          "max_output_tokens_per_s",
                          "max_concurrent_requests",
                          "mean_ttft_ms",
                          "median_ttft_ms",
                          "std_ttft_ms",
                          "p99_ttft_ms",
                          "mean_tpot_ms",
                          "median_tpot_ms",
                          "std_tpot_ms",
                          "p99_tpot_ms",
                          "mean_itl_ms",
                          "median_itl_ms",
                          "std_itl_ms",
                          "p99_itl_ms",
                          "mean_e2el_ms",
                          "median_e2el_ms",
                          "std_e2el_ms",
                          "p50_e2el_ms",
                          "p90_e2el_ms",
                          "p95_e2el_ms",
                          "p99_e2el_ms",
                          "p99.9_e2el_ms"}) {
    EXPECT_TRUE(report.contains(key)) << key;
  }
  EXPECT_EQ(report["completed"], 3);
  EXPECT_EQ(report["failed"], 1);
  EXPECT_DOUBLE_EQ(report["mean_ttft_ms"], 20.0);
  EXPECT_DOUBLE_EQ(report["ttfts"][0], 0.02);  // raw lists are in seconds
  EXPECT_NEAR(report["itls"][0][0].get<double>(), 0.01, 1e-9);
  EXPECT_EQ(report["errors"].size(), 4U);
  EXPECT_EQ(report["errors"][3], "timeout");
  EXPECT_EQ(report["error_counts"]["timeout"], 1);
  EXPECT_EQ(report["is_valid"], true);
  EXPECT_DOUBLE_EQ(report["steady_start_s"], 3600.0);
}

TEST(ReportJsonTest, RecordIsOneLineOfItsTimes) {
  LoadResult result = make_result(1);
  result.records[0].first_content = Clock::time_point();
  const std::string line = render_record(result, result.records[0]);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const json record = json::parse(line);
  EXPECT_EQ(record["outcome"], "completed");
  EXPECT_EQ(record["gaps_ms"][0], 10.0);
  EXPECT_NEAR(record["last_text_s"].get<double>(), 0.03, 1e-9);
  EXPECT_TRUE(record["first_text_s"].is_null());
}

/// The words of the table's row of TTFT.
std::vector<std::string> ttft_row(const LoadResult& result) {
  const std::string table = render_table(result, summarize(result));
  const size_t row = table.find("\nTTFT ");
  EXPECT_NE(row, std::string::npos) << table;
  std::istringstream line(table.substr(row + 1, table.find('\n', row + 1) - row - 1));
  return {std::istream_iterator<std::string>(line), {}};
}

TEST(ReportTableTest, PercentilesOfTooFewSamplesAreMarkedOrLeftOut) {
  using Words = std::vector<std::string>;
  // Beyond p50, p90, p95, p99, p99.9 of 100: 50, 10, 5, 1, 0.1 samples.
  EXPECT_EQ(ttft_row(make_result(100)),
            (Words{"TTFT", "100", "20.00", "20.00", "20.00", "~20.00", "~20.00", "-", "20.00"}));
  EXPECT_EQ(ttft_row(make_result(10)),
            (Words{"TTFT", "10", "20.00", "~20.00", "~20.00", "-", "-", "-", "20.00"}));
}

TEST(ReportJsonTest, KeepsPercentilesOfTooFewSamplesAndNamesThem) {
  const LoadResult few = make_result(100);
  const json report = json::parse(render_json(few, summarize(few)));
  EXPECT_DOUBLE_EQ(report["p99_ttft_ms"], 20.0);
  EXPECT_EQ(report["num_ttft"], 100);
  const std::vector<std::string> unsound = report["unsound"];
  const auto names = [&](const char* key) {
    return std::count(unsound.begin(), unsound.end(), std::string(key));
  };
  EXPECT_EQ(names("p99_ttft_ms"), 1);
  EXPECT_EQ(names("p99.9_e2el_ms"), 1);
  EXPECT_EQ(names("p90_ttft_ms"), 0);
}

TEST(ReportTableTest, RequestsNeverSentAndSentAgainAreCounted) {
  LoadResult result = make_result(100);
  result.num_unsent = 1;
  result.records[3].num_resends = 2;
  Summary summary = summarize(result);
  std::string table = render_table(result, summary);
  EXPECT_NE(table.find("Due, never sent     1\n"), std::string::npos) << table;
  EXPECT_NE(table.find("Sent again          2, on kept connections"), std::string::npos) << table;
  EXPECT_EQ(invalid_reason(result, summary), "");
  const json report = json::parse(render_json(result, summary));
  EXPECT_EQ(report["unsent"], 1);
  EXPECT_EQ(report["resent"], 2);
  EXPECT_EQ(json::parse(render_record(result, result.records[3]))["resends"], 2);
  result.num_unsent = 2;  // of 102
  summary = summarize(result);
  EXPECT_NE(invalid_reason(result, summary).find("2 requests were due and never sent"),
            std::string::npos);
  EXPECT_EQ(json::parse(render_json(result, summary))["is_valid"], false);
}

TEST(ReportTableTest, FailuresAreNamedWithTheirReason) {
  LoadResult result = make_result(2);
  result.records[1].outcome = Outcome::kFailed;
  result.records[1].error = "HTTP 429: too busy";
  const std::string table = render_table(result, summarize(result));
  EXPECT_NE(table.find("1 completed, 1 failed"), std::string::npos) << table;
  EXPECT_NE(table.find("HTTP 429: too busy"), std::string::npos) << table;
}

TEST(ReportTableTest, SaturatedClientIsAReason) {
  LoadResult result = make_result(2);
  EXPECT_EQ(invalid_reason(result, summarize(result)), "");
  result.lags.send_ms.assign(10, 50.0F);
  EXPECT_NE(invalid_reason(result, summarize(result)).find("client saturated"), std::string::npos);
}

TEST(ReportTableTest, ARunThatWasCutShortOrGotNothingIsInvalidEverywhere) {
  const auto is_valid = [](const LoadResult& result) {
    const Summary summary = summarize(result);
    const bool is_said = render_page(result, summary).find("Invalid run") != std::string::npos;
    const bool valid = json::parse(render_json(result, summary))["is_valid"].get<bool>();
    EXPECT_EQ(valid, !is_said);
    EXPECT_EQ(valid, invalid_reason(result, summary).empty());
    return valid;
  };
  EXPECT_TRUE(is_valid(make_result(2)));
  LoadResult stopped = make_result(2);
  stopped.is_stopped = true;
  EXPECT_FALSE(is_valid(stopped));
  LoadResult failing = make_result(2);
  failing.has_too_many_errors = true;
  EXPECT_FALSE(is_valid(failing));
  LoadResult nothing = make_result(1);
  nothing.records[0].outcome = Outcome::kFailed;
  EXPECT_FALSE(is_valid(nothing));
}

TEST(ReportPageTest, IsWholeEscapedAndNeedsNothingFromElsewhere) {
  LoadResult result = make_result(50);
  const std::string page = render_page(result, summarize(result));
  EXPECT_EQ(page.rfind("<!doctype html>", 0), 0U);
  EXPECT_NE(page.find("&lt;model&gt;"), std::string::npos);
  EXPECT_EQ(page.find("<model>"), std::string::npos);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("src="), std::string::npos);
  EXPECT_EQ(page.find("href="), std::string::npos);
  size_t num_charts = 0;
  for (size_t at = page.find("role=\"img\""); at != std::string::npos;
       at = page.find("role=\"img\"", at + 1)) {
    ++num_charts;
  }
  EXPECT_EQ(num_charts, 4U);
  EXPECT_EQ(page.find("nan"), std::string::npos);
}

TEST(ReportPageTest, EmptyRunStillIsAPage) {
  const LoadResult result = make_result(0);
  EXPECT_NE(render_page(result, summarize(result)).find("</html>"), std::string::npos);
}

TEST(LiveLineTest, SaysHowTheRunStands) {
  EXPECT_EQ(progress_line({.elapsed_s = 12.04,
                           .sent = 240,
                           .open = 31,
                           .completed = 207,
                           .failed = 2,
                           .events = 9000},
                          1520.4),
            "12.0 s  sent 240  open 31  done 207  failed 2  1520 events/s");
}

TEST(LiveLineTest, DrawsNowAndThen) {
  std::FILE* out = std::tmpfile();
  ASSERT_NE(out, nullptr);
  LiveLine line(out, /*is_terminal=*/false);
  line.show({.elapsed_s = 1.0});
  EXPECT_EQ(std::ftell(out), 0);
  line.show({.elapsed_s = 11.0, .events = 110});
  EXPECT_GT(std::ftell(out), 0);
  line.end();
  std::fclose(out);
}

}  // namespace
}  // namespace tessera::bench
