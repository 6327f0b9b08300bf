// `tessera bench`: options to settings, the run with its progress on stderr, the reports.
#pragma once

#include "engine/base/status.h"
#include "server/cli/option_sources.h"

namespace tessera {

/// Main thread; block_signals() first. SIGINT and SIGTERM end the load, and what was measured until
/// then is reported. Errors: those of LoadRun::create(); FAILED_PRECONDITION after the reports when
/// the run is not valid, was stopped, or completed no request.
[[nodiscard]] Status run_bench(const cli::ResolvedOptions& resolved);

}  // namespace tessera
