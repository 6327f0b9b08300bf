// The command line of the binary: subcommands, and options resolved from flags, environment,
// config file and defaults, in this order of precedence.
#pragma once

#include <string>
#include <vector>

#include "engine/base/result.h"
#include "server/cli/option_sources.h"

namespace tessera::cli {

enum class Command : uint8_t {
  kServe,
  kRouter,
  kPrefill,
  kDecode,
  kEval,
  kCalibrate,
  kBench,
  kCheckConfig,
  kVersion,
  kHelp
};

struct CommandLine {
  Command command = Command::kHelp;
  std::string help;          ///< of kHelp: what to print
  ResolvedOptions resolved;  ///< of the roles and kCheckConfig
};

/// `arguments` without the program's name. Errors: INVALID_ARGUMENT (with the nearest name for a
/// misspelt flag or key), NOT_FOUND (config file).
[[nodiscard]] Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments,
                                                     const Environment& environment);

}  // namespace tessera::cli
