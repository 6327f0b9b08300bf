// Self-contained HTML documents for reports: no script, nothing from elsewhere, light and dark.
#pragma once

#include <string>
#include <vector>

namespace tessera {

/// A whole document. `title` is plain text, its heading too; `body` is HTML.
[[nodiscard]] std::string render_document(const std::string& title, const std::string& body);

/// The first row is the heading. Plain text.
[[nodiscard]] std::string render_html_table(const std::vector<std::vector<std::string>>& rows);

/// The colours of a chart's series (svg_chart.h), in their order.
[[nodiscard]] std::string render_legend(const std::vector<std::string>& names);

/// Text with &, <, > and quotes replaced for HTML.
[[nodiscard]] std::string escape_html(const std::string& text);

/// "0.00123" in as few characters as a reader needs: three significant digits, or a whole number.
[[nodiscard]] std::string short_number(double value);

}  // namespace tessera
