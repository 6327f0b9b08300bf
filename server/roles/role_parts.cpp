#include "server/roles/role_parts.h"

#include <cstdio>
#include <filesystem>

#include <unistd.h>

#include "engine/base/text.h"
#include "server/cli/progress_bar.h"

namespace tessera {
namespace {

// A step on a slow machine takes a while.
constexpr std::chrono::seconds kLivenessLimit{120};

}  // namespace

std::string folder_name(const std::string& model) {
  std::error_code error;
  const auto path = std::filesystem::weakly_canonical(model, error);
  return error || path.filename().empty() ? model : path.filename().string();
}

Result<std::unique_ptr<ModelParts>> load_model(const cli::Options& options,
                                               const ModelConfig& config,
                                               WorkerRole role) {
  cli::ProgressBar bar(stderr, isatty(STDERR_FILENO) == 1, "loading weights");
  return ModelParts::create(options, config, role, [&](int64_t done, int64_t total) {
    bar.update(static_cast<double>(done), static_cast<double>(total));
  });
}

Status check_heartbeat(Deadline::Clock::duration age) {
  if (age < kLivenessLimit) {
    return Status::ok();
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(age).count();
  return unavailable(str_cat("the engine has been silent for ", seconds, " s"));
}

}  // namespace tessera
