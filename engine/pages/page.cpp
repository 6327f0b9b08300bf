#include "engine/pages/page.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "engine/base/text.h"
#include "engine/pages/svg_chart.h"

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

}  // namespace

std::string render_document(const std::string& title, const std::string& body) {
  return str_cat("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
                 "<meta name=\"viewport\" content=\"width=device-width\">\n<title>",
                 escape_html(title),
                 "</title>\n<style>",
                 kStyle,
                 "</style>\n</head>\n<body>\n<h1>",
                 escape_html(title),
                 "</h1>\n",
                 body,
                 "</body>\n</html>\n");
}

std::string render_html_table(const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<table>\n";
  const char* tag = "th";
  for (const auto& row : rows) {
    html += "<tr>";
    for (const std::string& field : row) {
      html += str_cat("<", tag, ">", escape_html(field), "</", tag, ">");
    }
    html += "</tr>\n";
    tag = "td";
  }
  return html + "</table>\n";
}

std::string render_legend(const std::vector<std::string>& names) {
  std::string html = "<ul class=\"legend\">\n";
  for (size_t i = 0; i < names.size(); ++i) {
    html += str_cat("<li><svg viewBox=\"0 0 34 10\" aria-hidden=\"true\"><line class=\"",
                    series_class(static_cast<int64_t>(i)),
                    "\" x1=\"0\" y1=\"5\" x2=\"34\" y2=\"5\"/></svg> ",
                    escape_html(names[i]),
                    "</li>\n");
  }
  return html + "</ul>\n";
}

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string short_number(double value) {
  if (value == 0.0) {
    return "0";
  }
  const double size = std::fabs(value);
  const bool is_large = size >= 1e3 && size < 1e7;
  std::string text(64, '\0');
  const char* pattern = size < 1e-3 ? "%.1e" : is_large ? "%.0f" : "%.3g";
  const int length = std::snprintf(text.data(), text.size(), pattern, value);
  text.resize(static_cast<size_t>(std::clamp(length, 0, 63)));
  return text;
}

}  // namespace tessera
