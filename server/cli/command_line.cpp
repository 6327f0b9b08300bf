#include "server/cli/command_line.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include <CLI/CLI.hpp>

#include "engine/base/text.h"
#include "server/cli/option_table.h"

namespace tessera::cli {
namespace {

constexpr const char* kFooter =
    "Every option can also be set by the environment variable TESSERA_<NAME> (--max-model-len by\n"
    "TESSERA_MAX_MODEL_LEN) or by the key of the same name in the --config file.\n"
    "Flags win over the environment, the environment over the file, the file over defaults.\n"
    "Sizes are bytes or 512MiB, 8GiB; times are whole seconds.";

/// What the flags of one subcommand said, by option name.
using FlagValues = std::map<std::string, std::vector<std::string>>;

std::string value_name(const OptionSpec& spec) {
  if (!spec.choices.empty()) {
    std::string names;
    for (const std::string& choice : spec.choices) {
      names += (names.empty() ? "" : "|") + choice;
    }
    return names;
  }
  if (std::holds_alternative<int64_t Options::*>(spec.field)) {
    return spec.unit == OptionUnit::kBytes     ? "SIZE"
           : spec.unit == OptionUnit::kSeconds ? "SECONDS"
                                               : "N";
  }
  return "TEXT";
}

void add_option(const OptionSpec& spec, Role role, FlagValues& values, CLI::App& app) {
  const std::string flag = "--" + spec.name;
  if (std::holds_alternative<bool Options::*>(spec.field)) {
    app.add_flag(str_cat(flag, ",!--no-", spec.name), values[spec.name], spec.help)
        ->group(spec.group)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    return;
  }
  const auto store = [&values, &spec](const CLI::results_t& texts) {
    values[spec.name] = texts;
    return true;
  };
  // The model or the target may be given without its flag: `tessera serve FOLDER`.
  const char* positional = role == Role::kBench ? "url" : "model";
  const std::string names = spec.name == positional ? spec.name + "," + flag : flag;
  CLI::Option* option = app.add_option(names, store, spec.help);
  option->group(spec.group)->type_name(value_name(spec))->expected(1);
  const std::string fallback = option_json(spec, default_options(role));
  if (fallback != "\"\"" && fallback != "[]") {
    option->default_str(fallback.front() == '"' ? fallback.substr(1, fallback.size() - 2)
                                                : fallback);
  }
  const bool is_list = std::holds_alternative<std::vector<std::string> Options::*>(spec.field);
  option->multi_option_policy(is_list ? CLI::MultiOptionPolicy::TakeAll
                                      : CLI::MultiOptionPolicy::TakeLast);
}

std::vector<std::string> flag_names(Role role) {
  std::vector<std::string> names = {"--config", "--help"};
  for (const OptionSpec& spec : option_table(role)) {
    names.push_back("--" + spec.name);
    if (std::holds_alternative<bool Options::*>(spec.field)) {
      names.push_back("--no-" + spec.name);
    }
  }
  return names;
}

/// The first argument nobody asked for, with the nearest name.
Status unknown_argument(const std::vector<std::string>& extras,
                        const std::vector<std::string>& known) {
  const auto flag = std::find_if(
      extras.begin(), extras.end(), [](const std::string& text) { return text.starts_with('-'); });
  const std::string word = flag == extras.end() ? extras.front() : *flag;
  const std::string nearest = nearest_name(word.substr(0, word.find('=')), known);
  return invalid_argument(str_cat("unknown argument \"",
                                  word,
                                  "\"",
                                  nearest.empty() ? "" : str_cat(", did you mean ", nearest, "?")));
}

Status apply_flags(const FlagValues& flags, ResolvedOptions& resolved) {
  for (const OptionSpec& spec : option_table(resolved.role)) {
    const auto values = flags.find(spec.name);
    if (values == flags.end() || values->second.empty()) {
      continue;
    }
    const Status status = set_option(spec, values->second, resolved.options);
    if (!status.is_ok()) {
      return status.with_context("--" + spec.name);
    }
    resolved.sources[spec.name] = "flag";
  }
  return Status::ok();
}

Status resolve(const FlagValues& flags,
               const Environment& environment,
               std::string config_path,
               ResolvedOptions& resolved) {
  if (config_path.empty()) {
    config_path = environment("TESSERA_CONFIG").value_or("");
  }
  if (!config_path.empty()) {
    TESSERA_RETURN_IF_ERROR(apply_config_file(config_path, resolved));
  }
  TESSERA_RETURN_IF_ERROR(apply_environment(environment, resolved));
  TESSERA_RETURN_IF_ERROR(apply_flags(flags, resolved));
  return validate(resolved.role, resolved.options);
}

/// A subcommand that takes the options of the table.
struct OptionCommand {
  Command command;
  Role role;
  CLI::App* app = nullptr;
  FlagValues flags{};
  std::string config_path{};

  void add_options() {
    app->footer(kFooter);
    app->add_option("--config", config_path, "JSON file of options; comments allowed")
        ->type_name("FILE");
    for (const OptionSpec& spec : option_table(role)) {
      add_option(spec, role, flags, *app);
    }
    app->allow_extras();
  }
};

Result<CommandLine> finish(OptionCommand& chosen, const Environment& environment) {
  if (chosen.app->remaining_size() > 0) {
    return unknown_argument(chosen.app->remaining(), flag_names(chosen.role));
  }
  CommandLine line{.command = chosen.command, .help = "", .resolved = ResolvedOptions(chosen.role)};
  TESSERA_RETURN_IF_ERROR(resolve(chosen.flags, environment, chosen.config_path, line.resolved));
  return line;
}

}  // namespace

Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments,
                                       const Environment& environment) {
  CLI::App app("Tessera: an inference server for models with multi-head latent attention",
               "tessera");
  app.allow_extras();
  std::array<OptionCommand, 8> commands{{
      {Command::kServe,
       Role::kServe,
       app.add_subcommand("serve",
                          "Serve a model over an OpenAI-style API, all roles on this host")},
      {Command::kRouter,
       Role::kRouter,
       app.add_subcommand("router", "Serve an OpenAI-style API with workers elsewhere")},
      {Command::kPrefill,
       Role::kPrefill,
       app.add_subcommand("prefill", "Compute prompts and hand their caches to decode groups")},
      {Command::kDecode,
       Role::kDecode,
       app.add_subcommand("decode", "Run a decode group that takes caches from prefill workers")},
      {Command::kEval,
       Role::kEval,
       app.add_subcommand("eval", "Measure what sharded decode costs in quality, over a text")},
      {Command::kCalibrate,
       Role::kCalibrate,
       app.add_subcommand("calibrate", "Make the calibration file that tpla needs, from a text")},
      {Command::kBench,
       Role::kBench,
       app.add_subcommand("bench", "Put a running server under load and report its latencies")},
      {Command::kCheckConfig,
       Role::kServe,
       app.add_subcommand("check-config",
                          "Check options and print the memory plan; loads nothing")},
  }};
  const CLI::App* version = app.add_subcommand("version", "Print what this binary is made of");
  for (OptionCommand& command : commands) {
    command.add_options();
  }
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    return CommandLine{
        .command = Command::kHelp, .help = app.help(), .resolved = ResolvedOptions()};
  } catch (const CLI::Error& error) {
    return invalid_argument(error.what());
  }
  std::vector<std::string> names = {"version", "--help"};
  for (OptionCommand& command : commands) {
    if (command.app->parsed()) {
      return finish(command, environment);
    }
    names.push_back(command.app->get_name());
  }
  if (app.remaining_size() > 0) {
    return unknown_argument(app.remaining(), names);
  }
  const Command command = version->parsed() ? Command::kVersion : Command::kHelp;
  return CommandLine{.command = command, .help = app.help(), .resolved = ResolvedOptions()};
}

}  // namespace tessera::cli
