// Measures what sharded decode costs in quality: exact attention and each asked mode over windows
// of a text; prints a table, writes JSON and a page of curves. Main thread only.
#pragma once

#include "engine/base/status.h"
#include "server/cli/option_sources.h"

namespace tessera {

[[nodiscard]] Status run_eval(const cli::ResolvedOptions& resolved);

}  // namespace tessera
