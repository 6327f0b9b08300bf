// Options of the subcommands that measure and calibrate a model: a part of the option table.
#pragma once

#include <string>
#include <vector>

#include "server/cli/option_table.h"

namespace tessera::cli {

/// Of eval and calibrate, in the order of --help.
[[nodiscard]] std::vector<OptionSpec> tool_options();

/// What does not fit together in a role's options; nothing for the other roles.
[[nodiscard]] std::vector<std::string> check_tool_options(Role role, const Options& options);

}  // namespace tessera::cli
