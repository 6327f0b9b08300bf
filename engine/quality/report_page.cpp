#include "engine/quality/report_page.h"

#include <functional>

#include "engine/base/text.h"
#include "engine/pages/page.h"
#include "engine/pages/svg_chart.h"

namespace tessera {
namespace {

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

std::string legend(const Cells& cells) {
  std::vector<std::string> names;
  for (const QualityCell* cell : cells) {
    names.push_back(cell->mode.label());
  }
  return render_legend(names);
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
  std::string body = str_cat("<p>",
                             report.num_windows,
                             " windows of ",
                             escape_html(report.text),
                             " (",
                             report.text_tokens,
                             " tokens), ",
                             escape_html(report.dtype),
                             "</p>\n",
                             render_html_table(table_rows(report)),
                             kExplanation);
  for (const Cells& cells : by_lengths(report)) {
    body += section(cells);
  }
  return render_document(title, body);
}

}  // namespace tessera
