#include "engine/quality/report_page.h"

#include <functional>

#include "engine/base/text.h"
#include "engine/quality/svg_chart.h"

namespace tessera {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --back: #ffffff; --text: #1b1f24; --faint: #d8dce1;
  --s0: #0b62c4; --s1: #c24a00; --s2: #177a3c; --s3: #8a2bb0; --s4: #b3123c; --s5: #00757d;
  --s6: #7a5c00; --s7: #5b6470; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171b; --text: #e4e7eb; --faint: #3a4048;
    --s0: #6cb0ff; --s1: #ff9a57; --s2: #62cf8a; --s3: #d08cf0; --s4: #ff7d9c; --s5: #4fd0d8;
    --s6: #e0be4a; --s7: #a9b2bd; } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--faint); padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(28rem, 1fr)); }
svg { max-width: 100%; } svg text { fill: var(--text); font-size: 12px; }
.axis { stroke: var(--text); } .grid { stroke: var(--faint); }
.line { fill: none; stroke-width: 1.8; } .dashed { stroke-dasharray: 6 4; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); } .s2 { stroke: var(--s2); } .s3 { stroke: var(--s3); }
.s4 { stroke: var(--s4); } .s5 { stroke: var(--s5); } .s6 { stroke: var(--s6); } .s7 { stroke: var(--s7); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; list-style: none; padding: 0; }
.legend svg { height: 10px; vertical-align: middle; width: 34px; }
)";

constexpr const char* kExplanation =
    "<p>Each window's prompt is prefilled exactly; the tokens after it are decoded one after the "
    "other in the mode, with the text's own tokens as input. KL is the divergence of the mode's "
    "next-token distribution from the exact one, in nats a token; the change is that of perplexity "
    "against exact; the +- columns are standard errors over windows. Agreement is how many tokens "
    "of the exact model's greedy continuation the mode produces before its first other token, and "
    "in how many windows it never differs. Bytes are those of a token's latents on one rank.</p>\n";

// Few enough that a bucket holds tokens enough to be more than noise.
constexpr int64_t kPagePoints = 16;

using Cells = std::vector<const QualityCell*>;

/// The report's cells, those of equal lengths together.
std::vector<Cells> by_lengths(const QualityReport& report) {
  std::vector<Cells> groups;
  for (const QualityCell& cell : report.cells) {
    const QualityLengths& lengths = cell.quality.lengths;
    const bool is_next = !groups.empty() && groups.back().front()->quality.lengths == lengths;
    if (!is_next) {
      groups.emplace_back();
    }
    groups.back().push_back(&cell);
  }
  return groups;
}

std::string table(const QualityReport& report) {
  std::string html = "<table>\n";
  const char* tag = "th";
  for (const auto& row : table_rows(report)) {
    html += "<tr>";
    for (const std::string& field : row) {
      html += str_cat("<", tag, ">", escape_html(field), "</", tag, ">");
    }
    html += "</tr>\n";
    tag = "td";
  }
  return html + "</table>\n";
}

std::string legend(const Cells& cells) {
  std::string html = "<ul class=\"legend\">\n";
  for (size_t i = 0; i < cells.size(); ++i) {
    html += str_cat("<li><svg viewBox=\"0 0 34 10\" aria-hidden=\"true\"><line class=\"",
                    series_class(static_cast<int64_t>(i)),
                    "\" x1=\"0\" y1=\"5\" x2=\"34\" y2=\"5\"/></svg> ",
                    escape_html(cells[i]->mode.label()),
                    "</li>\n");
  }
  return html + "</ul>\n";
}

std::string chart(LineChart chart,
                  const Cells& cells,
                  const std::function<double(const CurvePoint&)>& value) {
  chart.x_label = "decoded position";
  for (const QualityCell* cell : cells) {
    ChartSeries series{.name = cell->mode.label(), .points = {}};
    for (const CurvePoint& point : quality_curve(cell->quality, kPagePoints)) {
      const double middle = static_cast<double>(point.begin + point.end) / 2.0;
      series.points.push_back({.x = middle, .y = value(point)});
    }
    chart.series.push_back(std::move(series));
  }
  return render_chart(chart);
}

std::string section(const Cells& cells) {
  const QualityLengths& lengths = cells.front()->quality.lengths;
  std::string html = str_cat("<h2>",
                             lengths.decode_tokens,
                             " tokens decoded after a prompt of ",
                             lengths.prefill_tokens,
                             "</h2>\n",
                             legend(cells),
                             "<div class=\"charts\">\n");
  html += chart({.title = "KL divergence from exact (values below 1e-6 at the edge)",
                 .y_label = "nats a token",
                 .is_log = true},
                cells,
                [](const CurvePoint& point) { return point.kl; });
  html += chart({.title = "Change of perplexity against exact", .y_label = "%"},
                cells,
                [](const CurvePoint& point) {
                  return 100.0 * (point.perplexity / point.exact_perplexity - 1.0);
                });
  html += chart({.title = "Same most likely token", .y_label = "% of tokens"},
                cells,
                [](const CurvePoint& point) { return 100.0 * point.top1_agreement; });
  return html + "</div>\n";
}

}  // namespace

std::string render_page(const QualityReport& report) {
  const std::string title = str_cat("Decode quality of ", report.model);
  std::string html =
      str_cat("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
              "<meta name=\"viewport\" content=\"width=device-width\">\n<title>",
              escape_html(title),
              "</title>\n<style>",
              kStyle,
              "</style>\n</head>\n<body>\n<h1>",
              escape_html(title),
              "</h1>\n<p>",
              report.num_windows,
              " windows of ",
              escape_html(report.text),
              " (",
              report.text_tokens,
              " tokens), ",
              escape_html(report.dtype),
              "</p>\n",
              table(report),
              kExplanation);
  for (const Cells& cells : by_lengths(report)) {
    html += section(cells);
  }
  return html + "</body>\n</html>\n";
}

}  // namespace tessera
