#include "engine/quality/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "engine/base/text.h"
#include "engine/pages/page.h"

namespace tessera {
namespace {

using Json = nlohmann::ordered_json;

std::string format(const char* pattern, double value) {
  std::string text(64, '\0');
  const int length = std::snprintf(text.data(), text.size(), pattern, value);
  text.resize(static_cast<size_t>(std::clamp(length, 0, 63)));
  return text;
}

using TableRow = std::vector<std::string>;

TableRow heading() {
  return {"mode",
          "prompt:decoded",
          "KL (nats)",
          "+-",
          "ppl exact",
          "ppl",
          "change %",
          "+-",
          "same top-1 %",
          "agree tokens",
          "windows",
          "bytes/token",
          "of replicated"};
}

TableRow table_row(const QualityCell& cell, int64_t num_windows) {
  const QualitySummary summary = summarize(cell.quality);
  const QualityLengths& lengths = cell.quality.lengths;
  const bool has_agreement = !cell.quality.agreement_lengths.empty();
  return {cell.mode.label(),
          str_cat(lengths.prefill_tokens, ":", lengths.decode_tokens),
          short_number(summary.kl.mean),
          short_number(summary.kl.error),
          format("%.3f", summary.exact_perplexity),
          format("%.3f", summary.perplexity),
          format("%+.3f", 100.0 * (summary.perplexity_ratio.mean - 1.0)),
          format("%.3f", 100.0 * summary.perplexity_ratio.error),
          format("%.2f", 100.0 * summary.top1_agreement.mean),
          has_agreement ? format("%.1f", summary.agreement_length.mean) : "-",
          has_agreement ? str_cat(summary.num_fully_agreeing, "/", num_windows) : "-",
          format("%.0f", cell.quality.bytes_per_token),
          format("%.3f", summary.bytes_ratio)};
}

std::string align(const std::vector<TableRow>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const TableRow& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const TableRow& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      text += i == 0 ? row[i] + padding : "  " + padding + row[i];
    }
    text += '\n';
  }
  return text;
}

Json curve_json(const Quality& quality) {
  Json curve;
  for (const CurvePoint& point : quality_curve(quality)) {
    curve["begin"].push_back(point.begin);
    curve["end"].push_back(point.end);
    curve["kl"].push_back(point.kl);
    curve["exact_perplexity"].push_back(point.exact_perplexity);
    curve["perplexity"].push_back(point.perplexity);
    curve["top1_agreement"].push_back(point.top1_agreement);
  }
  return curve;
}

Json window_json(const Quality& quality) {
  Json windows;
  for (const auto& window : quality.divergences) {
    TokenDivergence sum;
    double same_top = 0.0;
    for (const TokenDivergence& token : window) {
      sum.kl += token.kl;
      sum.exact_nll += token.exact_nll;
      sum.mode_nll += token.mode_nll;
      same_top += token.is_same_top ? 1.0 : 0.0;
    }
    const auto count = static_cast<double>(window.size());
    windows["kl"].push_back(sum.kl / count);
    windows["exact_nll"].push_back(sum.exact_nll / count);
    windows["nll"].push_back(sum.mode_nll / count);
    windows["top1_agreement"].push_back(same_top / count);
  }
  windows["agreement_length"] = quality.agreement_lengths;
  return windows;
}

Json cell_json(const QualityCell& cell) {
  const QualitySummary summary = summarize(cell.quality);
  Json json;
  json["mode"] = cell.mode.text;
  json["attention_sharding"] = attention_sharding_name(cell.mode.sharding.attention);
  json["ranks"] = cell.mode.sharding.num_ranks;
  json["slices"] = cell.mode.sharding.num_slices;
  json["basis"] = cell.basis;
  json["prefill_tokens"] = cell.quality.lengths.prefill_tokens;
  json["decode_tokens"] = cell.quality.lengths.decode_tokens;
  const auto add = [&](const std::string& name, const Estimate& estimate) {
    json[name] = estimate.mean;
    json[name + "_error"] = estimate.error;
  };
  add("kl", summary.kl);
  json["exact_perplexity"] = summary.exact_perplexity;
  json["perplexity"] = summary.perplexity;
  add("perplexity_ratio", summary.perplexity_ratio);
  add("top1_agreement", summary.top1_agreement);
  if (!cell.quality.agreement_lengths.empty()) {
    add("agreement_length", summary.agreement_length);
    json["fully_agreeing_windows"] = summary.num_fully_agreeing;
  }
  json["bytes_per_token"] = cell.quality.bytes_per_token;
  json["bytes_ratio"] = summary.bytes_ratio;
  json["windows"] = window_json(cell.quality);
  json["curve"] = curve_json(cell.quality);
  return json;
}

}  // namespace

std::vector<std::vector<std::string>> table_rows(const QualityReport& report) {
  std::vector<TableRow> rows = {heading()};
  for (const QualityCell& cell : report.cells) {
    rows.push_back(table_row(cell, report.num_windows));
  }
  return rows;
}

std::string render_table(const QualityReport& report) {
  return str_cat(report.model,
                 ", ",
                 report.dtype,
                 ", ",
                 report.num_windows,
                 " windows of ",
                 report.text,
                 " (",
                 report.text_tokens,
                 " tokens)\n",
                 align(table_rows(report)));
}

std::string render_json(const QualityReport& report) {
  Json json;
  json["format"] = "tessera-quality-1";
  json["model"] = report.model;
  json["model_fingerprint"] = report.model_fingerprint;
  json["text"] = report.text;
  json["text_tokens"] = report.text_tokens;
  json["dtype"] = report.dtype;
  json["num_windows"] = report.num_windows;
  json["cells"] = Json::array();
  for (const QualityCell& cell : report.cells) {
    json["cells"].push_back(cell_json(cell));
  }
  // Names of files may be any bytes.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tessera
