// Options of the roles' gRPC ports, of routing and of the handoff: a part of the option table.
#pragma once

#include <string>
#include <vector>

#include "server/cli/option_table.h"

namespace tessera::cli {

/// In the order of --help.
[[nodiscard]] std::vector<OptionSpec> routing_options();

/// What does not fit together in a role's options.
[[nodiscard]] std::vector<std::string> check_routing_options(Role role, const Options& options);

}  // namespace tessera::cli
