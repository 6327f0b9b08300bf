// The `tessera` binary: command line, signals, and the choice of what to run.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "engine/base/log.h"
#include "server/cli/command_line.h"
#include "server/cli/version.h"
#include "server/roles/bench_role.h"
#include "server/roles/calibrate_role.h"
#include "server/roles/eval_role.h"
#include "server/roles/roles.h"
#include "server/signals.h"

namespace tessera {
namespace {

std::optional<std::string> read_environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());  // NOLINT(concurrency-mt-unsafe): one thread yet
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

Status run(const cli::CommandLine& line) {
  switch (line.command) {
    case cli::Command::kHelp:
      std::fputs(line.help.c_str(), stdout);
      return Status::ok();
    case cli::Command::kVersion:
      std::fputs(cli::describe_version().c_str(), stdout);
      return Status::ok();
    case cli::Command::kCheckConfig:
      return check_config(line.resolved);
    case cli::Command::kServe:
      stop_at_signals_while_loading();
      return serve(line.resolved);
    case cli::Command::kRouter:
      stop_at_signals_while_loading();
      return run_router(line.resolved);
    case cli::Command::kPrefill:
      stop_at_signals_while_loading();
      return run_prefill(line.resolved);
    case cli::Command::kDecode:
      stop_at_signals_while_loading();
      return run_decode(line.resolved);
    case cli::Command::kEval:
      stop_at_signals_while_loading();
      return run_eval(line.resolved);
    case cli::Command::kCalibrate:
      stop_at_signals_while_loading();
      return run_calibrate(line.resolved);
    case cli::Command::kBench:
      return run_bench(line.resolved);
  }
  return Status::ok();
}

int fail(const Status& status) {
  std::fprintf(stderr, "tessera: %s\n", status.message().c_str());
  return EXIT_FAILURE;
}

int main_of(int argc, char** argv) {
  block_signals();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto line = cli::parse_command_line(arguments, read_environment);
  if (!line.is_ok()) {
    return fail(line.status());
  }
  LogLevel level = LogLevel::kInfo;
  if (parse_log_level(line.value().resolved.options.log_level, level)) {
    init_logging(level);
  }
  const Status status = run(line.value());
  return status.is_ok() ? EXIT_SUCCESS : fail(status);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  try {
    return tessera::main_of(argc, argv);
  } catch (const std::exception& error) {  // out of memory, or a device that failed at start
    std::fprintf(stderr, "tessera: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
