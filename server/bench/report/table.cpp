#include <algorithm>
#include <string>

#include "engine/base/text.h"
#include "server/bench/report/reports.h"
#include "server/bench/report/rows.h"

namespace tessera::bench {
namespace {

/// The first column to the left, the others to the right.
std::string align(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      text += i == 0 ? row[i] + padding : "  " + padding + row[i];
    }
    text += '\n';
  }
  return text;
}

}  // namespace

std::string invalid_reason(const LoadResult& result, const Summary& summary) {
  if (summary.is_saturated) {
    return str_cat("client saturated: p99 of its schedule lag is ",
                   fixed(summary.send_lag_ms.percentile(99.0), 3),
                   " ms, of its loop's lag ",
                   fixed(std::max(summary.loop_lag_ms.percentile(99.0),
                                  summary.receive_lag_ms.percentile(99.0)),
                         3),
                   " ms, and ",
                   fixed(summary.max_lag_ms, 3),
                   " ms is the most at which these latencies are the server's; use more "
                   "--client-threads, a machine that does nothing else, or less load");
  }
  if (result.has_too_many_errors) {
    return "stopped early: more than --max-errors requests failed";
  }
  if (result.is_stopped) {
    return "stopped early: the figures are of what was measured until then";
  }
  if (summary.completed == 0 && summary.cancelled == 0) {
    return "no request was completed";
  }
  if (summary.is_held_back) {
    return str_cat(
        summary.unsent,
        " requests were due and never sent, held back by --concurrency or by the client: "
        "this is not the load that was asked for");
  }
  return "";
}

std::string render_table(const LoadResult& result, const Summary& summary) {
  std::string text;
  for (const Row& row : figure_rows(result, summary)) {
    text += row[0] + std::string(20 - std::min<size_t>(row[0].size(), 19), ' ') + row[1] + '\n';
  }
  text +=
      '\n' + align(latency_rows(summary)) +
      "\nTTFT: sent to the first text; TPOT: (E2EL - TTFT) / (tokens - 1), a request; ITL: gaps "
      "between events\nwith text, all requests together; E2EL: sent to the last token. Of "
      "completed requests only. ~: fewer than\nten samples beyond this percentile, much of it is "
      "accident; -: fewer than one.\n";
  if (result.num_dropped_gaps > 0) {
    text +=
        str_cat("ITL without ", result.num_dropped_gaps, " gaps, for which memory was not kept.\n");
  }
  return text;
}

}  // namespace tessera::bench
