// What the binary can be: each function builds the objects of a role in order, by hand, and serves
// until SIGTERM or SIGINT, then drains for at most --shutdown-timeout; a second signal ends the
// process at once. SIGHUP reads --api-key-file again. Main thread only; block_signals() first.
#pragma once

#include "engine/base/status.h"
#include "server/cli/option_sources.h"

namespace tessera {

/// Router, prefill worker and decode group of this host in one process, over loopback; with
/// --combined one engine without a handoff.
[[nodiscard]] Status serve(const cli::ResolvedOptions& resolved);
[[nodiscard]] Status serve_combined(const cli::ResolvedOptions& resolved);
[[nodiscard]] Status run_router(const cli::ResolvedOptions& resolved);
[[nodiscard]] Status run_prefill(const cli::ResolvedOptions& resolved);
[[nodiscard]] Status run_decode(const cli::ResolvedOptions& resolved);

/// Prints the options and the memory plans of what serve() would start to stdout: of a prefill
/// worker and a decode group, each by itself, or with --combined of one engine. Errors: what
/// serve() would refuse before it loads the weights, and RESOURCE_EXHAUSTED when one's weights and
/// cache exceed the free memory.
[[nodiscard]] Status check_config(const cli::ResolvedOptions& resolved);

}  // namespace tessera
