// The one table of options. Command line, environment, config file, help and the printed
// configuration are all made from it, so that no option is written twice.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "engine/base/status.h"
#include "server/cli/options.h"

namespace tessera::cli {

using OptionField = std::variant<std::string Options::*,
                                 std::vector<std::string> Options::*,
                                 int64_t Options::*,
                                 bool Options::*>;

enum class OptionUnit : uint8_t { kNone, kBytes, kSeconds };

/// The roles that listen on ports and serve until they are stopped.
inline constexpr uint8_t kServingRoles = 15;
/// Those that read a model's folder.
inline constexpr uint8_t kModelRoles = 63;
inline constexpr uint8_t kAllRoles = 127;

struct OptionSpec {
  std::string name;   ///< "max-model-len": the flag, and the key in a config file
  std::string group;  ///< heading in --help
  OptionField field;
  std::string help;
  std::vector<std::string> choices{};  ///< of a text; empty: any
  int64_t minimum = 0;                 ///< of a number
  int64_t maximum = INT64_MAX;
  OptionUnit unit = OptionUnit::kNone;
  bool is_auto_when_zero = false;  ///< "auto" is accepted and printed for 0
  bool is_secret = false;          ///< printed as "***"
  uint8_t roles = kServingRoles;   ///< bits of Role that know the option
};

/// What `role` can be told, in the order of --help.
[[nodiscard]] const std::vector<OptionSpec>& option_table(Role role);

/// "TESSERA_MAX_MODEL_LEN".
[[nodiscard]] std::string environment_name(const OptionSpec& spec);

/// Replaces the option's value by what `values` say: one text, or any number for a list.
/// Errors: INVALID_ARGUMENT with what is allowed; the option's name is left to the caller.
[[nodiscard]] Status set_option(const OptionSpec& spec,
                                const std::vector<std::string>& values,
                                Options& options);

/// The option's value as a JSON value that a config file accepts; secrets as "***".
[[nodiscard]] std::string option_json(const OptionSpec& spec, const Options& options);

/// What does not fit together. Errors: INVALID_ARGUMENT, all faults, one a line.
[[nodiscard]] Status validate(Role role, const Options& options);

}  // namespace tessera::cli
