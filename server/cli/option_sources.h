// Options from a config file and from the environment, and the printed configuration that says
// where each value came from.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "engine/base/status.h"
#include "server/cli/options.h"

namespace tessera::cli {

/// Reads one environment variable; only main() knows the real environment.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

struct ResolvedOptions {
  explicit ResolvedOptions(Role of = Role::kServe) : role(of), options(default_options(of)) {}

  Role role;
  Options options;
  std::map<std::string, std::string> sources;  ///< option name to "flag", "environment" or "file"
};

/// Reads a JSON file (comments allowed) whose keys are the flags' names. Paths in it are relative
/// to the working directory. Errors: NOT_FOUND, INVALID_ARGUMENT with every bad key.
[[nodiscard]] Status apply_config_file(const std::string& path, ResolvedOptions& resolved);

/// TESSERA_<FLAG_NAME> for each option; lists are split at commas. Empty variables do not count.
/// Errors: INVALID_ARGUMENT with every bad variable.
[[nodiscard]] Status apply_environment(const Environment& environment, ResolvedOptions& resolved);

/// All options as a config file, one a line, each with its source as a comment. No secrets.
[[nodiscard]] std::string render_options(const ResolvedOptions& resolved);

}  // namespace tessera::cli
