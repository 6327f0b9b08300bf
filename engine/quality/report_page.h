// The results as one page for a browser: the table and, for each pair of lengths, curves over the
// decoded position. Self-contained: no script, nothing from elsewhere.
#pragma once

#include <string>

#include "engine/quality/report.h"

namespace tessera {

[[nodiscard]] std::string render_page(const QualityReport& report);

}  // namespace tessera
