#include "server/roles/role_parts.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>

#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/text.h"
#include "server/cli/progress_bar.h"

namespace tessera {
namespace {

// A step on a slow machine takes a while.
constexpr std::chrono::seconds kLivenessLimit{120};

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

/// A bar or lines for people; nothing where the log is for machines.
std::function<void(int64_t, int64_t)> progress_shown() {
  if (log_format() == LogFormat::kJson) {
    return [](int64_t, int64_t) {};
  }
  const auto bar = std::make_shared<cli::ProgressBar>(  // shared: functions are copied
      stderr,
      isatty(STDERR_FILENO) == 1,
      "loading weights");
  return [bar](int64_t done, int64_t total) {
    bar->update(static_cast<double>(done), static_cast<double>(total));
  };
}

}  // namespace

std::string folder_name(const std::string& model) {
  std::error_code error;
  const auto path = std::filesystem::weakly_canonical(model, error);
  return error || path.filename().empty() ? model : path.filename().string();
}

std::string_view plan_title(WorkerRole role) noexcept {
  switch (role) {
    case WorkerRole::kCombined:
      return "server";
    case WorkerRole::kPrefill:
      return "prefill worker";
    case WorkerRole::kDecode:
      return "decode group";
  }
  return "";
}

Result<std::unique_ptr<ModelParts>> load_model(const cli::Options& options,
                                               const ModelConfig& config,
                                               WorkerRole role) {
  TESSERA_TRY(auto parts, ModelParts::create(options, config, role, progress_shown()));
  log_lines("memory_plan",
            str_cat("memory of the ", plan_title(role)),
            describe(parts->plan().memory, parts->config()));
  return parts;
}

Result<HandoffSettings> handoff_settings(const cli::Options& options) {
  HandoffSettings settings;
  settings.worker_name = str_cat(host_name(), ":", getpid());
  settings.lease = std::chrono::seconds(options.handoff_lease_s);
  settings.landing_slots = static_cast<int32_t>(options.landing_slots);
  settings.allow_staged_handoff = options.allow_staged_handoff;
  TESSERA_TRY(settings.faults, parse_transport_faults(options.handoff_faults));
  return settings;
}

Status check_heartbeat(Deadline::Clock::duration age) {
  if (age < kLivenessLimit) {
    return Status::ok();
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(age).count();
  return unavailable(str_cat("the engine has been silent for ", seconds, " s"));
}

}  // namespace tessera
