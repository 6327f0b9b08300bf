// A run's figures as text for a terminal, JSON, lines of JSON and a page for a browser.
#pragma once

#include <string>

#include "server/bench/summary.h"

namespace tessera::bench {

/// Tables of all figures, with what they mean, and whether the run is valid.
[[nodiscard]] std::string render_table(const LoadResult& result, const Summary& summary);

/// One object with the keys of `vllm bench serve --save-result --save-detailed`, in its units
/// (..._ms in milliseconds, raw lists in seconds), and more under keys of our own.
[[nodiscard]] std::string render_json(const LoadResult& result, const Summary& summary);

/// One object a line and request, warm-up included; raw gaps too.
[[nodiscard]] std::string render_record(const LoadResult& result, const RequestRecord& record);

/// Self-contained: no script, nothing from elsewhere.
[[nodiscard]] std::string render_page(const LoadResult& result, const Summary& summary);

/// Why the figures cannot be trusted, or "" when they can.
[[nodiscard]] std::string invalid_reason(const LoadResult& result, const Summary& summary);

}  // namespace tessera::bench
