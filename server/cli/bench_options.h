// Options of `tessera bench`: a part of the option table.
#pragma once

#include <vector>

#include "server/cli/option_table.h"

namespace tessera::cli {

/// In the order of --help.
[[nodiscard]] std::vector<OptionSpec> bench_options();

/// What is missing. What does not fit together is the load test's to say. Errors: INVALID_ARGUMENT.
[[nodiscard]] Status check_bench_options(const Options& options);

}  // namespace tessera::cli
