#include "engine/pages/page.h"

#include <functional>
#include <string>
#include <vector>

#include "engine/base/text.h"
#include "engine/pages/svg_chart.h"
#include "server/bench/report/reports.h"
#include "server/bench/report/rows.h"

namespace tessera::bench {
namespace {

constexpr int kCurvePoints = 200;

/// Latency over the share of samples below it.
ChartSeries percentile_curve(const std::string& name, const Distribution& samples) {
  ChartSeries series{.name = name, .points = {}};
  for (int i = 0; i <= kCurvePoints && samples.count() > 0; ++i) {
    const double percent = 100.0 * i / kCurvePoints;
    series.points.push_back({.x = percent, .y = samples.percentile(percent)});
  }
  return series;
}

ChartSeries over_time(const std::string& name,
                      const Summary& summary,
                      const std::function<double(const TimeSlice&)>& value) {
  ChartSeries series{.name = name, .points = {}};
  for (const TimeSlice& slice : summary.slices) {
    series.points.push_back({.x = slice.begin_s + slice.length_s / 2.0, .y = value(slice)});
  }
  return series;
}

/// A slice has too few requests for other percentiles than these.
ChartSeries ttft_over_time(const std::string& name, const Summary& summary, double percent) {
  ChartSeries series{.name = name, .points = {}};
  for (const TimeSlice& slice : summary.slices) {
    if (slice.ttft_ms.count() > 0) {
      series.points.push_back(
          {.x = slice.begin_s + slice.length_s / 2.0, .y = slice.ttft_ms.percentile(percent)});
    }
  }
  return series;
}

std::string charts(const Summary& summary) {
  std::string html = render_legend({"TTFT", "TPOT", "ITL", "E2EL"}) + "<div class=\"charts\">\n";
  html += render_chart({.title = "Latencies by percentile",
                        .x_label = "percentile",
                        .y_label = "ms",
                        .is_log = true,
                        .log_floor = 1e-2,
                        .series = {percentile_curve("TTFT", summary.ttft_ms),
                                   percentile_curve("TPOT", summary.tpot_ms),
                                   percentile_curve("ITL", summary.itl_ms),
                                   percentile_curve("E2EL", summary.e2el_ms)}});
  html += render_chart({.title = "Output",
                        .x_label = "seconds",
                        .y_label = "tokens/s",
                        .series = {over_time("tokens/s", summary, [](const TimeSlice& slice) {
                          return slice.tokens_per_s;
                        })}});
  html += render_chart(
      {.title = "TTFT over time: median, and the longest above it",
       .x_label = "seconds",
       .y_label = "ms",
       .series = {ttft_over_time("p50", summary, 50.0), ttft_over_time("max", summary, 100.0)}});
  html += render_chart(
      {.title = "Open requests",
       .x_label = "seconds",
       .y_label = "requests",
       .series = {over_time("open", summary, [](const TimeSlice& slice) { return slice.open; })}});
  return html + "</div>\n";
}

}  // namespace

std::string render_page(const LoadResult& result, const Summary& summary) {
  std::vector<Row> figures = figure_rows(result, summary);
  figures.insert(figures.begin(), {"", ""});
  std::string body;
  if (const std::string reason = invalid_reason(result, summary); !reason.empty()) {
    body += str_cat("<p><strong>Invalid run: ", escape_html(reason), "</strong></p>\n");
  }
  body += render_html_table(latency_rows(summary)) + charts(summary) + render_html_table(figures);
  body +=
      "<p>TTFT: sent to the first text. TPOT: (E2EL - TTFT) / (tokens - 1), a request. ITL: gaps "
      "between events with text, all requests together. E2EL: sent to the last token. Of completed "
      "requests only; \"from schedule\" counts from when a request was due. ~: fewer than ten "
      "samples beyond this percentile, much of it is accident; -: fewer than one.</p>\n";
  return render_document(str_cat("Load test of ", result.settings.model), body);
}

}  // namespace tessera::bench
