// The `tessera` binary: command line, signals, and the choice of what to run.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include <sys/resource.h>

#include "engine/base/log.h"
#include "engine/transport/ucx_context.h"
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
      std::fputs(cli::describe_version(ucx_version()).c_str(), stdout);
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

const char* role_name(cli::Command command) {
  switch (command) {
    case cli::Command::kServe:
      return "serve";
    case cli::Command::kRouter:
      return "router";
    case cli::Command::kPrefill:
      return "prefill";
    case cli::Command::kDecode:
      return "decode";
    case cli::Command::kEval:
      return "eval";
    case cli::Command::kCalibrate:
      return "calibrate";
    case cli::Command::kBench:
      return "bench";
    case cli::Command::kCheckConfig:
    case cli::Command::kVersion:
    case cli::Command::kHelp:
      break;
  }
  return "";
}

int fail(const Status& status) {
  if (log_format() == LogFormat::kJson) {
    log_error("failed", "reason", status.message());
    return EXIT_FAILURE;
  }
  std::fprintf(stderr, "tessera: %s\n", status.message().c_str());
  return EXIT_FAILURE;
}

/// A connection is a descriptor: what may be had, not the 1,024 that shells and init systems begin
/// with.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    static_cast<void>(setrlimit(RLIMIT_NOFILE, &limit));  // as it was, if not
  }
}

int main_of(int argc, char** argv) {
  block_signals();
  raise_descriptor_limit();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto line = cli::parse_command_line(arguments, read_environment);
  if (!line.is_ok()) {
    return fail(line.status());
  }
  const cli::Options& options = line.value().resolved.options;
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
  if (parse_log_level(options.log_level, level) && parse_log_format(options.log_format, format)) {
    init_logging(level, format, role_name(line.value().command));
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
